"""The clients of the suite behind one small interface: write these messages, read those back.

Every client reads an assigned partition from a stated offset; none of them joins a group.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import aiokafka
import confluent_kafka
import kafka
import pytest

from tests.e2e.message import Message, Received

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
TIMEOUT_S = 30.0
T = TypeVar("T")


class Client(Protocol):
    """One Kafka client; each call makes a producer or consumer of its own and closes it."""

    name: str
    chooses_timestamps: bool

    def write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        *,
        codec: str = "none",
        acks: int = -1,
        partition: int = 0,
    ) -> None:
        """Produce `messages` in order and return when all are acknowledged."""
        ...

    def read(
        self, address: str, topic: str, start: int, count: int, *, partition: int = 0
    ) -> list[Received]:
        """Read `count` messages from offset `start` on; fails if they do not come in time."""
        ...


def run_asyncio(coroutine: Coroutine[Any, Any, T], timeout_s: float = TIMEOUT_S) -> T:
    """Run `coroutine` in an event loop of its own, no longer than `timeout_s`."""

    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, timeout_s)

    return asyncio.run(bounded())


class Confluent:
    """confluent-kafka, which is librdkafka."""

    name = "confluent"
    chooses_timestamps = True

    @staticmethod
    def producer(address: str, **settings: Any) -> confluent_kafka.Producer:
        config = {"bootstrap.servers": address, "linger.ms": 20, **settings}
        return confluent_kafka.Producer(config)

    @staticmethod
    def consumer(address: str, **settings: Any) -> confluent_kafka.Consumer:
        config = {
            "bootstrap.servers": address,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 200,
            "check.crcs": True,
            **settings,
        }
        return confluent_kafka.Consumer(config)

    def write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        *,
        codec: str = "none",
        acks: int = -1,
        partition: int = 0,
    ) -> None:
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        producer = self.producer(address, **{"compression.type": codec, "acks": acks})
        for message in messages:
            producer.produce(
                topic,
                message.value,
                message.key,
                partition,
                delivered,
                timestamp=message.timestamp_ms or 0,
                headers=list(message.headers),
            )
            producer.poll(0)
        assert producer.flush(TIMEOUT_S) == 0, "not everything was acknowledged"
        assert errors == []

    def read(
        self, address: str, topic: str, start: int, count: int, *, partition: int = 0
    ) -> list[Received]:
        consumer = self.consumer(address)
        try:
            consumer.assign([confluent_kafka.TopicPartition(topic, partition, start)])
            return confluent_messages(consumer, count)
        finally:
            consumer.close()


def confluent_messages(consumer: confluent_kafka.Consumer, count: int) -> list[Received]:
    """The next `count` messages of an assigned confluent-kafka consumer."""
    found: list[Received] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(found) < count:
        wait_s = deadline - time.monotonic()
        assert wait_s > 0, f"only {len(found)} of {count} messages came"
        for message in consumer.consume(count - len(found), min(wait_s, 0.5)):
            error = message.error()
            assert error is None, error
            found.append(
                Received(
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    tuple(message.headers() or ()),
                )
            )
    return found


class Aiokafka:
    """aiokafka, on asyncio."""

    name = "aiokafka"
    chooses_timestamps = True

    def write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        *,
        codec: str = "none",
        acks: int = -1,
        partition: int = 0,
    ) -> None:
        run_asyncio(self._write(address, topic, messages, codec, acks, partition))

    async def _write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        codec: str,
        acks: int,
        partition: int,
    ) -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=address,
            compression_type=None if codec == "none" else codec,
            acks=acks,
            linger_ms=20,
            max_batch_size=4096,
        ) as producer:
            futures = [
                await producer.send(
                    topic,
                    message.value,
                    key=message.key,
                    partition=partition,
                    timestamp_ms=message.timestamp_ms,
                    headers=list(message.headers),
                )
                for message in messages
            ]
            await asyncio.gather(*futures)

    def read(
        self, address: str, topic: str, start: int, count: int, *, partition: int = 0
    ) -> list[Received]:
        return run_asyncio(self._read(address, topic, start, count, partition))

    async def _read(
        self, address: str, topic: str, start: int, count: int, partition: int
    ) -> list[Received]:
        async with aiokafka.AIOKafkaConsumer(
            bootstrap_servers=address, auto_offset_reset="none", fetch_max_wait_ms=200
        ) as consumer:
            place = aiokafka.TopicPartition(topic, partition)
            consumer.assign([place])
            consumer.seek(place, start)
            found: list[Received] = []
            while len(found) < count:
                record = await consumer.getone()
                found.append(
                    Received(
                        record.offset, record.timestamp, record.key, record.value, record.headers
                    )
                )
            return found


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"
    chooses_timestamps = True

    @staticmethod
    def consumer(address: str, **settings: Any) -> kafka.KafkaConsumer:
        config = {
            "bootstrap_servers": address,
            "auto_offset_reset": "none",
            "enable_auto_commit": False,
            "fetch_max_wait_ms": 200,
            **settings,
        }
        return kafka.KafkaConsumer(**config)

    def write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        *,
        codec: str = "none",
        acks: int = -1,
        partition: int = 0,
    ) -> None:
        producer = kafka.KafkaProducer(
            bootstrap_servers=address,
            compression_type=None if codec == "none" else codec,
            acks=acks,
            enable_idempotence=acks == -1,
            linger_ms=20,
            batch_size=4096,
        )
        try:
            futures = [
                producer.send(
                    topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers),
                    partition=partition,
                    timestamp_ms=message.timestamp_ms,
                )
                for message in messages
            ]
            producer.flush(timeout=TIMEOUT_S)
            for future in futures:
                future.get(timeout=TIMEOUT_S)
        finally:
            producer.close(timeout=TIMEOUT_S)

    def read(
        self, address: str, topic: str, start: int, count: int, *, partition: int = 0
    ) -> list[Received]:
        consumer = self.consumer(address)
        try:
            place = kafka.TopicPartition(topic, partition)
            consumer.assign([place])
            consumer.seek(place, start)
            return kafka_python_messages(consumer, count)
        finally:
            consumer.close(autocommit=False)


def kafka_python_messages(consumer: kafka.KafkaConsumer, count: int) -> list[Received]:
    """The next `count` messages of an assigned kafka-python consumer."""
    found: list[Received] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} messages came"
        for records in consumer.poll(timeout_ms=500, max_records=count - len(found)).values():
            found += [
                Received(
                    record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
                )
                for record in records
            ]
    return found


class Kcat:
    """kcat; skips the test where it is not installed.

    It cannot choose timestamps, gives all messages of a call the same headers, and writes
    one message per line.
    """

    name = "kcat"
    chooses_timestamps = False

    _FORMAT = r"%o %T %K %S %h\n%k%s\n"
    _HEAD = re.compile(rb"(\d+) (-?\d+) (-?\d+) (-?\d+) (.*)")

    @staticmethod
    def program() -> str:
        """Path of kcat."""
        program = shutil.which("kcat")
        if program is None:
            pytest.skip("kcat is not installed; Debian has it in the package kcat")
        return program

    @classmethod
    def run(cls, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run kcat with these arguments; its exit code is the caller's to judge."""
        return subprocess.run(
            [cls.program(), *arguments],
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def write(
        self,
        address: str,
        topic: str,
        messages: Sequence[Message],
        *,
        codec: str = "none",
        acks: int = -1,
        partition: int = 0,
    ) -> None:
        headers = messages[0].headers
        assert all(message.headers == headers for message in messages)
        arguments = ["-P", "-b", address, "-t", topic, "-p", str(partition), "-K", "\t", "-Z"]
        arguments += ["-z", codec, "-X", f"acks={acks}", "-X", "linger.ms=20"]
        for name, value in headers:
            arguments += ["-H", f"{name}={(value or b'').decode()}"]
        lines = [(message.key or b"") + b"\t" + (message.value or b"") for message in messages]
        done = self.run(*arguments, stdin=b"\n".join(lines) + b"\n")
        assert done.returncode == 0, done.stderr

    def read(
        self, address: str, topic: str, start: int, count: int, *, partition: int = 0
    ) -> list[Received]:
        arguments = ["-C", "-q", "-b", address, "-t", topic, "-p", str(partition)]
        arguments += ["-o", str(start), "-c", str(count), "-f", self._FORMAT]
        done = self.run(*arguments, "-X", "fetch.wait.max.ms=200", "-X", "check.crcs=true")
        assert done.returncode == 0, done.stderr
        return self._parse(done.stdout)

    def _parse(self, output: bytes) -> list[Received]:
        found: list[Received] = []
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            match = self._HEAD.fullmatch(output[position:end])
            assert match is not None, output[position : position + 200]
            offset, timestamp_ms, key_length, value_length = (int(match[i]) for i in range(1, 5))
            position = end + 1
            key = output[position : position + key_length] if key_length >= 0 else None
            position += max(key_length, 0)
            value = output[position : position + value_length] if value_length >= 0 else None
            position += max(value_length, 0) + 1
            found.append(Received(offset, timestamp_ms, key, value, self._headers(match[5])))
        return found

    @staticmethod
    def _headers(text: bytes) -> tuple[tuple[str, bytes | None], ...]:
        if not text:
            return ()
        pairs = (pair.split(b"=", 1) for pair in text.split(b","))
        return tuple((pair[0].decode(), None if pair[1] == b"NULL" else pair[1]) for pair in pairs)


CLIENTS: tuple[Client, ...] = (Confluent(), Aiokafka(), KafkaPython(), Kcat())
PYTHON_CLIENTS: tuple[Client, ...] = CLIENTS[:3]


def client_id(client: Client) -> str:
    """Name of a client as a test's id."""
    return client.name
