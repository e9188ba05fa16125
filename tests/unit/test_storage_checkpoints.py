from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.storage.checkpoints import (
    CorruptCheckpoint,
    decode_epochs,
    decode_lines,
    decode_offsets,
    encode_offsets,
)
from trioq.types import TopicPartition

NAMES = st.text("abcXYZ019._-", min_size=1, max_size=20)
PARTITIONS = st.builds(TopicPartition, NAMES, st.integers(0, 2**31 - 1))


def test_file() -> None:
    offsets = {TopicPartition("orders", 1): 99, TopicPartition("orders", 0): 1234}
    assert encode_offsets(offsets) == b"0\n2\norders 0 1234\norders 1 99\n"
    assert encode_offsets({}) == b"0\n0\n"
    assert decode_offsets(b"", "f") == {}


@given(st.dictionaries(PARTITIONS, st.integers(0, 2**63 - 1)))
def test_roundtrip(offsets: dict[TopicPartition, int]) -> None:
    assert decode_offsets(encode_offsets(offsets), "f") == offsets


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"0\n2\na 0 1\n", "2 entries announced, 1 found"),
        (b"0\n1\na 0 1\nb 0 1\n", "1 entries announced, 2 found"),
        (b"0\n1\na 0 1", "cut off"),
        (b"1\n0\n", "version 1"),
        (b"x\n0\n", "'x' is not a number"),
        (b"\n", "'' is not a number"),
        (b"0\n", "number of entries is missing"),
        (b"0\n1\na 0\n", "not topic, partition and offset"),
        (b"0\n1\na b 0 1\n", "not topic, partition and offset"),
        (b"0\n1\na -1 1\n", "'-1' is not a number"),
        (b"0\n1\na 0 \xd9\xa1\n", "is not a number"),
        (b"0\n1\na 0 9223372036854775808\n", "is not a number"),
        (b"0\n1\na 2147483648 0\n", "is not a number"),
        (b"0\n2\na 0 1\na 0 2\n", "a-0 comes twice"),
        (b"0\n1\na 0 \xff\n", "byte 8 is not text"),
    ],
)
def test_damage_is_told_with_the_file(data: bytes, says: str) -> None:
    with pytest.raises(CorruptCheckpoint) as told:
        decode_offsets(data, "/data/recovery")
    assert str(told.value).startswith("/data/recovery: ")
    assert says in str(told.value)


@given(st.binary(max_size=60) | st.text("01 ab\n-", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_lines, decode_offsets, decode_epochs):
        try:
            decode(data, "f")
        except CorruptCheckpoint as error:
            assert str(error).startswith("f: ")
