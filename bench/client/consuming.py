"""`python -m bench.client.consuming PLAN`: one client in a process of its own reads a topic.

Plan and output are those of bench.client.producing. Key, value and offset of every record are
touched; what comes first, with the connections behind it, starts the clock and is not counted.
Every client has its defaults, and commits nothing. The subject "fill" writes what the others
read, with keys, in batches of about 100 KB.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from bench.client.producing import Plan, Span, in_loop

BATCH_BYTES: Final = 100_000
CONSUME_RECORDS: Final = 10_000


class Count:
    """Records until a plan's are read; the span from behind the first that came, to the last."""

    def __init__(self, plan: Plan) -> None:
        self.missing = plan.records
        self._counted = 0
        self._span: Span | None = None

    def add(self, records: int) -> bool:
        """Whether these were the last; called when they have been touched."""
        if self._span is None:
            self._span = Span()
        else:
            self._counted += records
        self.missing -= records
        return self.missing <= 0

    def result(self) -> dict[str, float]:
        """What is printed."""
        assert self._span is not None, "nothing was read"
        return self._span.result(max(self._counted, 1))


async def _fill(plan: Plan) -> dict[str, float]:
    import trioq

    in_batch = max(BATCH_BYTES // plan.record_bytes, 1)
    span = Span()
    async with (
        trioq.connect(plan.address) as client,
        client.producer(batch_bytes=2 * BATCH_BYTES) as producer,
    ):
        for start in range(0, plan.records, in_batch):
            numbers = range(start, min(start + in_batch, plan.records))
            await producer.send_many(
                plan.topic,
                [b"%08d" % number + bytes(plan.record_bytes - 8) for number in numbers],
                keys=[b"key-%d" % number for number in numbers],
            )
            await producer.flush()
    return span.result(plan.records)


async def _batches(plan: Plan) -> dict[str, float]:
    import trioq

    count, total = Count(plan), 0
    async with (
        trioq.connect(plan.address) as client,
        client.consumer(plan.topic, auto_offset_reset="earliest") as consumer,
    ):
        async for batch in consumer.batches():
            columns = zip(batch.keys(), batch.values(), batch.offsets, strict=True)
            for _key, _value, offset in columns:
                total += offset
            if count.add(len(batch)):
                break
        return count.result()


async def _records(plan: Plan) -> dict[str, float]:
    import trioq

    count, total = Count(plan), 0
    async with (
        trioq.connect(plan.address) as client,
        client.consumer(plan.topic, auto_offset_reset="earliest") as consumer,
    ):
        async for record in consumer:
            _key, _value = record.key, record.value
            total += record.offset
            if count.add(1):
                break
        return count.result()


def _confluent(plan: Plan) -> Any:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": plan.address, "group.id": "bench", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(plan.topic, 0, 0)])
    return consumer


def _confluent_consume(plan: Plan) -> dict[str, float]:
    consumer = _confluent(plan)
    count, total = Count(plan), 0
    while count.missing > 0:
        messages = consumer.consume(CONSUME_RECORDS, 1.0)
        for message in messages:
            _key, _value = message.key(), message.value()
            total += message.offset()
        if messages:
            count.add(len(messages))
    result = count.result()
    consumer.close()
    return result


def _confluent_poll(plan: Plan) -> dict[str, float]:
    consumer = _confluent(plan)
    count, total = Count(plan), 0
    while count.missing > 0:
        message = consumer.poll(1.0)
        if message is None:
            continue
        _key, _value = message.key(), message.value()
        total += message.offset()
        count.add(1)
    result = count.result()
    consumer.close()
    return result


async def _aiokafka_getmany(plan: Plan) -> dict[str, float]:
    from aiokafka import AIOKafkaConsumer

    count, total = Count(plan), 0
    async with AIOKafkaConsumer(
        plan.topic, bootstrap_servers=plan.address, auto_offset_reset="earliest"
    ) as consumer:
        while count.missing > 0:
            for messages in (await consumer.getmany(timeout_ms=1000)).values():
                for message in messages:
                    _key, _value = message.key, message.value
                    total += message.offset
                count.add(len(messages))
        return count.result()


async def _aiokafka_iterate(plan: Plan) -> dict[str, float]:
    from aiokafka import AIOKafkaConsumer

    count, total = Count(plan), 0
    async with AIOKafkaConsumer(
        plan.topic, bootstrap_servers=plan.address, auto_offset_reset="earliest"
    ) as consumer:
        async for message in consumer:
            _key, _value = message.key, message.value
            total += message.offset
            if count.add(1):
                break
        return count.result()


SUBJECTS: Final[dict[str, Callable[[Plan], dict[str, float]]]] = {
    "fill": lambda plan: in_loop(plan, _fill),
    "trioq batches": lambda plan: in_loop(plan, _batches),
    "trioq async for": lambda plan: in_loop(plan, _records),
    "confluent-kafka consume": _confluent_consume,
    "confluent-kafka poll": _confluent_poll,
    "aiokafka getmany": lambda plan: asyncio.run(_aiokafka_getmany(plan)),
    "aiokafka async for": lambda plan: asyncio.run(_aiokafka_iterate(plan)),
}
"""What can be measured, by name."""


def main() -> None:
    """Do what the JSON in the first argument asks, print one JSON object."""
    plan = Plan(**json.loads(sys.argv[1]))
    print(json.dumps(SUBJECTS[plan.subject](plan)))


if __name__ == "__main__":
    main()
