"""`python -m bench.client.producing PLAN`: one client in a process of its own writes records.

The plan, one JSON object: subject, loop, topic, address, records, record_bytes. Printed is
another: records, seconds, cpu_s, from the first call to the last acknowledgement, after a
warm-up that makes the connection and the topic known. Every client has its defaults but for
5 ms of lingering and acks=all with idempotence, which all of them have; each lets its loop, or
its callbacks, run once in a thousand records.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

YIELD_RECORDS: Final = 1000
MANY_RECORDS: Final = 10_000
AIOKAFKA_UNACKED: Final = 50_000


class Plan(NamedTuple):
    """What one process does."""

    subject: str
    loop: str
    address: str
    topic: str
    records: int
    record_bytes: int


class Span:
    """Wall clock and CPU from its making to `result`."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._started_s = time.perf_counter()

    def result(self, records: int) -> dict[str, float]:
        """What is printed."""
        return {
            "records": records,
            "seconds": time.perf_counter() - self._started_s,
            "cpu_s": time.process_time() - self._cpu_s,
        }


def in_loop(plan: Plan, work: Callable[[Plan], Awaitable[dict[str, float]]]) -> dict[str, float]:
    """What `work` gives under the plan's event loop."""
    import anyio

    options = {"use_uvloop": True} if plan.loop == "uvloop" else {}
    backend = "trio" if plan.loop == "trio" else "asyncio"
    return anyio.run(work, plan, backend=backend, backend_options=options)


async def _send_many(plan: Plan) -> dict[str, float]:
    import trioq

    value = bytes(plan.record_bytes)
    async with trioq.connect(plan.address) as client, client.producer() as producer:
        await producer.send(plan.topic, value)
        span = Span()
        for start in range(0, plan.records, MANY_RECORDS):
            count = min(MANY_RECORDS, plan.records - start)
            await producer.send_many(plan.topic, [value] * count)
        await producer.flush()
        return span.result(plan.records)


async def _send_nowait(plan: Plan) -> dict[str, float]:
    from anyio.lowlevel import checkpoint

    import trioq
    from trioq.errors import BufferFull

    value = bytes(plan.record_bytes)
    async with trioq.connect(plan.address) as client, client.producer() as producer:
        await producer.send(plan.topic, value)
        span = Span()
        send, topic = producer.send_nowait, plan.topic
        for number in range(plan.records):
            try:
                send(topic, value)
            except BufferFull:
                await producer.send(topic, value)
            if not number % YIELD_RECORDS:
                await checkpoint()
        await producer.flush()
        return span.result(plan.records)


def _confluent(plan: Plan) -> dict[str, float]:
    from confluent_kafka import Producer

    value = bytes(plan.record_bytes)
    producer = Producer(
        {"bootstrap.servers": plan.address, "linger.ms": 5, "enable.idempotence": True}
    )
    producer.produce(plan.topic, value)
    producer.flush()
    span = Span()
    produce, topic = producer.produce, plan.topic
    for number in range(plan.records):
        while True:
            try:
                produce(topic, value)
                break
            except BufferError:
                producer.poll(0.01)
        if not number % YIELD_RECORDS:
            producer.poll(0)
    if producer.flush(120):
        raise SystemExit("confluent-kafka: not everything was acknowledged")
    return span.result(plan.records)


def _aiokafka(plan: Plan) -> dict[str, float]:
    import asyncio

    return asyncio.run(_aiokafka_in_loop(plan))


async def _aiokafka_in_loop(plan: Plan) -> dict[str, float]:
    import asyncio

    from aiokafka import AIOKafkaProducer

    value = bytes(plan.record_bytes)
    async with AIOKafkaProducer(
        bootstrap_servers=plan.address, linger_ms=5, enable_idempotence=True
    ) as producer:
        await producer.send_and_wait(plan.topic, value)
        span = Span()
        waiting: list[asyncio.Future[Any]] = []
        for _ in range(plan.records):
            waiting.append(await producer.send(plan.topic, value))
            if len(waiting) == AIOKAFKA_UNACKED:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
        return span.result(plan.records)


SUBJECTS: Final[dict[str, Callable[[Plan], dict[str, float]]]] = {
    "trioq send_many": lambda plan: in_loop(plan, _send_many),
    "trioq send_nowait": lambda plan: in_loop(plan, _send_nowait),
    "confluent-kafka produce": _confluent,
    "aiokafka send": _aiokafka,
}
"""What can be measured, by name."""


def main() -> None:
    """Do what the JSON in the first argument asks, print one JSON object."""
    plan = Plan(**json.loads(sys.argv[1]))
    print(json.dumps(SUBJECTS[plan.subject](plan)))


if __name__ == "__main__":
    main()
