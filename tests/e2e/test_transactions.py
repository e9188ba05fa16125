"""Transactions meet APIs that are not served yet: a clean error."""

from __future__ import annotations

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors
import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, run_asyncio


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
