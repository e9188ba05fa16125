"""Timestamps, offsets by time, and who stamps."""

from __future__ import annotations

import time

import aiokafka
import confluent_kafka
import kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.protocol.producer import ProduceResponse

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import CLIENTS, CODECS, Confluent, KafkaPython, Kcat, run_asyncio
from tests.e2e.message import Message, Received
from tests.e2e.raw import RawConnection, batch, produce_request
from tests.e2e.segments import CODEC_NUMBERS, read_with_kafka_python

BASE_MS = time.time_ns() // 1_000_000 - 3_600_000


def offset_by_confluent(broker: BrokerProcess, topic: str, timestamp_ms: int) -> int:
    consumer = Confluent.consumer(broker.address)
    try:
        place = confluent_kafka.TopicPartition(topic, 0, timestamp_ms)
        found = consumer.offsets_for_times([place], timeout=30)[0]
        assert found.error is None
        return found.offset if found.offset >= 0 else -1
    finally:
        consumer.close()


def offset_by_kafka_python(broker: BrokerProcess, topic: str, timestamp_ms: int) -> int:
    consumer = KafkaPython.consumer(broker.address)
    try:
        place = kafka.TopicPartition(topic, 0)
        found = consumer.offsets_for_times({place: timestamp_ms})[place]
        return -1 if found is None else found.offset
    finally:
        consumer.close(autocommit=False)


def offset_by_aiokafka(broker: BrokerProcess, topic: str, timestamp_ms: int) -> int:
    async def ask() -> int:
        async with aiokafka.AIOKafkaConsumer(bootstrap_servers=broker.address) as consumer:
            place = aiokafka.TopicPartition(topic, 0)
            consumer.assign([place])
            found = (await consumer.offsets_for_times({place: timestamp_ms}))[place]
            return -1 if found is None else found.offset

    return run_asyncio(ask())


def offset_by_kcat(broker: BrokerProcess, topic: str, timestamp_ms: int) -> int:
    done = Kcat.run("-Q", "-b", broker.address, "-t", f"{topic}:0:{timestamp_ms}")
    assert done.returncode == 0, done.stderr
    offset = int(done.stdout.split()[-1])
    return offset if offset >= 0 else -1


ASKERS = [offset_by_confluent, offset_by_kafka_python, offset_by_aiokafka, offset_by_kcat]


@pytest.mark.parametrize("codec", CODECS)
def test_offset_by_time_points_into_a_batch(broker: BrokerProcess, codec: str, topic: str) -> None:
    """Two batches of ten records, ten seconds apart: 0..9 and 100..109 seconds."""
    messages = [
        Message(b"value", None, (), BASE_MS + 1000 * second)
        for second in (*range(10), *range(100, 110))
    ]
    Confluent().write(broker.address, topic, [Message(b"before", None, (), BASE_MS - 1000)])
    number = CODEC_NUMBERS[codec]
    with RawConnection(broker) as connection:
        for part in (messages[:10], messages[10:]):
            request = produce_request(topic, batch(part, codec=number))
            response = connection.call(request, ProduceResponse, 9)
            assert response.responses[0].partition_responses[0].error_code == 0
    expected = {
        BASE_MS - 5_000: 0,
        BASE_MS: 1,
        BASE_MS + 1: 2,
        BASE_MS + 4_500: 6,
        BASE_MS + 9_000: 10,
        BASE_MS + 9_001: 11,
        BASE_MS + 103_000: 14,
        BASE_MS + 109_000: 20,
        BASE_MS + 109_001: -1,
    }
    asker = ASKERS[list(CODECS).index(codec) % len(ASKERS)]
    assert {asked: asker(broker, topic, asked) for asked in expected} == expected


@pytest.mark.parametrize("asker", ASKERS, ids=lambda asker: asker.__name__)
def test_every_client_finds_offsets_by_time(broker: BrokerProcess, asker, topic: str) -> None:
    times = [0, 10, 10, 20, 15, 30]  # not in order: the first at or after counts
    messages = [Message(b"value", None, (), BASE_MS + 1000 * second) for second in times]
    Confluent().write(broker.address, topic, messages)
    expected = {5: 1, 10: 1, 11: 3, 20: 3, 21: 5, 30: 5, 31: -1}
    found = {second: asker(broker, topic, BASE_MS + 1000 * second) for second in expected}
    assert found == expected


def create(broker: BrokerProcess, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    settings = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(topic, 1, 1, config=settings)])[topic].result()


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time(broker: BrokerProcess, codec: str, topic: str) -> None:
    """The broker's clock replaces the producer's, for every record of a batch alike."""
    create(broker, topic, message_timestamp_type="LogAppendTime")
    started_ms = time.time_ns() // 1_000_000
    messages = [
        Message(b"value %d " % number * 20, None, (), BASE_MS + number) for number in range(10)
    ]
    Confluent().write(broker.address, topic, messages, codec=codec)
    ended_ms = time.time_ns() // 1_000_000
    batches, _ = read_with_kafka_python(broker.segment_paths(topic))
    assert {(stored.timestamp_type, stored.codec) for stored in batches} == {
        (1, CODEC_NUMBERS[codec])
    }
    for reader in CLIENTS:
        found = reader.read(broker.address, topic, 0, len(messages))
        assert [message.value for message in found] == [message.value for message in messages]
        assert all(started_ms <= message.timestamp_ms <= ended_ms for message in found), reader.name
    assert offset_by_confluent(broker, topic, started_ms) == 0
    assert offset_by_confluent(broker, topic, BASE_MS) == 0
    assert offset_by_confluent(broker, topic, ended_ms + 1000) == -1


def test_the_producer_is_told_the_append_time(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, message_timestamp_type="LogAppendTime")
    started_ms = time.time_ns() // 1_000_000
    with RawConnection(broker) as connection:
        request = produce_request(topic, batch([Message(b"value", None, (), BASE_MS)]))
        answer = connection.call(request, ProduceResponse, 9).responses[0].partition_responses[0]
    assert (answer.error_code, answer.base_offset) == (0, 0)
    assert answer.log_append_time_ms >= started_ms


def test_a_timestamp_too_far_in_the_future_is_refused(broker: BrokerProcess, topic: str) -> None:
    create(broker, topic, message_timestamp_after_max_ms="60000")
    late_ms = time.time_ns() // 1_000_000 + 3_600_000
    with RawConnection(broker) as connection:
        request = produce_request(topic, batch([Message(b"value", None, (), late_ms)]))
        answer = connection.call(request, ProduceResponse, 9).responses[0].partition_responses[0]
    assert answer.error_code == 32  # INVALID_TIMESTAMP


@pytest.mark.parametrize("stored", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("sent", ["none", "gzip", "zstd"])
def test_compression_type_of_the_topic_recompresses(
    broker: BrokerProcess, sent: str, stored: str, topic: str
) -> None:
    create(broker, topic, compression_type=stored)
    messages = [
        Message(b"value %d " % number * 20, b"key", (("h", b"x"),), BASE_MS + number)
        for number in range(20)
    ]
    Confluent().write(broker.address, topic, messages, codec=sent)
    codec = CODEC_NUMBERS["none" if stored == "uncompressed" else stored]
    batches, found = read_with_kafka_python(broker.segment_paths(topic))
    assert {one.codec for one in batches} == {codec}
    expected = [
        Received(offset, message.timestamp_ms or 0, message.key, message.value, message.headers)
        for offset, message in enumerate(messages)
    ]
    assert found == expected
    assert KafkaPython().read(broker.address, topic, 0, len(messages)) == expected
