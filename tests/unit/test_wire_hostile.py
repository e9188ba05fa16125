"""Bytes that lie: every decoder raises ProtocolViolation or returns a message, nothing else."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.wire_oracle import implemented, message_id, messages
from trioq.errors import ProtocolViolation
from trioq.wire.header import decode_request_header
from trioq.wire.messages.create_topics import CreateTopicsRequest
from trioq.wire.messages.fetch import FetchRequest, FetchResponse, FetchResponseTopic
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)
from trioq.wire.primitives import write_uvarint
from trioq.wire.schema import MAX_REQUEST_ELEMENTS, Message

every_version = pytest.mark.parametrize(("cls", "version"), implemented(), ids=message_id)
quick = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def decode(cls: type[Message], data: bytes, version: int) -> Message:
    return cls.decode(memoryview(data), 0, len(data), version)


@every_version
def test_cut_off_anywhere(cls: type[Message], version: int) -> None:
    @quick
    @given(messages(cls, version))
    def check(message: Any) -> None:
        data = message.encode(version)
        for end in range(len(data)):
            with pytest.raises(ProtocolViolation):
                decode(cls, data[:end], version)
            # Bytes of a later frame behind the end must not be read.
            with pytest.raises(ProtocolViolation):
                cls.decode(memoryview(data), 0, end, version)

    check()


@every_version
def test_bytes_left_over(cls: type[Message], version: int) -> None:
    if version >= cls._tail_from:
        assert decode(cls, cls().encode(version) + b"\0", version) == cls()
        return
    with pytest.raises(ProtocolViolation, match="1 bytes left over"):
        decode(cls, cls().encode(version) + b"\0", version)


@every_version
def test_mutated_bytes(cls: type[Message], version: int) -> None:
    @quick
    @given(
        messages(cls, version),
        st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
    )
    def check(message: Any, changes: list[tuple[int, int]]) -> None:
        data = bytearray(message.encode(version))
        for place, byte in changes if data else []:
            data[place % len(data)] = byte
        try:
            decoded = decode(cls, bytes(data), version)
        except ProtocolViolation:
            return
        assert decode(cls, decoded.encode(version), version) == decoded

    check()


@every_version
def test_random_bytes(cls: type[Message], version: int) -> None:
    @quick
    @given(st.binary(max_size=64))
    def check(data: bytes) -> None:
        try:
            decode(cls, data, version)
        except ProtocolViolation as error:
            assert f"{cls.__name__} v{version}: " in str(error)

    check()


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_random_headers(data: bytes) -> None:
    try:
        header = decode_request_header(memoryview(data), 0, len(data))
    except ProtocolViolation:
        return
    assert 0 < header.position <= len(data)


def test_the_error_names_message_version_field_and_byte() -> None:
    data = ProduceRequest(
        topic_data=[
            ProduceRequestTopic(name="t", partition_data=[ProduceRequestPartition(records=b"abc")])
        ]
    ).encode(9)
    with pytest.raises(
        ProtocolViolation,
        match=r"^ProduceRequest v9: topic_data\[\].partition_data\[\].records, byte 16: "
        "length 3, but 2 bytes left$",
    ):
        decode(ProduceRequest, data[:-4], 9)


@pytest.mark.parametrize(
    ("version", "count"),
    [(0, b"\x7f\xff\xff\xff"), (1, b"\x7f\xff\xff\xff"), (9, b"\xff\xff\xff\xff\x0f")],
)
def test_a_huge_count_allocates_nothing(version: int, count: bytes) -> None:
    data = count + bytes(1000)
    decode(MetadataRequest, MetadataRequest().encode(version), version)  # the decoder is made
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation, match=r"elements, but \d+ bytes left"):
            decode(MetadataRequest, data, version)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_count_takes_each_element_at_its_least_size() -> None:
    # A topic with an empty name takes 2 bytes in version 1.
    data = (4).to_bytes(4) + bytes(7)
    with pytest.raises(ProtocolViolation, match="4 elements, but 7 bytes left"):
        decode(MetadataRequest, data, 1)
    empty = MetadataRequestTopic(name="")
    assert decode(MetadataRequest, (4).to_bytes(4) + bytes(8), 1) == MetadataRequest(
        topics=[empty] * 4
    )


@pytest.mark.parametrize("count", [-1, -2, -(1 << 31)])
def test_a_negative_count_means_null_or_is_refused(count: int) -> None:
    data = count.to_bytes(4, signed=True)
    assert decode(MetadataRequest, data, 1).topics is None  # type: ignore[attr-defined]
    with pytest.raises(ProtocolViolation, match="topics, byte 4: must not be null"):
        decode(MetadataRequest, data, 0)


@pytest.mark.parametrize(
    "varint", [b"\x80\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\x1f", b"\xff\xff\xff\xff\xff"]
)
def test_an_overlong_varint_is_refused(varint: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="varint of more than 32 bits"):
        decode(MetadataRequest, varint + bytes(20), 9)


def test_text_that_is_not_utf_8_is_refused() -> None:
    data = MetadataRequest(topics=[MetadataRequestTopic(name="ab")]).encode(1)
    with pytest.raises(ProtocolViolation, match=r"topics\[\].name.*utf-8"):
        decode(MetadataRequest, data.replace(b"ab", b"\xff\xfe"), 1)


def test_a_tagged_field_longer_than_it_says_is_refused() -> None:
    data = FetchRequest(cluster_id="abc").encode(12)
    at = data.index(b"\x04abc")
    assert data[at - 1] == 4  # the length of the tagged field
    with pytest.raises(ProtocolViolation, match="cluster_id, .*length of the tag is wrong"):
        decode(FetchRequest, data[: at - 1] + b"\x03" + data[at:], 12)


@pytest.mark.parametrize("section", [b"\xff\xff\xff\xff\x0f", b"\x01\x09", b"\x01\x09\x05abcd"])
def test_tagged_fields_beyond_the_end_are_refused(section: bytes) -> None:
    data = CreateTopicsRequest().encode(5)
    with pytest.raises(ProtocolViolation, match="tagged fields"):
        decode(CreateTopicsRequest, data[:-1] + section, 5)


def test_a_version_that_is_not_declared_is_refused() -> None:
    for version in (-1, 12, 13):
        with pytest.raises(ProtocolViolation, match=f"ProduceRequest has no version {version}"):
            decode(ProduceRequest, b"", version)


LEAST_TOPICS = [
    (ProduceRequest, 3, b"\xff\xff" + bytes(6), bytes(6), b""),
    (ProduceRequest, 9, bytes(7), b"\x01\x01\x00", b"\x00"),
    (FetchRequest, 4, bytes(17), bytes(6), b""),
    (MetadataRequest, 1, b"", bytes(2), b""),
    (CreateTopicsRequest, 5, b"", b"\x01" + bytes(6) + b"\x01\x01\x00", bytes(6)),
]
"""Version, what stands before the count of topics, the smallest topic, what stands behind."""


@pytest.mark.parametrize(("cls", "version", "before", "topic", "after"), LEAST_TOPICS)
def test_a_request_has_a_bounded_number_of_elements(
    cls: type[Message], version: int, before: bytes, topic: bytes, after: bytes
) -> None:
    def encoded(count: int) -> bytes:
        out = bytearray()
        if version >= cls.FLEXIBLE_FROM:
            write_uvarint(out, count + 1)
        else:
            out += count.to_bytes(4)
        return before + bytes(out) + topic * count + after

    most = MAX_REQUEST_ELEMENTS
    assert isinstance(decode(cls, encoded(most), version), cls)
    data = encoded(most * 20)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation, match="1900000 more than a message may have"):
            decode(cls, data, version)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [3, 9])
def test_elements_count_over_all_arrays_of_a_request(version: int) -> None:
    def asking_for(partitions: int) -> bytes:
        topic = ProduceRequestTopic(partition_data=[ProduceRequestPartition()] * partitions)
        return ProduceRequest(topic_data=[topic] * 10).encode(version)

    each = MAX_REQUEST_ELEMENTS // 10 - 1
    message = decode(ProduceRequest, asking_for(each), version)
    assert sum(len(topic.partition_data) for topic in message.topic_data) == each * 10  # type: ignore[attr-defined]
    with pytest.raises(ProtocolViolation, match=r"partition_data, .* 10 more than a message may"):
        decode(ProduceRequest, asking_for(each + 1), version)


def test_a_response_may_have_more_elements_than_a_request() -> None:
    count = MAX_REQUEST_ELEMENTS + 1
    response = FetchResponse(responses=[FetchResponseTopic() for _ in range(count)])
    assert len(decode(FetchResponse, response.encode(4), 4).responses) == count  # type: ignore[attr-defined]
