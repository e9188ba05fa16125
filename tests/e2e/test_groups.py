"""Group consumers and transactions meet the APIs that are not served yet: a clean error."""

from __future__ import annotations

import subprocess

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, Kcat, run_asyncio
from tests.e2e.message import Message


@pytest.fixture
def written(broker: BrokerProcess, topic: str) -> str:
    Confluent().write(broker.address, topic, [Message(b"value")])
    return topic


def test_confluent_in_a_group_is_told_what_is_missing(broker: BrokerProcess, written: str) -> None:
    consumer = Confluent.consumer(broker.address, **{"group.id": "g"})
    try:
        consumer.subscribe([written])
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        assert error.code() == confluent_kafka.KafkaError._UNSUPPORTED_FEATURE
        assert "JoinGroup" in error.str()
        with pytest.raises(confluent_kafka.KafkaException, match="not supported by broker"):
            consumer.committed([confluent_kafka.TopicPartition(written, 0)], timeout=30)
    finally:
        consumer.close()
    assert len(Confluent().read(broker.address, written, 0, 1)) == 1


def test_aiokafka_in_a_group_says_what_is_missing(
    broker: BrokerProcess, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on trying; its log says that the broker has no JoinGroup."""

    async def join() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            written, bootstrap_servers=broker.address, group_id="g", request_timeout_ms=1000
        )
        try:
            await consumer.start()
        finally:
            await consumer.stop()

    with pytest.raises(TimeoutError):
        run_asyncio(join(), 1.0)
    assert "JoinGroupRequest cannot be used" in caplog.text


def test_kafka_python_in_a_group_is_told_what_is_missing(
    broker: BrokerProcess, written: str
) -> None:
    consumer = kafka.KafkaConsumer(
        written, bootstrap_servers=broker.address, group_id="g", enable_auto_commit=False
    )
    try:
        with pytest.raises(kafka.errors.IncompatibleBrokerVersion, match="JoinGroup"):
            consumer.poll(timeout_ms=30_000)
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
    with pytest.raises(confluent_kafka.KafkaException) as caught:
        producer.init_transactions(30)
    error = caught.value.args[0]
    assert error.fatal()
    assert error.code() == confluent_kafka.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_kafka_python_transactions_fail_at_once(broker: BrokerProcess) -> None:
    producer = kafka.KafkaProducer(bootstrap_servers=broker.address, transactional_id="t")
    try:
        with pytest.raises(kafka.errors.TransactionalIdAuthorizationFailedError):
            producer.init_transactions()
    finally:
        producer.close(timeout=1)


def test_aiokafka_transactions_fail_at_once(broker: BrokerProcess) -> None:
    async def start() -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=broker.address, transactional_id="t")
        try:
            await producer.start()
        finally:
            await producer.stop()

    with pytest.raises(aiokafka.errors.TransactionalIdAuthorizationFailed):
        run_asyncio(start())
