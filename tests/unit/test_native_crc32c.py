"""CRC-32C: known vectors, all implementations of this machine against each other and the oracle."""

from __future__ import annotations

import random

import crc32c as independent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.crc32c import crc32c as reference
from trioq._native.crc32c import crc32c, crc32c_with, implementation


def available() -> list[str]:
    names = []
    for name in ("table", "sse4.2+pclmul", "armv8"):
        try:
            crc32c_with(name, b"")
        except ValueError:
            continue
        names.append(name)
    return names


NAMES = available()
LONG_STREAM, SHORT_STREAM = 2048, 256  # of crc32c_impl.c

VECTORS = [
    (b"", 0x00000000),
    (b"a", 0xC1D04330),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
            "0200000000000000"
        ),
        0xD9963A56,
    ),
]


def edge_sizes() -> list[int]:
    sizes = set(range(70))
    for round_bytes in (3 * SHORT_STREAM, 3 * LONG_STREAM):
        for rounds in (1, 2, 3):
            sizes.update(range(rounds * round_bytes - 17, rounds * round_bytes + 18))
    sizes.update((3 * LONG_STREAM + 3 * SHORT_STREAM + extra) for extra in range(-9, 10))
    sizes.update((65535, 65536, 65537, 200_000))
    return sorted(sizes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_known_vectors(name, data, expected):
    assert crc32c_with(name, data) == expected


def test_the_fastest_available_one_is_chosen():
    assert implementation() == NAMES[-1]
    assert "table" in NAMES


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="abacus"):
        crc32c_with("abacus", b"")


@pytest.mark.parametrize("name", NAMES)
def test_sizes_around_the_interleaved_blocks_at_any_alignment(name):
    data = random.Random(1).randbytes(210_000)
    for size in edge_sizes():
        for start in (0, 1, 3, 7) if size < 20_000 else (0, 5):
            piece = memoryview(data)[start : start + size]
            assert crc32c_with(name, piece) == independent.crc32c(piece), (size, start)


@pytest.mark.parametrize("name", NAMES)
def test_single_bits_in_every_stream(name):
    size = 3 * LONG_STREAM + 3 * SHORT_STREAM + 29
    data = bytearray(size)
    for position in range(0, size, 61):
        data[position] = 0x80
        assert crc32c_with(name, data) == independent.crc32c(data), position
        data[position] = 0


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1), st.integers(0, 3000))
def test_chained_values_and_the_oracle(data, value, cut):
    expected = reference(data, value)
    for name in NAMES:
        assert crc32c_with(name, data, value) == expected
        head = crc32c_with(name, data[:cut], value)
        assert crc32c_with(name, data[cut:], head) == expected
    assert crc32c(data, value) == expected


def test_any_contiguous_buffer_is_taken_and_others_refused():
    assert crc32c(bytearray(b"123456789")) == crc32c(memoryview(b"x123456789")[1:]) == 0xE3069283
    with pytest.raises(BufferError):
        crc32c(memoryview(b"123456789")[::2])
    with pytest.raises(TypeError):
        crc32c("text")
