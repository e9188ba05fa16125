"""kill -9 under load: what was acknowledged is there, in order, once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import kafka
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, KafkaPython
from tests.e2e.segments import read_with_kafka_python

KILLS = 20
PARTITIONS = 3
PATIENCE_S = 60.0


class Load:
    """One idempotent producer that writes numbers to one partition as fast as they are taken.

    `acknowledged` holds (number, offset) in the order of acknowledgement.
    """

    def __init__(self, broker: BrokerProcess, partition: int) -> None:
        self.partition = partition
        self.sent = 0
        self.acknowledged: list[tuple[int, int]] = []
        self.errors: list[Any] = []
        self._stop = threading.Event()
        self._producer = Confluent.producer(
            broker.address,
            **{
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "batch.num.messages": 50,
                "message.timeout.ms": 120_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 10,
                "compression.type": ("none", "lz4", "zstd")[partition % 3],
            },
        )
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more numbers; returns when all that were sent are acknowledged."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(PATIENCE_S) == 0

    def _run(self) -> None:
        producer = self._producer
        while not self._stop.is_set():
            # A bounded window, so that a broker that is away is not met by a mountain.
            if len(producer) > 200:
                producer.poll(0.01)
                continue
            producer.produce("t", b"%d" % self.sent, partition=self.partition, callback=self._done)
            self.sent += 1
            producer.poll(0)

    def _done(self, error: Any, message: confluent_kafka.Message) -> None:
        if error is None:
            self.acknowledged.append((int(message.value()), message.offset()))
        else:
            self.errors.append(error)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that the load brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the producers do not get on"
        time.sleep(0.005)


def test_kill_9_twenty_times_under_load(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(
        settings={
            "flush.policy": "commit",
            "num.partitions": str(PARTITIONS),
            "log.segment.bytes": "200000",
        }
    )
    loads = [Load(broker, partition) for partition in range(PARTITIONS)]
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([confluent_kafka.admin.NewTopic("t", PARTITIONS, 1)])["t"].result()
    generator = random.Random(20)
    for load in loads:
        load.start()
    try:
        for _ in range(KILLS):
            marks = [len(load.acknowledged) for load in loads]
            progress = generator.randrange(20, 200)
            wait_until(
                lambda marks=marks, progress=progress: all(
                    len(load.acknowledged) >= mark + progress
                    for load, mark in zip(loads, marks, strict=True)
                )
            )
            broker.kill9()
            broker.start()
    finally:
        for load in loads:
            load.stop()
    for load in loads:
        assert load.errors == []
        assert [number for number, _ in load.acknowledged] == list(range(load.sent))
        found = KafkaPython().read(broker.address, "t", 0, load.sent, partition=load.partition)
        assert [int(message.value or b"") for message in found] == list(range(load.sent))
        # Offsets told with an acknowledgement are those under which the record is read. One
        # that a retry found stored already is acknowledged without an offset by librdkafka.
        told = [(number, offset) for number, offset in load.acknowledged if offset >= 0]
        assert all(found[offset].value == b"%d" % number for number, offset in told)
        batches, stored = read_with_kafka_python(broker.segment_paths("t", load.partition))
        assert stored == found
        epochs = [batch.leader_epoch for batch in batches]
        assert epochs == sorted(epochs)
        assert len(set(epochs)) > KILLS // 2, "every start is a new leader epoch"


@pytest.mark.parametrize("policy", ["os", "interval", "commit"])
def test_kill_9_loses_nothing_that_reached_the_system(
    start_broker: Callable[..., BrokerProcess], policy: str
) -> None:
    """A process that dies leaves its written bytes with the system, whatever is synced."""
    broker = start_broker(settings={"flush.policy": policy})
    for start in (0, 500, 1000):
        producer = kafka.KafkaProducer(bootstrap_servers=broker.address, acks="all", linger_ms=5)
        futures = [producer.send("t", b"%d" % number) for number in range(start, start + 500)]
        for future in futures:
            future.get(timeout=30)
        broker.kill9()
        producer.close(timeout=0)
        broker.start()
    found = Confluent().read(broker.address, "t", 0, 1500)
    assert [int(message.value or b"") for message in found] == list(range(1500))


def test_a_torn_tail_is_cut_off(start_broker: Callable[..., BrokerProcess]) -> None:
    """What a power cut leaves of the last write is removed; all before it stays."""
    broker = start_broker()
    producer = Confluent.producer(broker.address)
    for number in range(10):
        producer.produce("t", b"%d" % number)
        assert producer.flush(30) == 0
    broker.kill9()
    (path,) = broker.segment_paths("t")
    data = path.read_bytes()
    batches, _ = read_with_kafka_python([path])
    last = len(data) // len(batches)
    path.write_bytes(data + data[-last:-7])
    broker.start()
    found = Confluent().read(broker.address, "t", 0, len(batches))
    assert [message.value for message in found] == [b"%d" % number for number in range(10)]
    producer.produce("t", b"after")
    assert producer.flush(30) == 0
    assert Confluent().read(broker.address, "t", 10, 1)[0].value == b"after"
