"""kill -9 while groups commit: what was acknowledged is committed, and no further than the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent

GROUPS = 4
PARTITIONS = 3
KILLS = 3
RECORDS = 20_000
PATIENCE_S = 60.0


def consumer_of(broker: BrokerProcess, group: str) -> confluent_kafka.Consumer:
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "enable.auto.commit": False,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 200,
        }
    )


class Committer:
    """A client without membership that commits ever greater offsets of all partitions."""

    def __init__(self, broker: BrokerProcess, group: str) -> None:
        self.group = group
        self.tried = self.acknowledged = 0
        self._consumer = consumer_of(broker, group)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set() and self.tried < RECORDS:
            self.tried += 1
            offsets = [
                confluent_kafka.TopicPartition("t", number, self.tried)
                for number in range(PARTITIONS)
            ]
            try:
                done = self._consumer.commit(offsets=offsets, asynchronous=False)
            except confluent_kafka.KafkaException:
                continue  # made or not: the next one is greater
            if all(one.error is None for one in done):
                self.acknowledged = self.tried


def committed(broker: BrokerProcess, group: str) -> list[int]:
    consumer = consumer_of(broker, group)
    asked = [confluent_kafka.TopicPartition("t", number) for number in range(PARTITIONS)]
    found: list[int] = []

    def is_told() -> bool:
        try:
            found.extend(one.offset for one in consumer.committed(asked, timeout=PATIENCE_S))
        except confluent_kafka.KafkaException as error:
            # Groups go to brokers as these come back; librdkafka leaves trying again to us.
            assert error.args[0].code() == confluent_kafka.KafkaError.NOT_COORDINATOR
            return False
        return True

    try:
        wait_until(is_told)
        return found
    finally:
        consumer.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "no progress"
        time.sleep(0.01)


def test_kill_9_loses_no_acknowledged_commit(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([confluent_kafka.admin.NewTopic("t", PARTITIONS, 1)])["t"].result()
    producer: Any = Confluent.producer(broker.address, **{"linger.ms": 5})
    for number in range(PARTITIONS * RECORDS):
        producer.produce("t", b"x", partition=number % PARTITIONS)
        if number % 1_000 == 0:
            producer.flush(PATIENCE_S)
    assert producer.flush(PATIENCE_S) == 0
    committers = [Committer(broker, f"g{number}") for number in range(GROUPS)]
    try:
        for _ in range(KILLS):
            marks = [one.acknowledged for one in committers]
            wait_until(
                lambda marks=marks: all(
                    one.acknowledged >= mark + 20
                    for one, mark in zip(committers, marks, strict=True)
                )
            )
            acknowledged = {one.group: one.acknowledged for one in committers}
            broker.kill9()
            broker.start()
            for group, least in acknowledged.items():
                assert min(committed(broker, group)) >= least
    finally:
        for one in committers:
            one.stop()
    broker.kill9()
    broker.start()
    for one in committers:
        assert one.acknowledged > 20 * KILLS
        found = committed(broker, one.group)
        assert all(one.acknowledged <= offset <= one.tried for offset in found)
    assert not [line for line in broker.log_lines() if line["event"].startswith("committed offs")]


@pytest.mark.usefixtures("no_cluster")
def test_safety_4_a_commit_beyond_a_log_that_lost_its_end_is_set_back(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    """After a power cut a log may be shorter than what was committed: the group goes on there."""
    broker = start_broker()
    producer: Any = Confluent.producer(broker.address)
    for number in range(10):
        producer.produce("t", b"%d" % number)
        assert producer.flush(PATIENCE_S) == 0
    consumer = consumer_of(broker, "g")
    end = confluent_kafka.TopicPartition("t", 0, 10)
    consumer.commit(offsets=[end], asynchronous=False)
    consumer.close()
    broker.kill9()
    (path,) = broker.segment_paths("t")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    broker.start()
    assert committed_offset(broker, "g") == 6
    (line,) = [line for line in broker.log_lines() if line["event"].startswith("committed offs")]
    assert (line["group"], line["partitions"]) == ("g", 1)
    producer.produce("t", b"after")
    assert producer.flush(PATIENCE_S) == 0
    assert Confluent().read(broker.address, "t", 6, 1)[0].value == b"after"
    assert broker.terminate() == 0
    broker.start()
    assert committed_offset(broker, "g") == 6


def committed_offset(broker: BrokerProcess, group: str) -> int:
    consumer = consumer_of(broker, group)
    try:
        asked = [confluent_kafka.TopicPartition("t", 0)]
        (found,) = consumer.committed(asked, timeout=PATIENCE_S)
        return int(found.offset)
    finally:
        consumer.close()
