"""murmur2 as Kafka's Java client has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq._native.murmur2 import key_partition, murmur2

# From UtilsTest of Apache Kafka, as signed numbers.
KNOWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def reference(data: bytes) -> int:
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@pytest.mark.parametrize(("data", "signed"), KNOWN.items())
def test_known_values(data, signed):
    assert murmur2(data) == signed & 0xFFFFFFFF
    assert reference(data) == signed & 0xFFFFFFFF


@given(st.binary(max_size=100))
def test_any_bytes(data):
    assert murmur2(data) == reference(data)
    assert murmur2(memoryview(bytearray(b"x" + data + b"x"))[1:-1]) == reference(data)


@given(st.binary(max_size=20), st.integers(1, 2**31 - 1))
def test_partitions_are_in_range_and_as_javas(key, count):
    assert key_partition(key, count) == (reference(key) & 0x7FFFFFFF) % count


def test_what_has_no_partition():
    with pytest.raises(ValueError, match="no 0 partitions"):
        key_partition(b"k", 0)
    with pytest.raises(TypeError):
        key_partition("text", 1)
