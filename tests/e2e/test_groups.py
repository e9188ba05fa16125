"""Group consumers and transactions meet the APIs that are not served yet: a clean error."""

from __future__ import annotations

import subprocess
import time

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, Kcat, run_asyncio
from tests.e2e.message import Message

SHORT_S = 3.0


@pytest.fixture
def written(broker: BrokerProcess, topic: str) -> str:
    Confluent().write(broker.address, topic, [Message(b"value")])
    return topic


def test_confluent_in_a_group_gets_nothing_and_does_no_harm(
    broker: BrokerProcess, written: str
) -> None:
    errors = []
    consumer = Confluent.consumer(
        broker.address,
        **{"group.id": "g", "error_cb": errors.append, "auto.offset.reset": "earliest"},
    )
    try:
        consumer.subscribe([written])
        deadline = time.monotonic() + SHORT_S
        while time.monotonic() < deadline and not errors:
            message = consumer.poll(0.1)
            assert message is None or message.error() is not None
        with pytest.raises(confluent_kafka.KafkaException):
            consumer.committed([confluent_kafka.TopicPartition(written, 0)], timeout=1)
    finally:
        consumer.close()
    assert len(Confluent().read(broker.address, written, 0, 1)) == 1


def test_aiokafka_in_a_group_says_what_is_missing(broker: BrokerProcess, written: str) -> None:
    async def join() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            written, bootstrap_servers=broker.address, group_id="g", request_timeout_ms=2000
        )
        try:
            await consumer.start()
        finally:
            await consumer.stop()

    with pytest.raises((aiokafka.errors.KafkaError, TimeoutError)):
        run_asyncio(join(), SHORT_S)


def test_kafka_python_in_a_group_says_what_is_missing(broker: BrokerProcess, written: str) -> None:
    consumer = kafka.KafkaConsumer(
        written, bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False
    )
    try:
        with pytest.raises(kafka.errors.KafkaError):
            consumer.poll(timeout_ms=int(SHORT_S * 1000))
            raise kafka.errors.KafkaTimeoutError("no records, no error")
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)


def test_kcat_in_a_group_does_no_harm(broker: BrokerProcess, written: str) -> None:
    """It goes on looking for a coordinator until it is stopped."""
    program = Kcat.program()
    kcat = subprocess.Popen(
        [program, "-b", broker.address, "-G", "g", written],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, _ = kcat.communicate(timeout=2)
    except subprocess.TimeoutExpired:
        kcat.kill()
        out, _ = kcat.communicate()
    assert out == b""


def test_confluent_transactions_fail_at_once(broker: BrokerProcess) -> None:
    producer = Confluent.producer(broker.address, **{"transactional.id": "t"})
    with pytest.raises(confluent_kafka.KafkaException):
        producer.init_transactions(SHORT_S)


def test_kafka_python_transactions_fail_at_once(broker: BrokerProcess) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=broker.address, transactional_id="t", max_block_ms=int(SHORT_S * 1000)
    )
    try:
        with pytest.raises(kafka.errors.KafkaError):
            producer.init_transactions()
    finally:
        producer.close(timeout=1)
