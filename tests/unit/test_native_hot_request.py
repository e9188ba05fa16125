"""The one-call readers of requests against the general codec: the same, or nothing."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioq._native.hot_request import RequestHead, SingleBatch, read_head, read_single_batch
from trioq.errors import ProtocolViolation
from trioq.wire.api_keys import APIS
from trioq.wire.framing import response_frame
from trioq.wire.header import RequestHeader, decode_request_header
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
    ProduceResponsePartition,
    ProduceResponseTopic,
)

PRODUCE = 0
VERSIONS = st.integers(0, ProduceRequest.LAST_VERSION)
FLEXIBLE_FROM = {int(key): api.flexible_from for key, api in APIS.items()}

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class Request(RequestHead):
    """What the server makes of it: a subclass with a slot of its own."""

    __slots__ = ("connection",)


def header_bytes(key: int, version: int, correlation_id: int, client_id: str | None) -> bytes:
    data = struct.pack(">hhi", key, version, correlation_id)
    encoded = b"" if client_id is None else client_id.encode()
    data += struct.pack(">h", -1 if client_id is None else len(encoded)) + encoded
    return data + (b"\0" if version >= FLEXIBLE_FROM.get(key, 1 << 15) else b"")


def read_generally(buf: memoryview, start: int, end: int) -> RequestHeader | None:
    try:
        return decode_request_header(buf, start, end)
    except ProtocolViolation:
        return None


def has_tags(buf: memoryview, start: int, header: RequestHeader) -> bool:
    client_id = b"" if header.client_id is None else header.client_id.encode()
    is_flexible = header.api_version >= FLEXIBLE_FROM[header.api_key]
    return is_flexible and buf[start + 10 + len(client_id)] != 0


@given(
    st.sampled_from([*FLEXIBLE_FROM, 999]), st.integers(0, 99), int32, st.none() | texts, st.data()
)
def test_a_head_is_what_the_general_decoder_reads(
    key: int, version: int, correlation_id: int, client_id: str | None, data: st.DataObject
) -> None:
    encoded = bytearray(b"##" + header_bytes(key, version, correlation_id, client_id) + b"body")
    for at in data.draw(st.lists(st.integers(2, len(encoded) - 1), max_size=2)):
        encoded[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(2, len(encoded)) | st.just(len(encoded)))
    buf = memoryview(encoded)
    general = read_generally(buf, 2, end)
    head = read_head(Request, buf, 2, end, FLEXIBLE_FROM)
    if head is None:
        assert general is None or general.api_key not in FLEXIBLE_FROM or has_tags(buf, 2, general)
        return
    assert type(head) is Request
    fields = (head.api_key, head.api_version, head.correlation_id, head.client_id, head.position)
    assert fields == general
    assert head.body is buf
    assert head.end == end


def test_an_ordinary_head_is_read() -> None:
    for key, flexible_from in FLEXIBLE_FROM.items():
        for version in {0, min(flexible_from, 1000)}:  # some never are
            data = memoryview(header_bytes(key, version, -7, "client"))
            head = read_head(Request, data, 0, len(data), FLEXIBLE_FROM)
            assert head is not None
            assert head.client_id == "client"
            assert head.position == len(data)


def test_a_head_moves_with_its_body() -> None:
    data = memoryview(b"####" + header_bytes(PRODUCE, 7, 1, None) + b"body")
    head = read_head(Request, data, 4, len(data), FLEXIBLE_FROM)
    assert head is not None
    own = memoryview(bytes(data[4:]))
    head.move(own, -4, len(own))
    assert bytes(own[head.position : head.end]) == b"body"
    assert head.body is own


def test_ranges_outside_the_buffer_are_refused() -> None:
    data = memoryview(bytes(20))
    for start, end in ((-1, 5), (6, 5), (0, 21)):
        with pytest.raises(ValueError, match="outside the buffer"):
            read_head(Request, data, start, end, FLEXIBLE_FROM)
        with pytest.raises(ValueError, match="outside the buffer"):
            read_single_batch(data, start, end, 7)


def test_neither_is_made_by_hand() -> None:
    for cls in (RequestHead, SingleBatch):
        with pytest.raises(TypeError, match="comes from"):
            cls()


produce_requests = st.builds(
    ProduceRequest,
    transactional_id=st.none() | st.none() | texts,
    acks=st.integers(-2, 2),
    timeout_ms=int32,
    topic_data=st.lists(
        st.builds(
            ProduceRequestTopic,
            name=texts,
            partition_data=st.lists(
                st.builds(
                    ProduceRequestPartition,
                    index=int32,
                    records=st.none() | st.binary(max_size=300),
                ),
                min_size=1,
                max_size=2,
            ),
        ),
        min_size=1,
        max_size=2,
    ),
)


def is_single(message: ProduceRequest, version: int) -> bool:
    return (
        version >= 3
        and message.transactional_id is None
        and len(message.topic_data) == 1
        and len(message.topic_data[0].partition_data) == 1
        and message.topic_data[0].partition_data[0].records is not None
    )


@given(produce_requests, VERSIONS, st.data())
def test_a_single_batch_is_what_the_general_decoder_reads(
    message: ProduceRequest, version: int, data: st.DataObject
) -> None:
    if version < 3:
        message.transactional_id = None
    body = message.encode(version)
    buf = memoryview(bytearray(b"#" + body))
    single = read_single_batch(buf, 1, len(buf), version)
    assert (single is not None) == is_single(message, version)

    damaged = bytearray(b"#" + body)
    for at in data.draw(st.lists(st.integers(1, len(body)), min_size=1, max_size=3)):
        damaged[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(damaged)) | st.just(len(damaged)))
    for candidate, edge in ((buf, len(buf)), (memoryview(damaged), end)):
        single = read_single_batch(candidate, 1, edge, version)
        if single is None:
            continue
        general = ProduceRequest.decode(candidate, 1, edge, version)
        assert is_single(general, version)
        topic = general.topic_data[0]
        partition: Any = topic.partition_data[0]
        assert (single.acks, single.timeout_ms) == (general.acks, general.timeout_ms)
        assert (single.topic, single.partition) == (topic.name, partition.index)
        assert single.records == partition.records
        assert single.records.obj is candidate.obj
        assert not single.records.readonly


@given(texts, int32, st.integers(3, ProduceRequest.LAST_VERSION), int32, int64, int64, int64)
@example("t" * 249, 0, 9, 1, 2, -1, 0)
@example("t" * 0x7FFF, 0, 11, 1, 2, -1, 0)
@example("t" * 0x7FFF, 0, 3, 1, 2, -1, 0)
def test_the_answer_is_what_the_general_encoder_writes(
    topic: str,
    partition: int,
    version: int,
    correlation_id: int,
    base_offset: int,
    append_time_ms: int,
    log_start_offset: int,
) -> None:
    asked = ProduceRequestPartition(index=partition, records=b"batch")
    body = ProduceRequest(
        acks=1, topic_data=[ProduceRequestTopic(name=topic, partition_data=[asked])]
    ).encode(version)
    single = read_single_batch(memoryview(bytearray(body)), 0, len(body), version)
    assert single is not None
    answered = ProduceResponsePartition(
        index=partition,
        base_offset=base_offset,
        log_append_time_ms=append_time_ms,
        log_start_offset=log_start_offset,
    )
    response = ProduceResponse(
        responses=[ProduceResponseTopic(name=topic, partition_responses=[answered])]
    )
    answer = single.answer(correlation_id, base_offset, append_time_ms, log_start_offset)
    assert [answer] == response_frame(PRODUCE, version, correlation_id, response)
