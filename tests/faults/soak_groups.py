"""The soak's consumer group: members come and go, and no acknowledged commit may be lost."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any

import confluent_kafka

from tests.e2e.broker_process import BrokerProcess
from tests.faults.soak_load import Worker

GROUP = "workers"
COMMITTED_EACH = 200
"""Records between two commits of a member."""

NONE = -1
"""No commit; librdkafka has a lower number for it."""

LEAVES_ONCE_IN = 400
"""Steps of a member, on average, before it leaves and joins again."""


class CommitLedger:
    """The greatest offset of each partition whose commit was acknowledged to any member."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offsets: dict[int, int] = {}

    def acknowledged(self, partition: int, offset: int) -> None:
        with self._lock:
            self._offsets[partition] = max(self._offsets.get(partition, NONE), offset)

    def of(self, partition: int) -> int:
        with self._lock:
            return self._offsets.get(partition, NONE)


class GroupMember(Worker):
    """A librdkafka consumer in a group with the others: reads, commits, now and then leaves.

    What it is given begins where the group has committed, which is at or behind everything
    that was acknowledged before.
    """

    def __init__(
        self, broker: BrokerProcess, topic: str, ledger: CommitLedger, number: int
    ) -> None:
        super().__init__(broker, f"member {number}")
        self._topic = topic
        self._ledger = ledger
        self._settings = {
            "bootstrap.servers": broker.address,
            "group.id": GROUP,
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 500,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
        self._consumer: Any = None
        self._since_commit = 0

    def step(self) -> None:
        if self._consumer is None:
            self._consumer = confluent_kafka.Consumer(self._settings)
            self._consumer.subscribe([self._topic], on_assign=self._assigned)
        for message in self._consumer.consume(100, 0.1):
            if message.error() is None:
                self._since_commit += 1
                self.done += 1
        if self._since_commit >= COMMITTED_EACH:
            self._commit()
        if random.randrange(LEAVES_ONCE_IN) == 0:
            self._leave()

    def _commit(self) -> None:
        """What fails was not acknowledged: a broker that is away, a rebalance under way."""
        with contextlib.suppress(confluent_kafka.KafkaException):
            for one in self._consumer.commit(asynchronous=False):
                if one.error is None:
                    self._ledger.acknowledged(one.partition, one.offset)
            self._since_commit = 0

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        before = {one.partition: self._ledger.of(one.partition) for one in partitions}
        try:
            committed = consumer.committed(partitions, timeout=5)
        except confluent_kafka.KafkaException:
            return
        for one in committed:
            if one.error is None and max(one.offset, NONE) < before[one.partition]:
                self.failure = (
                    f"{self.name}: {one.offset} is committed for partition {one.partition}, "
                    f"where {before[one.partition]} was acknowledged"
                )

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        consumer.close()

    def finish(self) -> None:
        """All that was acknowledged can be read back."""
        if self._consumer is not None:
            self._leave()
        reader = confluent_kafka.Consumer(self._settings)
        try:
            deadline = time.monotonic() + 60
            while True:
                asked = [confluent_kafka.TopicPartition(self._topic, p) for p in range(5)]
                before = [self._ledger.of(one.partition) for one in asked]
                try:
                    found = reader.committed(asked, timeout=10)
                except confluent_kafka.KafkaException:
                    assert time.monotonic() < deadline, "committed offsets cannot be read"
                    continue
                for one, offset in zip(found, before, strict=True):
                    found_offset = max(one.offset, NONE)
                    assert found_offset >= offset, f"{one}: {offset} was acknowledged"
                return
        finally:
            reader.close()
