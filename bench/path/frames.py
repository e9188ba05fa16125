"""Requests built once, to be sent again and again by the load generator."""

from __future__ import annotations

import os
from typing import NamedTuple
from uuid import UUID

from trioq.record.builder import build_batch
from trioq.wire.messages.fetch import FetchRequest, FetchRequestPartition, FetchRequestTopic
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)

PRODUCE_VERSION = 7
FETCH_VERSION = 11
CLIENT_ID = b"bench"
LENGTH_PREFIX_BYTES = 4
CORRELATION_BYTES = 4


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
        ]


def produce_template(
    topic: str,
    *,
    partitions: int,
    connections: int,
    record_bytes: int,
    records: int,
    first_producer_id: int,
    acks: int = 1,
) -> Template:
    """One idempotent produce request per connection, each with a producer id of its own."""
    frames = []
    batch_at = 0
    for connection in range(connections):
        batch = build_batch(
            [(1_700_000_000_000, None, os.urandom(record_bytes), ())] * records,
            producer_id=first_producer_id + connection,
            producer_epoch=0,
            base_sequence=0,
        )
        data = ProduceRequestPartition(index=connection % partitions, records=bytes(batch))
        body = ProduceRequest(
            acks=acks,
            timeout_ms=30_000,
            topic_data=[ProduceRequestTopic(name=topic, partition_data=[data])],
        ).encode(PRODUCE_VERSION)
        frame = _frame(0, PRODUCE_VERSION, body)
        batch_at = frame.index(bytes(batch[:61]))
        frames.append(frame)
    # length, correlation id, topics, name, partitions, index, then the error code
    error_at = LENGTH_PREFIX_BYTES + CORRELATION_BYTES + 4 + 2 + len(topic) + 4 + 4
    return Template(b"".join(frames), len(frames[0]), batch_at, records, error_at=error_at)


def fetch_template(
    topic: str,
    *,
    connections: int,
    max_bytes: int,
    offset_step: int,
    offset_end: int,
    partition: int = 0,
) -> Template:
    """One fetch request per connection; the fetch offset runs through the partition."""
    offset = 0x7A7A7A7A7A7A7A7A
    asked = FetchRequestPartition(
        partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes
    )
    body = FetchRequest(
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=max_bytes,
        topics=[FetchRequestTopic(topic=topic, topic_id=UUID(int=0), partitions=[asked])],
    ).encode(FETCH_VERSION)
    frame = _frame(1, FETCH_VERSION, body)
    offset_at = frame.index(offset.to_bytes(8, "big"))
    # throttle time, error code
    error_at = LENGTH_PREFIX_BYTES + CORRELATION_BYTES + 4
    return Template(
        frame * connections,
        len(frame),
        offset_at=offset_at,
        offset_step=offset_step,
        offset_end=offset_end,
        error_at=error_at,
    )


def api_versions_template(connections: int) -> Template:
    """ApiVersions 0: the smallest request there is."""
    frame = _frame(18, 0, b"")
    return Template(frame * connections, len(frame), error_at=8)


def _frame(api_key: int, version: int, body: bytes) -> bytes:
    header = b"".join(
        (
            api_key.to_bytes(2, "big"),
            version.to_bytes(2, "big"),
            (0).to_bytes(4, "big"),
            len(CLIENT_ID).to_bytes(2, "big"),
            CLIENT_ID,
        )
    )
    return (len(header) + len(body)).to_bytes(4, "big") + header + body
