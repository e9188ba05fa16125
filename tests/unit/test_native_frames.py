"""Frame splitting: examples, and random bytes against the reference."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import framing as reference
from tests.reference.strategies import mutated, outcome
from trioq._native import frames
from trioq.errors import ProtocolViolation


def framed(*bodies):
    return b"".join(struct.pack(">i", len(body)) + body for body in bodies)


def test_whole_and_partial_frames():
    buf = b"??" + framed(b"ab", b"c") + struct.pack(">i", 9) + b"part"
    assert frames.split(buf, 2, len(buf), 100, 10) == ([(6, 8), (12, 13)], 13, 13)
    assert frames.split(buf, 2, 13, 100, 10) == ([(6, 8), (12, 13)], 13, 0)
    assert frames.split(buf, 2, 16, 100, 10) == ([(6, 8), (12, 13)], 13, 0)
    assert frames.split(b"", 0, 0, 100, 10) == ([], 0, 0)


def test_max_frames_leaves_whole_ones_behind():
    buf = framed(b"ab", b"c", b"d")
    assert frames.split(buf, 0, len(buf), 100, 1) == ([(4, 6)], 6, 5)
    assert frames.split(buf, 6, len(buf), 100, 1) == ([(10, 11)], 11, 5)
    assert frames.split(buf, 0, len(buf), 100, 0) == ([], 0, 6)


@pytest.mark.parametrize("length", [0, -1, -(2**31), 101, 2**31 - 1])
def test_impossible_lengths_are_named(length):
    buf = framed(b"ok") + struct.pack(">i", length)
    with pytest.raises(ProtocolViolation, match=str(length)):
        frames.split(buf, 0, len(buf), 100, 10)
    assert frames.split(buf, 0, len(buf) - 1, 100, 10) == ([(4, 6)], 6, 0)


@pytest.mark.parametrize(
    ("start", "called"),
    [
        (b"GET / HTTP/1.1\r\n", "1195725856.*HTTP"),
        (b"POST /", "HTTP"),
        (b"OPTIONS", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"\x7f\xff\xff\xff", "over the limit of 104857600$"),
    ],
)
def test_other_protocols_are_recognised(start, called):
    with pytest.raises(ProtocolViolation, match=called):
        frames.split(start, 0, len(start), 100 * 1024 * 1024, 10)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 11), (2**62, 2**62)])
def test_ranges_outside_the_buffer_are_refused(start, end):
    with pytest.raises(ValueError):
        frames.split(bytes(10), start, end, 100, 10)


STREAMS = mutated(st.lists(st.binary(max_size=12), max_size=6).map(lambda b: framed(*b)))


@settings(deadline=None, max_examples=500)
@given(STREAMS, st.integers(0, 9), st.integers(0, 9), st.integers(1, 20), st.integers(0, 7))
def test_against_the_reference(buf, skip, cut, max_frame_bytes, max_frames):
    start = min(len(buf), skip if skip < 3 else 0)
    end = max(start, len(buf) - cut)
    arguments = (buf, start, end, max_frame_bytes, max_frames)
    assert outcome(frames.split, *arguments) == outcome(reference.split, *arguments)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.integers(1, 20))
def test_any_fragmentation_gives_the_same_frames(bodies, step):
    stream = framed(*bodies)
    received = bytearray()
    start = 0
    found = []
    for position in range(0, len(stream), step):
        received += stream[position : position + step]
        parts, start, needed = frames.split(received, start, len(received), 30, 100)
        found += [bytes(received[s:e]) for s, e in parts]
        assert needed == 0 or start + needed > len(received)
    assert found == bodies
    assert start == len(stream)
