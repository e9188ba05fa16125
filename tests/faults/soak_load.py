"""The load of the soak: each kind of client a thread that outlives the broker's restarts."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from typing import Any

import confluent_kafka

from tests.e2e.broker_process import BrokerProcess
from tests.faults.client import Client, batch_of
from tests.faults.ledger import Ledger

MOST_AHEAD = 20_000
"""Records that a producer may be ahead of the reader: retention takes only what was read."""

RETRY_S = 0.05
CODECS = ("none", "lz4", "zstd", "gzip", "snappy")


class Worker(threading.Thread, ABC):
    """Runs `step` until told to stop; losing the broker is no error, being lied to is."""

    def __init__(self, broker: BrokerProcess, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.broker = broker
        self.failure: str | None = None
        self.done = 0
        self.stopping = threading.Event()
        self._client: Client | None = None

    @abstractmethod
    def step(self) -> None:
        """A bit of work; called over and over."""

    def finish(self) -> None:
        """What is left to do when no more load is wanted."""

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client((self.broker.host, self.broker.port), timeout_s=20)
        return self._client

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._try(self.step)
            self._try(self.finish)
        except BaseException as error:
            self.failure = f"{self.name}: {type(error).__name__}: {error}"
        finally:
            self.disconnect()

    def _try(self, act: Any) -> None:
        try:
            act()
        except (ConnectionError, TimeoutError, OSError):
            self.disconnect()
            time.sleep(RETRY_S)


class ConfluentPartition(Worker):
    """An idempotent librdkafka producer and a consumer of one partition: numbers from 0 on.

    The consumer has to see every number once, in order; at the end, all that were acknowledged.
    """

    def __init__(self, broker: BrokerProcess, topic: str, partition: int) -> None:
        super().__init__(broker, f"confluent {topic}-{partition}")
        self.topic, self.partition = topic, partition
        self.sent = self.acknowledged = self.read = 0
        codec = CODECS[partition % len(CODECS)]
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": broker.address,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": codec,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "check.crcs": True,
                "fetch.wait.max.ms": 100,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0)])

    def step(self) -> None:
        if len(self._producer) < 500 and self.sent - self.read < MOST_AHEAD:
            for _ in range(50):
                value = b"%d %s" % (self.sent, b"x" * random.randrange(400))
                self._producer.produce(self.topic, value, None, self.partition, self._delivered)
                self.sent += 1
        self._producer.poll(0)
        self._read(0.01)
        self.done = self.read

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self.failure = f"{self.name}: not delivered: {error}"
        self.acknowledged += 1

    def _read(self, wait_s: float) -> None:
        for message in self._consumer.consume(500, wait_s):
            if message.error() is not None:
                if message.error().code() == confluent_kafka.KafkaError._AUTO_OFFSET_RESET:
                    raise AssertionError(f"the position is gone: {message.error()}")
                continue
            number = int(message.value().split(b" ")[0])
            assert (number, message.offset()) == (self.read, self.read), (
                f"read {number} at offset {message.offset()}, where {self.read} is due"
            )
            self.read += 1

    def finish(self) -> None:
        assert self._producer.flush(120) == 0, "not everything was acknowledged"
        assert self.acknowledged == self.sent
        deadline = time.monotonic() + 120
        while self.read < self.sent:
            assert time.monotonic() < deadline, f"only {self.read} of {self.sent} can be read"
            self._read(0.2)
        self._consumer.close()
        self.done = self.read


class RawLedger(Worker):
    """A raw idempotent producer that retries by hand, checks all there is, and starts anew."""

    def __init__(self, broker: BrokerProcess, number: int) -> None:
        super().__init__(broker, f"raw ledger {number}")
        self._number = number
        self._generation = 0
        self._begin()

    def _begin(self) -> None:
        self._generation += 1
        topic = f"ledger-{self._number}-{self._generation}"
        self._ledger = Ledger(topic, producer_id=1000 * self._number + self._generation)
        self._is_created = False
        self._is_over = False

    def step(self) -> None:
        client, ledger = self.client, self._ledger
        if self._is_over:
            self._remove(client)
            return
        if not self._is_created:
            if ledger.topic not in client.topics():
                client.create(ledger.topic, segment_bytes="100000")
            self._is_created = True
        ledger.settle(client)
        ledger.send(client, 5, records=random.randrange(1, 20))
        self.done += 5
        if random.random() < 0.02:
            ledger.check(client)
        if len(ledger.acknowledged) > 4000:
            ledger.check(client)
            client.delete_records(ledger.topic, len(ledger.acknowledged) // 2)
            ledger.check(client)
            self._is_over = True
            self._remove(client)

    def _remove(self, client: Client) -> None:
        """Delete the topic, again if the answer to an earlier try was lost, and begin anew."""
        if self._ledger.topic in client.topics():
            client.delete(self._ledger.topic)
        self._begin()

    def finish(self) -> None:
        deadline = time.monotonic() + 60
        while self._is_created and not self._is_over:
            try:
                self._ledger.settle(self.client)
                self._ledger.check(self.client)
            except (ConnectionError, TimeoutError, OSError):
                assert time.monotonic() < deadline
                self.disconnect()
                time.sleep(RETRY_S)
            else:
                return


class Churn(Worker):
    """Connections that come and go, garbage, half requests, reads of everything, large requests."""

    def step(self) -> None:
        what = random.randrange(6)
        if what == 0:
            self.client.topics()
        elif what == 1:
            self.disconnect()
        elif what == 2:
            self._strange(os.urandom(100))
        elif what == 3:
            self._strange(struct.pack(">i", 1_000_000) + bytes(random.randrange(100_000)))
        elif what == 4:
            with contextlib.suppress(AssertionError):
                self.client.produce_batch("churn", batch_of([os.urandom(500_000)]))
        else:
            self.client.fetch("churn", max(0, self.client.offset("churn", -2)[1]))
        self.done += 1
        time.sleep(0.01)

    def _strange(self, data: bytes) -> None:
        with socket.create_connection((self.broker.host, self.broker.port), 5) as sock:
            sock.sendall(data)
