"""What the producer writes is what other clients read, and keys go where theirs go."""

from __future__ import annotations

import warnings

import anyio
import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import trioq
from tests.e2e.clients import CLIENTS, CODECS, client_id
from tests.e2e.message import received, sample

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python


async def write(address, topic, messages, codec):
    async with trioq.connect(address) as client:
        async with client.producer(compression=codec, batch_bytes=2000) as producer:
            for message in messages:
                producer.send_nowait(
                    topic,
                    message.value,
                    key=message.key,
                    headers=message.headers,
                    partition=0,
                    timestamp_ms=message.timestamp_ms,
                )


@pytest.mark.parametrize("codec", CODECS)
def test_other_clients_read_what_is_written(broker, topic, codec):
    messages = sample(codec, 60, text_only=True)
    anyio.run(write, broker.address, topic, messages, codec, backend="trio")
    for reader in CLIENTS:
        expected = received(messages)
        found = reader.read(broker.address, topic, 0, len(messages))
        assert found == expected, client_id(reader)


def test_keys_go_where_librdkafka_and_kafka_python_put_them(broker, topic):
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 7, 1)])[topic].result(10)
    keys = [b"", *(b"key-%d" % number * (1 + number % 5) for number in range(200))]
    theirs = {}
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": broker.address, "partitioner": "murmur2_random"}
    )
    for key in keys[1:]:  # librdkafka takes an empty key for none
        producer.produce(
            topic,
            b"v",
            key,
            on_delivery=lambda _, message: theirs.update({message.key(): message.partition()}),
        )
    assert producer.flush(10) == 0

    async def ours():
        async with trioq.connect(broker.address) as client, client.producer() as producer:
            deliveries = {key: producer.send_nowait(topic, b"v", key=key) for key in keys}
            return {key: (await delivery).partition for key, delivery in deliveries.items()}

    mine = anyio.run(ours, backend="trio")
    for key in keys:
        assert mine[key] == (murmur2_of_kafka_python(key) & 0x7FFFFFFF) % 7
        assert key == b"" or mine[key] == theirs[key]
