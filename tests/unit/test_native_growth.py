"""Growing a bytearray without clearing it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq._native.growth import grow


@given(st.binary(max_size=100), st.lists(st.integers(0, 2_000_000), max_size=4))
def test_what_was_there_stays_and_the_rest_can_be_written(first: bytes, sizes: list[int]) -> None:
    buffer = bytearray(first)
    for size in sizes:
        before = len(buffer)
        grow(buffer, size)
        assert len(buffer) == before + size
        buffer[before:] = b"x" * size
    assert buffer == first + b"x" * sum(sizes)


def test_a_borrowed_buffer_does_not_grow() -> None:
    buffer = bytearray(10)
    with memoryview(buffer), pytest.raises(BufferError):
        grow(buffer, 10)
    assert len(buffer) == 10


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        grow(bytearray(10), -1)
