"""Topics and records for the consumer's tests, written by plain requests."""

from __future__ import annotations

import time
from typing import Any

from trioq._native import batch as native
from trioq.client.client import Client
from trioq.record.compression import Codec, compress
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
)


async def create(client: Client, topic: str, partitions: int = 1) -> None:
    created = CreateTopicsRequestTopic(name=topic, num_partitions=partitions, replication_factor=1)
    response = await client.cluster.call_controller(
        CreateTopicsRequest(topics=[created]), CreateTopicsResponse
    )
    assert response.topics[0].error_code == 0
    await client.cluster.metadata.topic(topic)


async def write(
    client: Client,
    topic: str,
    values: list[Any],
    *,
    partition: int = 0,
    timestamp_ms: int | None = None,
    codec: Codec = Codec.NONE,
) -> int:
    """Write one batch of values, or (key, value, headers); its base offset."""
    now_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
    records = [
        (now_ms, *one) if isinstance(one, tuple) else (now_ms, None, one, ()) for one in values
    ]
    batch = native.build(
        records,
        attributes=int(codec),
        compress=None if codec is Codec.NONE else lambda data: compress(codec, data),
    )
    info = client.cluster.metadata.leader(topic, partition)
    assert info is not None
    data = ProduceRequestPartition(index=partition, records=batch)
    response = await client.cluster.call(
        info.leader_id,
        ProduceRequest(
            acks=-1,
            timeout_ms=10_000,
            topic_data=[ProduceRequestTopic(name=topic, partition_data=[data])],
        ),
        ProduceResponse,
    )
    answer = response.responses[0].partition_responses[0]
    assert answer.error_code == 0
    return answer.base_offset
