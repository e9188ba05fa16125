"""A group's consumer as a program: `python -m tests.e2e.group_member SETTINGS`, SETTINGS in JSON.

It prints an event a line, as JSON: {"assigned": [[topic, partition], ...]} whenever that changes,
{"processed": [topic, partition, offset, value]} for each record, {"paused": value} when it stands
still for ever at the record it was told to, {"closed": true} at its end, which comes when its
standard input ends. Being a process it can be stopped by SIGSTOP and killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

POLL_S: Final = 0.05
KAFKA_PYTHON_POLL_S: Final = 1.0
"""Longer than a rebalance: where a poll of kafka-python 3.0.12 ends between the answers to its
JoinGroup and its SyncGroup, it forgets its assignment and sends no heartbeats any more."""

AUTO, BEFORE, AFTER, NEVER = "auto", "before", "after", "never"


class Settings(NamedTuple):
    """What the test asks for; see the module.

    `commit` is when a record's offset is committed: before or after it is processed, by the
    client itself ("auto") or never. `pause_at` is the value of the record at which the member
    stands still, between processing and committing, or between committing and processing.
    """

    client: str
    address: str
    group: str
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    strategy: str = "range"
    instance_id: str | None = None
    session_timeout_ms: int = 2_000
    commit: str = AFTER
    pause_at: str | None = None
    assignor: str | None = None


class Reporter:
    """Prints events; the same assignment only once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._assigned: list[tuple[str, int]] | None = None

    @staticmethod
    def event(**event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    def assigned(self, partitions: Iterable[Any]) -> None:
        now = sorted((one.topic, one.partition) for one in partitions)
        if now != self._assigned:
            self._assigned = now
            self.event(assigned=now)

    def processed(self, topic: str, partition: int, offset: int, value: bytes) -> None:
        self.event(processed=[topic, partition, offset, value.decode()])

    def stands_still(self, value: bytes) -> bool:
        """True, once announced, at the record where the member is to be killed."""
        if self._settings.pause_at != value.decode():
            return False
        self.event(paused=value.decode())
        return True


def told_to_stop() -> bool:
    """Whether standard input has ended."""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1)


def stand_still() -> None:
    """Until the process is killed."""
    while True:
        time.sleep(60)


def run_confluent(settings: Settings) -> None:
    import confluent_kafka

    config: dict[str, Any] = {
        "bootstrap.servers": settings.address,
        "group.id": settings.group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": settings.commit == AUTO,
        "auto.commit.interval.ms": 100,
        "fetch.wait.max.ms": 100,
        "topic.metadata.refresh.interval.ms": 500,
        "reconnect.backoff.max.ms": 500,
    }
    if settings.strategy == "consumer":
        config["group.protocol"] = "consumer"
        if settings.assignor is not None:
            config["group.remote.assignor"] = settings.assignor
    else:
        config |= {
            "partition.assignment.strategy": settings.strategy,
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": settings.session_timeout_ms // 8,
        }
    if settings.instance_id is not None:
        config["group.instance.id"] = settings.instance_id
    consumer = confluent_kafka.Consumer(config)
    topics = list(settings.topics) if settings.pattern is None else [f"^{settings.pattern}"]
    consumer.subscribe(topics)
    report = Reporter(settings)
    while not told_to_stop():
        message = consumer.poll(POLL_S)
        report.assigned(consumer.assignment())
        if message is None or message.error() is not None:
            continue
        value = message.value()
        if settings.commit == BEFORE:
            consumer.commit(message=message, asynchronous=False)
            if report.stands_still(value):
                stand_still()
        report.processed(message.topic(), message.partition(), message.offset(), value)
        if settings.commit == AFTER:
            if report.stands_still(value):
                stand_still()
            commit_confluent(consumer, message)
    consumer.close()
    report.event(closed=True)


def commit_confluent(consumer: Any, message: Any) -> None:
    """Commit; a rebalance meanwhile means that somebody processes the record again."""
    import confluent_kafka

    try:
        consumer.commit(message=message, asynchronous=False)
    except confluent_kafka.KafkaException as error:
        Reporter.event(not_committed=str(error))


def run_kafka_python(settings: Settings) -> None:
    import kafka
    import kafka.errors
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    consumer = kafka.KafkaConsumer(
        bootstrap_servers=settings.address,
        group_id=settings.group,
        group_instance_id=settings.instance_id,
        auto_offset_reset="earliest",
        enable_auto_commit=settings.commit == AUTO,
        auto_commit_interval_ms=100,
        fetch_max_wait_ms=100,
        metadata_max_age_ms=500,
        reconnect_backoff_max_ms=500,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 8,
        partition_assignment_strategy=[
            RangePartitionAssignor if settings.strategy == "range" else CooperativeStickyAssignor
        ],
        max_poll_records=1,
    )
    if settings.pattern is None:
        consumer.subscribe(list(settings.topics))
    else:
        consumer.subscribe(pattern=settings.pattern)
    report = Reporter(settings)
    while not told_to_stop():
        polled = consumer.poll(timeout_ms=int(KAFKA_PYTHON_POLL_S * 1000))
        report.assigned(consumer.assignment())
        for partition, records in polled.items():
            for record in records:
                offsets = {partition: kafka.OffsetAndMetadata(record.offset + 1, "", -1)}
                if settings.commit == BEFORE:
                    consumer.commit(offsets)
                    if report.stands_still(record.value):
                        stand_still()
                report.processed(record.topic, record.partition, record.offset, record.value)
                if settings.commit == AFTER:
                    if report.stands_still(record.value):
                        stand_still()
                    try:
                        consumer.commit(offsets)
                    except kafka.errors.KafkaError as error:
                        report.event(not_committed=str(error))
    consumer.close()
    report.event(closed=True)


async def run_aiokafka(settings: Settings) -> None:
    import aiokafka
    import aiokafka.errors
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=settings.address,
        group_id=settings.group,
        group_instance_id=settings.instance_id,
        auto_offset_reset="earliest",
        enable_auto_commit=settings.commit == AUTO,
        auto_commit_interval_ms=100,
        fetch_max_wait_ms=100,
        metadata_max_age_ms=500,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 8,
        partition_assignment_strategy=[
            RangePartitionAssignor if settings.strategy == "range" else RoundRobinPartitionAssignor
        ],
    )
    if settings.pattern is None:
        consumer.subscribe(list(settings.topics))
    else:
        consumer.subscribe(pattern=settings.pattern)
    await consumer.start()
    report = Reporter(settings)
    while not told_to_stop():
        polled = await consumer.getmany(timeout_ms=int(POLL_S * 1000), max_records=1)
        report.assigned(consumer.assignment())
        for partition, records in polled.items():
            for record in records:
                if settings.commit == BEFORE:
                    await consumer.commit({partition: record.offset + 1})
                    if report.stands_still(record.value):
                        stand_still()
                report.processed(record.topic, record.partition, record.offset, record.value)
                if settings.commit == AFTER:
                    if report.stands_still(record.value):
                        stand_still()
                    try:
                        await consumer.commit({partition: record.offset + 1})
                    except aiokafka.errors.KafkaError as error:
                        report.event(not_committed=str(error))
    await consumer.stop()
    report.event(closed=True)


async def run_trioq(settings: Settings) -> None:
    import anyio

    import trioq
    from trioq.errors import CommitFailed

    options: dict[str, Any] = {
        "group": settings.group,
        "instance_id": settings.instance_id,
        "auto_offset_reset": "earliest",
        "auto_commit_interval_ms": 100,
        "fetch_max_wait_ms": 100,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.session_timeout_ms // 8,
        "commit": "auto" if settings.commit == AUTO else "manual",
    }
    if settings.strategy == "consumer":
        options |= {"group_protocol": "consumer", "server_assignor": settings.assignor}
    else:
        options["assignors"] = [settings.strategy]
    report = Reporter(settings)
    async with (
        trioq.connect(settings.address, metadata_max_age_ms=500) as client,
        client.consumer(*settings.topics, pattern=settings.pattern, **options) as consumer,
    ):
        while not told_to_stop():
            record = None
            with anyio.move_on_after(POLL_S):
                record = await anext(consumer)
            report.assigned(consumer.assignment)
            if record is None:
                continue
            offsets = {(record.topic, record.partition): record.offset + 1}
            if settings.commit == BEFORE:
                await consumer.commit(offsets)
                if report.stands_still(record.value):
                    stand_still()
            report.processed(record.topic, record.partition, record.offset, record.value)
            if settings.commit == AFTER:
                if report.stands_still(record.value):
                    stand_still()
                try:
                    await consumer.commit(offsets)
                except CommitFailed as error:
                    report.event(not_committed=str(error))
    report.event(closed=True)


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.client.startswith("trioq"):
        import anyio

        backend = "asyncio" if settings.client.endswith("asyncio") else "trio"
        anyio.run(run_trioq, settings, backend=backend)
    elif settings.client == "aiokafka":
        asyncio.run(run_aiokafka(settings))
    elif settings.client == "kafka-python":
        run_kafka_python(settings)
    else:
        run_confluent(settings)


if __name__ == "__main__":
    main()
