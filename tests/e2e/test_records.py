"""Records at their edges: empty and null, headers, the largest, and acks of every kind."""

from __future__ import annotations

import time

import confluent_kafka
import confluent_kafka.admin
import pytest
from kafka.protocol.producer import ProduceResponse

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import CLIENTS, PYTHON_CLIENTS, Client, Confluent, client_id
from tests.e2e.message import Message, received
from tests.e2e.raw import RawConnection, batch, produce_request

NOW_MS = time.time_ns() // 1_000_000

EDGES = [
    Message(b"", b"", (), NOW_MS + 1),
    Message(None, b"key", (), NOW_MS + 2),
    Message(b"value", None, (), NOW_MS + 3),
    Message(
        b"", None, (("empty", b""), ("", b"no name"), ("twice", b"1"), ("twice", b"2")), NOW_MS
    ),
    Message("ünïcode ✓".encode(), "schlüssel".encode(), (("größe", "ß".encode()),), NOW_MS + 5),
    Message(bytes(range(256)), bytes(reversed(range(256))), (("all", bytes(range(256))),), NOW_MS),
    Message(b"\0", b"\0", tuple((f"h{n}", str(n).encode()) for n in range(200)), NOW_MS - 5_000),
]


def test_neither_key_nor_value(broker: BrokerProcess, topic: str) -> None:
    """librdkafka sends what the others refuse to send; all of them read it."""
    nothing = Message(None, None, (), NOW_MS)
    Confluent().write(broker.address, topic, [nothing])
    for reader in CLIENTS:
        assert reader.read(broker.address, topic, 0, 1) == received([nothing]), reader.name


@pytest.mark.parametrize("writer", PYTHON_CLIENTS, ids=client_id)
def test_edges_come_back_as_they_were(broker: BrokerProcess, writer: Client, topic: str) -> None:
    writer.write(broker.address, topic, EDGES)
    for reader in PYTHON_CLIENTS:
        assert reader.read(broker.address, topic, 0, len(EDGES)) == received(EDGES), reader.name


def test_a_null_header_value_stays_null(broker: BrokerProcess, topic: str) -> None:
    message = Message(b"value", None, (("null", None), ("empty", b"")), NOW_MS)
    Confluent().write(broker.address, topic, [message])
    for reader in CLIENTS:
        assert reader.read(broker.address, topic, 0, 1) == received([message]), reader.name


@pytest.mark.parametrize("acks", [0, 1, -1])
@pytest.mark.parametrize("writer", CLIENTS, ids=client_id)
def test_acks(broker: BrokerProcess, writer: Client, acks: int, topic: str) -> None:
    messages = [Message(f"acks {acks} {number}".encode()) for number in range(5)]
    # With acks=0 nobody says when a topic is there: create it by a message that is awaited.
    Confluent().write(broker.address, topic, [Message(b"first")])
    writer.write(broker.address, topic, messages, acks=acks)
    found = Confluent().read(broker.address, topic, 1, len(messages))
    assert [message.value for message in found] == [message.value for message in messages]


def test_the_largest_record_and_one_byte_more(broker: BrokerProcess, topic: str) -> None:
    """max.message.bytes bounds the batch as it is stored: 1,048,588 bytes by default."""
    limit = 1_048_588
    overhead = len(batch([Message(bytes(1_000_000), None, (), NOW_MS)])) - 1_000_000
    largest = batch([Message(bytes(limit - overhead), None, (), NOW_MS)])
    assert len(largest) == limit
    too_large = batch([Message(bytes(limit - overhead + 1), None, (), NOW_MS)])
    Confluent().write(broker.address, topic, [Message(b"first")])
    with RawConnection(broker) as connection:
        answers = []
        for records in (largest, too_large, batch([Message(b"after")])):
            response = connection.call(produce_request(topic, records), ProduceResponse, 9)
            partition = response.responses[0].partition_responses[0]
            answers.append((partition.error_code, partition.base_offset))
    assert answers == [(0, 1), (10, -1), (0, 2)]
    for reader in CLIENTS:
        found = reader.read(broker.address, topic, 1, 1)
        assert found[0].value == bytes(limit - overhead), reader.name


def test_max_message_bytes_of_the_topic(broker: BrokerProcess, topic: str) -> None:
    create = confluent_kafka.admin.NewTopic(topic, 1, 1, config={"max.message.bytes": "1000"})
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([create])[topic].result()
    Confluent().write(broker.address, topic, [Message(b"x" * 800)])
    errors = []
    producer = Confluent.producer(broker.address)
    producer.produce(topic, b"x" * 1200, on_delivery=lambda error, _: errors.append(error.code()))
    assert producer.flush(30) == 0
    assert errors == [confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE]
    assert len(Confluent().read(broker.address, topic, 0, 1)) == 1


@pytest.mark.parametrize("writer", PYTHON_CLIENTS, ids=client_id)
def test_a_large_batch_of_many_records(broker: BrokerProcess, writer: Client, topic: str) -> None:
    messages = [
        Message(f"{number:08d}".encode() * 16, f"{number}".encode(), (), NOW_MS + number)
        for number in range(5_000)
    ]
    writer.write(broker.address, topic, messages, codec="zstd")
    for reader in PYTHON_CLIENTS:
        assert reader.read(broker.address, topic, 0, len(messages)) == received(messages)
