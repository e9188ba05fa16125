"""Idempotent producers of every client."""

from __future__ import annotations

import aiokafka
import kafka
from kafka.protocol.producer import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceResponse,
)

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, KafkaPython, run_asyncio
from tests.e2e.message import Message
from tests.e2e.raw import RawConnection, batch, produce_request
from tests.e2e.segments import read_with_kafka_python

COUNT = 300


def check(broker: BrokerProcess, topic: str) -> None:
    """All numbers once and in order, written under one producer id."""
    found = KafkaPython().read(broker.address, topic, 0, COUNT)
    assert [int(message.value or b"") for message in found] == list(range(COUNT))
    batches, _ = read_with_kafka_python(broker.segment_paths(topic))
    producer_ids = {one.producer_id for one in batches}
    assert len(producer_ids) == 1
    assert min(producer_ids) >= 0


def test_confluent(broker: BrokerProcess, topic: str) -> None:
    producer = Confluent.producer(
        broker.address, **{"enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 10}
    )
    for number in range(COUNT):
        producer.produce(topic, b"%d" % number)
        producer.poll(0)
    assert producer.flush(30) == 0
    check(broker, topic)


def test_aiokafka(broker: BrokerProcess, topic: str) -> None:
    async def write() -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=broker.address, enable_idempotence=True, max_batch_size=200
        ) as producer:
            for number in range(COUNT):
                await producer.send(topic, b"%d" % number, partition=0)
            await producer.flush()

    run_asyncio(write())
    check(broker, topic)


def test_kafka_python(broker: BrokerProcess, topic: str) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=broker.address, enable_idempotence=True, batch_size=200
    )
    for number in range(COUNT):
        producer.send(topic, b"%d" % number)
    producer.flush(30)
    producer.close(timeout=10)
    check(broker, topic)


def init_producer_id(
    connection: RawConnection, version: int = 4, **fields: object
) -> InitProducerIdResponse:
    values = {
        "transactional_id": None,
        "transaction_timeout_ms": 60_000,
        "producer_id": -1,
        "producer_epoch": -1,
        **fields,
    }
    return connection.call(InitProducerIdRequest(**values), InitProducerIdResponse, version)


def test_producer_ids_are_never_given_twice(broker: BrokerProcess) -> None:
    seen = set()
    for _ in range(3):
        with RawConnection(broker) as connection:
            for version in range(5):
                answer = init_producer_id(connection, version)
                assert (answer.error_code, answer.producer_epoch) == (0, 0)
                seen.add(answer.producer_id)
    assert len(seen) == 15


def test_transactions_are_refused_with_a_fatal_code(broker: BrokerProcess) -> None:
    with RawConnection(broker) as connection:
        assert init_producer_id(connection, transactional_id="t").error_code == 53
        assert init_producer_id(connection, transactional_id="").error_code == 42
        assert init_producer_id(connection, producer_id=1).error_code == 42


def test_a_window_of_five_batches_in_flight(broker: BrokerProcess, topic: str) -> None:
    """Duplicates of the last five batches get their offsets, older ones do not."""
    Confluent().write(broker.address, topic, [Message(b"first")])
    with RawConnection(broker) as connection:
        producer_id = init_producer_id(connection).producer_id

        def send(sequence: int) -> tuple[int, int]:
            data = batch(
                [Message(b"v"), Message(b"w")],
                producer_id=producer_id,
                producer_epoch=0,
                base_sequence=sequence,
            )
            response = connection.call(produce_request(topic, data), ProduceResponse, 9)
            answer = response.responses[0].partition_responses[0]
            return answer.error_code, answer.base_offset

        offsets = {sequence: 1 + sequence for sequence in range(0, 14, 2)}
        for sequence, offset in offsets.items():
            assert send(sequence) == (0, offset)
        for sequence in (4, 6, 8, 10, 12):
            assert send(sequence) == (0, offsets[sequence])
        assert send(0)[0] == 46, "DUPLICATE_SEQUENCE_NUMBER: it is there, but not where"
        assert send(14) == (0, 15)
