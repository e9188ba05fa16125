from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.storage.identity import (
    CorruptIdentity,
    LogDirIdentity,
    decode_partition_metadata,
    encode_partition_metadata,
    format_id,
    parse_id,
    parse_properties,
)

ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
ID_TEXT = "ABEiM0RVZneImaq7zN3u_w"


def test_ids_are_kafkas() -> None:
    assert format_id(ID) == ID_TEXT
    assert parse_id(ID_TEXT) == ID
    assert parse_id(ID_TEXT + "==") == ID
    assert format_id(uuid.UUID(int=0)) == "AAAAAAAAAAAAAAAAAAAAAA"


@given(st.uuids())
def test_every_id_comes_back(value: uuid.UUID) -> None:
    assert parse_id(format_id(value)) == value


@pytest.mark.parametrize("text", ["", "abc", "+" * 22, ID_TEXT + "A", str(ID), "A" * 10**6])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        parse_id(text)


def test_meta_properties() -> None:
    identity = LogDirIdentity("fixture-cluster", 3, ID)
    text = (
        b"version=1\ncluster.id=fixture-cluster\nnode.id=3\ndirectory.id="
        + ID_TEXT.encode()
        + b"\n"
    )
    assert identity.encode() == text
    assert LogDirIdentity.decode(text, "f") == identity


def test_meta_properties_as_kafka_writes_it() -> None:
    text = (
        "#\n#Thu Nov 23 07:11:02 UTC 2023\n"
        f"broker.id=3\nversion=0\ncluster.id : abc\\u0064\\=\n  directory.id {ID_TEXT}\r\n\n"
    )
    assert LogDirIdentity.decode(text.encode(), "f") == LogDirIdentity("abcd=", 3, ID)


@given(st.text(min_size=1), st.integers(0, 2**31 - 1), st.uuids())
def test_meta_properties_roundtrip(cluster_id: str, node_id: int, directory_id: uuid.UUID) -> None:
    identity = LogDirIdentity(cluster_id, node_id, directory_id)
    assert LogDirIdentity.decode(identity.encode(), "f") == identity


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "version ''"),
        (b"version=2", "version '2'"),
        (b"version=1\nnode.id=x", "node.id 'x'"),
        (b"version=1\nnode.id=1", "cluster.id is missing"),
        (b"version=1\nnode.id=1\ncluster.id=c", "directory.id: '' is not an id"),
        (b"\xff", "byte 0 is not UTF-8"),
    ],
)
def test_meta_properties_damaged(data: bytes, says: str) -> None:
    with pytest.raises(CorruptIdentity) as told:
        LogDirIdentity.decode(data, "/d/meta.properties")
    assert str(told.value).startswith("/d/meta.properties: ")
    assert says in str(told.value)


def test_properties_syntax() -> None:
    text = "! no\n# no\\\na=1\na2 : x y\nlong=one, \\\n   two\nb\\ c=\\t\\\\\nempty\nlast=\\"
    assert parse_properties(text.encode(), "f") == {
        "a": "1",
        "a2": "x y",
        "long": "one, two",
        "b c": "\t\\",
        "empty": "",
        "last": "",
    }


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (LogDirIdentity.decode, decode_partition_metadata):
        with pytest.raises(CorruptIdentity):
            decode(data, "f")


def test_partition_metadata() -> None:
    text = b"version: 0\ntopic_id: " + ID_TEXT.encode()
    assert encode_partition_metadata(ID) == text
    assert decode_partition_metadata(text, "f") == ID
    assert decode_partition_metadata(text + b"\n", "f") == ID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"version: 0",
        b"version: 0\ntopic_id: ",
        b"version: 0\ntopic_id: short",
        b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
        b"version: x\ntopic_id: ABEiM0RVZneImaq7zN3u_w",
    ],
)
def test_partition_metadata_damaged(data: bytes) -> None:
    with pytest.raises(CorruptIdentity, match="^/d/partition.metadata: "):
        decode_partition_metadata(data, "/d/partition.metadata")
