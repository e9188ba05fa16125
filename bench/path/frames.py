"""Requests built once, to be sent again and again by the load generator."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from bench.path.work import CODECS, Work
from trioq._native.batch import seal
from trioq.record.builder import build_batch
from trioq.record.compression import Codec
from trioq.record.layout import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.fetch import FetchRequest, FetchRequestPartition, FetchRequestTopic
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)

PRODUCE_VERSION = 7
FETCH_VERSION = 11
METADATA_VERSION = 4
LIST_OFFSETS_VERSION = 1
CLIENT_ID = b"bench"
LENGTH_PREFIX_BYTES = 4
CORRELATION_BYTES = 4
HEADER_BYTES = 61
PRODUCER_ID_AT = 43
LONG_POLL_MS = 500
MARKED_OFFSET = 0x7A7A7A7A7A7A7A7A


class Template(NamedTuple):
    """Frames of equal size and where the load generator patches them (0: not at all)."""

    frames: bytes
    frame_bytes: int
    batch_at: int = 0
    records: int = 1
    offset_at: int = 0
    offset_step: int = 0
    offset_end: int = 1
    error_at: int = 0
    error2_at: int = 0
    answer_min: int = 0
    """A shorter answer does not hold what was asked for."""

    has_answers: bool = True
    batch_bytes: int = 0
    """Of the record batch in a frame."""

    def options(self) -> list[str]:
        """The load generator's options for this template."""
        return [
            f"frame={self.frame_bytes}",
            f"batch_at={self.batch_at}",
            f"records={self.records}",
            f"offset_at={self.offset_at}",
            f"offset_step={self.offset_step}",
            f"offset_end={self.offset_end}",
            f"error_at={self.error_at}",
            f"error2_at={self.error2_at}",
            f"answer_min={self.answer_min}",
            f"answers={int(self.has_answers)}",
        ]


def request_frame(api_key: int, version: int, body: bytes, client_id: bytes = CLIENT_ID) -> bytes:
    """A frame with correlation id 0 and a header before flexible versions."""
    header = b"".join(
        (
            api_key.to_bytes(2, "big"),
            version.to_bytes(2, "big"),
            (0).to_bytes(CORRELATION_BYTES, "big"),
            len(client_id).to_bytes(2, "big"),
            client_id,
        )
    )
    return (len(header) + len(body)).to_bytes(LENGTH_PREFIX_BYTES, "big") + header + body


def produce_template(topic: str, work: Work, producer_ids: Sequence[int] = ()) -> Template:
    """Produce requests of one batch each, for as many partitions and connections as `work` has.

    With producer ids (one for each connection that sends) each frame has a sequence of its own,
    which the generator counts on: no two frames have the same producer and partition.
    """
    connections = work.active or work.connections
    count = max(connections, work.partitions)
    batch = _batch(work, is_idempotent=bool(producer_ids))
    frames = []
    batch_at = 0
    for number in range(count):
        if producer_ids:
            producer_id = producer_ids[number % connections]
            batch[PRODUCER_ID_AT : PRODUCER_ID_AT + 8] = producer_id.to_bytes(8, "big")
            seal(batch)
        data = ProduceRequestPartition(index=number % work.partitions, records=bytes(batch))
        body = ProduceRequest(
            acks=work.acks,
            timeout_ms=30_000,
            topic_data=[ProduceRequestTopic(name=topic, partition_data=[data])],
        ).encode(PRODUCE_VERSION)
        frame = request_frame(ApiKey.PRODUCE, PRODUCE_VERSION, body)
        batch_at = frame.index(bytes(batch[:HEADER_BYTES]))
        frames.append(frame)
    # topics, name, partitions, index, then the error code
    error_at = LENGTH_PREFIX_BYTES + CORRELATION_BYTES + 4 + 2 + len(topic) + 4 + 4
    return Template(
        b"".join(frames),
        len(frames[0]),
        batch_at if producer_ids else 0,
        work.records,
        error_at=error_at,
        has_answers=work.acks != 0,
        batch_bytes=len(batch),
    )


def _batch(work: Work, *, is_idempotent: bool) -> bytearray:
    """A batch of now, since retention would delete an older one."""
    now_ms = int(time.time() * 1000)
    return build_batch(
        [(now_ms, None, value, ()) for value in _values(work)],
        codec=Codec(CODECS.index(work.codec)),
        producer_id=0 if is_idempotent else NO_PRODUCER_ID,
        producer_epoch=0 if is_idempotent else NO_PRODUCER_EPOCH,
        base_sequence=0 if is_idempotent else NO_SEQUENCE,
    )


def _values(work: Work) -> list[bytes]:
    """Different values, which a codec makes about half as long."""
    size = work.record_bytes
    digits = os.urandom(work.batch_bytes // 2 + 1).hex().encode()
    return [digits[at * size : (at + 1) * size] for at in range(work.records)]


def fetch_template(topic: str, work: Work, offset_end: int, batch_bytes: int) -> Template:
    """One fetch per connection, of one request's batch; the offset runs through partition 0."""
    asked = FetchRequestPartition(
        partition=0, fetch_offset=MARKED_OFFSET, partition_max_bytes=batch_bytes
    )
    frame = _fetch_frame(topic, asked, max_bytes=batch_bytes, max_wait_ms=LONG_POLL_MS)
    error_at, error2_at = _fetch_errors(topic)
    return Template(
        frame * work.connections,
        len(frame),
        offset_at=frame.index(MARKED_OFFSET.to_bytes(8, "big")),
        offset_step=work.records,
        offset_end=offset_end,
        answer_min=batch_bytes,
        error_at=error_at,
        error2_at=error2_at,
    )


def long_poll_template(topic: str, work: Work) -> Template:
    """Fetches at the end of an empty partition: each waits for half a second."""
    frames = [
        _fetch_frame(
            topic,
            FetchRequestPartition(
                partition=number % work.partitions, fetch_offset=0, partition_max_bytes=1 << 20
            ),
            max_bytes=1 << 20,
            max_wait_ms=LONG_POLL_MS,
        )
        for number in range(work.active or work.connections)
    ]
    error_at, error2_at = _fetch_errors(topic)
    return Template(b"".join(frames), len(frames[0]), error_at=error_at, error2_at=error2_at)


def _fetch_frame(
    topic: str, asked: FetchRequestPartition, *, max_bytes: int, max_wait_ms: int
) -> bytes:
    body = FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        topics=[FetchRequestTopic(topic=topic, topic_id=UUID(int=0), partitions=[asked])],
    ).encode(FETCH_VERSION)
    return request_frame(ApiKey.FETCH, FETCH_VERSION, body)


def _fetch_errors(topic: str) -> tuple[int, int]:
    """Where the error codes are: that of the response, and the first partition's."""
    # throttle time, error code, session id, topics, name, partitions, index, error code
    error_at = LENGTH_PREFIX_BYTES + CORRELATION_BYTES + 4
    return error_at, error_at + 2 + 4 + 4 + 2 + len(topic) + 4 + 4


def api_versions_template(connections: int) -> Template:
    """ApiVersions 0: the smallest request there is."""
    frame = request_frame(ApiKey.API_VERSIONS, 0, b"")
    return Template(
        frame * connections, len(frame), error_at=LENGTH_PREFIX_BYTES + CORRELATION_BYTES
    )


def metadata_template(topic: str, connections: int) -> Template:
    """Metadata of one topic."""
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
    )
    frame = request_frame(ApiKey.METADATA, METADATA_VERSION, request.encode(METADATA_VERSION))
    return Template(frame * connections, len(frame))


def list_offsets_template(topic: str, work: Work) -> Template:
    """ListOffsets: the end of one partition."""
    frames = []
    for number in range(work.connections):
        asked = ListOffsetsRequestPartition(partition_index=number % work.partitions, timestamp=-1)
        request = ListOffsetsRequest(
            replica_id=-1, topics=[ListOffsetsRequestTopic(name=topic, partitions=[asked])]
        )
        body = request.encode(LIST_OFFSETS_VERSION)
        frames.append(request_frame(ApiKey.LIST_OFFSETS, LIST_OFFSETS_VERSION, body))
    # topics, name, partitions, index, then the error code
    error_at = LENGTH_PREFIX_BYTES + CORRELATION_BYTES + 4 + 2 + len(topic) + 4 + 4
    return Template(b"".join(frames), len(frames[0]), error_at=error_at)
