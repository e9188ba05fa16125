"""Compacted topics: what clients read, what they may write, and kill -9 in the middle of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import aiokafka
import confluent_kafka
import confluent_kafka.admin
import kafka
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import CODECS, TIMEOUT_S, Confluent, KafkaPython, run_asyncio
from trioq.storage.verify import verify_dir

KEYS = 50
SETTINGS = {"log.cleaner.backoff.ms": "20"}
TOPIC = {
    "cleanup.policy": "compact",
    "segment.bytes": "30000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}
PATIENCE_S = 60.0


def create(broker: BrokerProcess, topic: str, **config: str) -> None:
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.address})
    new = confluent_kafka.admin.NewTopic(topic, 1, 1, config=config)
    admin.create_topics([new])[topic].result()


def stored_bytes(broker: BrokerProcess, topic: str) -> int:
    total = 0
    for path in broker.segment_paths(topic):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # it was just replaced
            continue
    return total


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def read_everything(address: str, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of all there is, in the order that confluent-kafka reads it."""
    consumer = Confluent.consumer(
        address, **{"enable.partition.eof": True, "max.partition.fetch.bytes": 5_000}
    )
    found = []
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found.append((message.offset(), message.key(), message.value()))
            elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                return found
            else:
                raise AssertionError(error)
        raise AssertionError(f"no end of the partition after {len(found)} messages")
    finally:
        consumer.close()


def living(found: list[Any]) -> dict[bytes, bytes]:
    """The last value of each key that has one."""
    last = {key: value for _, key, value in found}
    return {key: value for key, value in last.items() if value is not None}


def read_with_kafka_python(address: str, topic: str, last_offset: int) -> dict[bytes, bytes]:
    """The last value of each key, read up to `last_offset`."""
    consumer = KafkaPython().consumer(address)
    found = {}
    try:
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        deadline = time.monotonic() + TIMEOUT_S
        offset = -1
        while offset < last_offset:
            assert time.monotonic() < deadline, f"kafka-python got to {offset}"
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    found[record.key] = record.value
                    offset = record.offset
    finally:
        consumer.close(autocommit=False)
    return {key: value for key, value in found.items() if value is not None}


async def read_with_aiokafka(address: str, topic: str, last_offset: int) -> dict[bytes, bytes]:
    """The same with aiokafka."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    found = {}
    try:
        place = aiokafka.TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        offset = -1
        while offset < last_offset:
            record = await consumer.getone()
            found[record.key] = record.value
            offset = record.offset
    finally:
        await consumer.stop()
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("codec", CODECS)
def test_every_client_reads_the_last_value_of_each_key(
    start_broker: Callable[..., BrokerProcess], topic: str, codec: str
) -> None:
    broker = start_broker(settings=SETTINGS)
    create(broker, topic, **TOPIC)
    producer = Confluent.producer(
        broker.address,
        **{
            "enable.idempotence": True,
            "compression.type": codec,
            "linger.ms": 1,
            "batch.num.messages": 60,
        },
    )
    rng = random.Random(codec)
    expected: dict[bytes, bytes] = {}
    written = 0

    def write(count: int) -> None:
        nonlocal written
        for _ in range(count):
            key = b"%d" % rng.randrange(KEYS)
            deletes = rng.random() < 0.05
            value = None if deletes else b"%d " % written + rng.randbytes(100)
            producer.produce(topic, value, key, partition=0)
            expected.pop(key, None)
            if value is not None:
                expected[key] = value
            written += 1
            producer.poll(0)
            if written % 100 == 0:
                producer.flush(TIMEOUT_S)
        assert producer.flush(TIMEOUT_S) == 0

    write(4000)
    before = sum(len(value) for value in expected.values())
    wait_until(
        lambda: stored_bytes(broker, topic) < 3 * 30_000 + 4 * before, "the log is not compacted"
    )
    write(200)
    found = read_everything(broker.address, topic)
    assert [offset for offset, _, _ in found] == sorted({offset for offset, _, _ in found})
    assert len(found) < 4000
    assert living(found) == expected
    assert found[-1][0] == written - 1
    assert read_with_kafka_python(broker.address, topic, written - 1) == expected
    # A start offset in a hole, as a consumer that was away finds it.
    assert Confluent().read(broker.address, topic, 1, 1)[0].offset >= found[0][0]

    read = read_with_aiokafka(broker.address, topic, written - 1)
    assert run_asyncio(read) == expected
    broker.restart()
    assert living(read_everything(broker.address, topic)) == expected
    broker.terminate()
    report = verify_dir(broker.data_dir, allow_gaps=True)
    assert [str(problem) for problem in report.problems] == []


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_records_without_a_key_are_refused(
    start_broker: Callable[..., BrokerProcess], topic: str, codec: str
) -> None:
    broker = start_broker(settings=SETTINGS)
    create(broker, topic, **TOPIC)
    producer = Confluent.producer(broker.address, **{"compression.type": codec})
    errors: list[Any] = []
    value = b"v" * 2000  # so that lz4 is worth its while
    for key in (b"key", None, b"another"):
        producer.produce(topic, value, key, callback=lambda error, _: errors.append(error))
        producer.flush(TIMEOUT_S)
    assert [error and error.name() for error in errors] == [None, "INVALID_RECORD", None]
    assert [key for _, key, _ in read_everything(broker.address, topic)] == [b"key", b"another"]


class Load:
    """An idempotent producer that writes ascending numbers to a few keys."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.errors: list[Any] = []
        self._topic = topic
        self._stop = threading.Event()
        self._producer = Confluent.producer(
            broker.address,
            **{
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "batch.num.messages": 40,
                "message.timeout.ms": 120_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 10,
                "compression.type": "zstd",
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
        rng = random.Random(4)
        while not self._stop.is_set():
            if len(producer) > 400:
                producer.poll(0.01)
                continue
            key = b"%d" % (self.sent % KEYS)
            value = b"%d " % self.sent + rng.randbytes(60)
            producer.produce(self._topic, value, key, partition=0, callback=self._done)
            self.sent += 1
            producer.poll(0)

    def _done(self, error: Any, _message: confluent_kafka.Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self.errors.append(error)


def test_kill_9_in_the_middle_of_compaction(
    start_broker: Callable[..., BrokerProcess], topic: str
) -> None:
    # Slow enough that compaction is under way nearly all the time.
    broker = start_broker(settings={**SETTINGS, "log.cleaner.io.max.bytes.per.second": "3000000"})
    create(broker, topic, **{**TOPIC, "segment.bytes": "100000"})
    load = Load(broker, topic)
    rng = random.Random(9)
    partition_dir = broker.data_dir / f"{topic}-0"
    interrupted = 0
    load.start()
    try:
        for _ in range(8):
            mark = load.acknowledged
            wait_until(lambda mark=mark: load.acknowledged > mark + 1500, "the producer stands")
            wanted = rng.choice(["*.cleaned", "*.log.swap", "*.deleted"])
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline and not any(partition_dir.glob(wanted)):
                pass
            broker.kill9()
            interrupted += any(partition_dir.glob("*.cleaned")) or any(partition_dir.glob("*.swap"))
            broker.start()
    finally:
        load.stop()
    assert load.errors == []
    assert interrupted > 0
    found = read_everything(broker.address, topic)
    offsets = [offset for offset, _, _ in found]
    numbers = [int((value or b"").split()[0]) for _, _, value in found]
    assert offsets == sorted(set(offsets))
    assert numbers == sorted(set(numbers))
    last = {key: number for (_, key, _), number in zip(found, numbers, strict=True)}
    assert last == {b"%d" % (n % KEYS): n for n in range(load.sent - KEYS, load.sent)}
    assert broker.terminate() == 0
    report = verify_dir(broker.data_dir, allow_gaps=True)
    assert [str(problem) for problem in report.problems] == []
