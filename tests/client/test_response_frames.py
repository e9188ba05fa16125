"""Cutting a stream into frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.client.response_frames import ResponseFrames
from trioq.errors import ProtocolViolation


@given(
    st.lists(st.binary(min_size=4, max_size=200), max_size=8),
    st.lists(st.integers(1, 64), min_size=1, max_size=50),
)
def test_frames_come_out_whole_however_they_come_in(bodies, steps):
    stream = b"".join(struct.pack(">i", len(body)) + body for body in bodies)
    frames = ResponseFrames(1000)
    out = []
    position = 0
    turn = 0
    while position < len(stream):
        step = steps[turn % len(steps)]
        out += frames.feed(stream[position : position + step])
        position += step
        turn += 1
    assert [bytes(frame) for frame in out] == bodies


@pytest.mark.parametrize("length", [-1, 0, 3, 1001, 0x48545450])
def test_a_length_that_no_response_has(length):
    with pytest.raises(ProtocolViolation, match="is this a Kafka broker"):
        ResponseFrames(1000).feed(struct.pack(">i", length) + b"rest")
