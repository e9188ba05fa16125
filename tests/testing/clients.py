"""The little that these tests need of confluent-kafka and aiokafka."""

from __future__ import annotations

from typing import Any

import confluent_kafka


def produce(
    address: str, topic: str, values: list[bytes], *, partition: int = -1, **settings: Any
) -> list[Any]:
    """Produce in order with confluent-kafka; the errors, None for each that was written."""
    errors: list[Any] = []
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": address, "linger.ms": 0, "log_level": 0, **settings}
    )
    for value in values:
        producer.produce(
            topic, value, partition=partition, on_delivery=lambda error, _: errors.append(error)
        )
    assert producer.flush(30) == 0
    return errors
