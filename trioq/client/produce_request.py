"""Batches as bytes, and requests of batches."""

from __future__ import annotations

from collections.abc import Sequence

from trioq.client.producer_batch import ProducerBatch
from trioq.client.producer_settings import ProducerSettings
from trioq.record import layout
from trioq.record.producing import restamp
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)


def seal(batch: ProducerBatch, settings: ProducerSettings) -> None:
    """Have `batch.data` say what the broker has to know; may run in a thread."""
    identity = batch.identity
    stamp = (identity, batch.sequence)
    if batch.data is not None and batch.stamped == stamp:
        return
    producer_id = layout.NO_PRODUCER_ID if identity is None else identity.producer_id
    producer_epoch = layout.NO_PRODUCER_EPOCH if identity is None else identity.epoch
    if batch.data is None:
        batch.data = batch.close(
            settings.codec,
            level=settings.compression_level,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=batch.sequence,
        )
    else:
        batch.data = restamp(
            batch.data,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=batch.sequence,
        )
    batch.stamped = stamp


def new_request(batches: Sequence[ProducerBatch], *, acks: int, timeout_ms: int) -> ProduceRequest:
    """One request of sealed batches, at most one of each partition."""
    topics: dict[str, ProduceRequestTopic] = {}
    for batch in batches:
        topic = topics.get(batch.topic)
        if topic is None:
            topic = topics[batch.topic] = ProduceRequestTopic(name=batch.topic)
        topic.partition_data.append(
            ProduceRequestPartition(index=batch.partition, records=batch.data)
        )
    return ProduceRequest(acks=acks, timeout_ms=timeout_ms, topic_data=list(topics.values()))
