"""Waiting for records, places to start from, and fetch sessions."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import aiokafka
import confluent_kafka
import kafka
import pytest
from kafka.protocol.consumer import FetchRequest, FetchResponse

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import (
    TIMEOUT_S,
    Confluent,
    KafkaPython,
    confluent_messages,
    kafka_python_messages,
    run_asyncio,
)
from tests.e2e.message import Message
from tests.e2e.raw import RawConnection, batch, produce_request

LONG_WAIT_MS = 25_000
"""Longer than any test may take: an answer that comes was not the end of the wait."""


def fetch_request(
    topic: str,
    offset: int,
    *,
    max_wait_ms: int = LONG_WAIT_MS,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    session_id: int = 0,
    session_epoch: int = -1,
    isolation_level: int = 0,
) -> FetchRequest:
    topics = FetchRequest.FetchTopic
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        session_id=session_id,
        session_epoch=session_epoch,
        forgotten_topics_data=[],
        rack_id="",
        topics=[
            topics(
                topic=topic,
                partitions=[
                    topics.FetchPartition(
                        partition=0,
                        current_leader_epoch=-1,
                        fetch_offset=offset,
                        last_fetched_epoch=-1,
                        log_start_offset=-1,
                        partition_max_bytes=1 << 20,
                    )
                ],
            )
        ],
    )


def only_partition(response: FetchResponse):
    (topic,) = response.responses
    (partition,) = topic.partitions
    return partition


def write_one(broker: BrokerProcess, topic: str, value: bytes = b"value") -> None:
    Confluent().write(broker.address, topic, [Message(value)])


def test_a_parked_fetch_is_answered_by_the_record_that_arrives(
    broker: BrokerProcess, topic: str
) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        connection.send_request(fetch_request(topic, 1), 11)
        # The request is parked when a later one on another connection finds nothing either.
        with RawConnection(broker) as other:
            empty = other.call(fetch_request(topic, 1, max_wait_ms=1), FetchResponse, 11)
            assert not only_partition(empty).records
        write_one(broker, topic, b"arrives")
        partition = only_partition(connection.read_response(FetchResponse, 11))
    assert partition.error_code == 0
    assert b"arrives" in bytes(partition.records)
    assert partition.high_watermark == 2


def test_min_bytes_holds_the_answer_back(broker: BrokerProcess, topic: str) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        connection.send_request(fetch_request(topic, 1, min_bytes=3_000), 11)
        for number in range(4):
            write_one(broker, topic, b"%d" % number * 1000)
        records = bytes(only_partition(connection.read_response(FetchResponse, 11)).records)
    assert all(b"%d" % number * 1000 in records for number in range(3))


def test_max_wait_ends_the_wait(broker: BrokerProcess, topic: str) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        started_s = time.monotonic()
        response = connection.call(fetch_request(topic, 1, max_wait_ms=300), FetchResponse, 11)
        waited_s = time.monotonic() - started_s
    assert only_partition(response).error_code == 0
    assert not only_partition(response).records
    assert waited_s >= 0.299


def test_the_first_batch_comes_whole_however_small_the_limit(
    broker: BrokerProcess, topic: str
) -> None:
    write_one(broker, topic, b"x" * 100_000)
    write_one(broker, topic, b"y")
    with RawConnection(broker) as connection:
        response = connection.call(fetch_request(topic, 0, max_bytes=10), FetchResponse, 11)
    assert b"x" * 100_000 in bytes(only_partition(response).records)


def test_requests_behind_a_parked_fetch_are_answered_in_order(
    broker: BrokerProcess, topic: str
) -> None:
    from kafka.protocol.producer import ProduceResponse

    write_one(broker, topic)
    with RawConnection(broker) as connection:
        connection.send_request(fetch_request(topic, 1), 11)
        # Produce may overlap with the fetch; its answer comes second all the same.
        connection.send_request(produce_request(topic, batch([Message(b"own")])), 9)
        frame = connection.read_frame()
        fetched = FetchResponse.decode(frame, version=11, header=True)
        assert fetched.header.correlation_id == 1
        assert b"own" in bytes(only_partition(fetched).records)
        produced = connection.read_response(ProduceResponse, 9)
    assert produced.responses[0].partition_responses[0].base_offset == 1


def test_a_full_fetch_that_waited_names_every_partition(broker: BrokerProcess, topic: str) -> None:
    """Clients begin their sessions anew where one is missing."""
    Confluent().write(broker.address, topic, [Message(b"value")])
    with RawConnection(broker) as connection:
        asked = fetch_request(topic, 1, session_epoch=0, max_wait_ms=1)
        first = connection.call(asked, FetchResponse, 11)
        assert first.session_id != 0
        assert [one.partition_index for one in first.responses[0].partitions] == [0]
        follow = fetch_request(
            topic, 1, session_id=first.session_id, session_epoch=1, max_wait_ms=1
        )
        assert connection.call(follow, FetchResponse, 11).responses == []


def test_incremental_session(broker: BrokerProcess, topic: str) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        first = connection.call(fetch_request(topic, 0, session_epoch=0), FetchResponse, 11)
        session_id = first.session_id
        assert first.error_code == 0
        assert session_id != 0
        # The partition is known now: a request that names nothing follows it further.
        follow = fetch_request(topic, 1, session_id=session_id, session_epoch=1)
        write_one(broker, topic, b"second")
        second = connection.call(follow, FetchResponse, 11)
        assert b"second" in bytes(only_partition(second).records)
        third = fetch_request(topic, 2, session_id=session_id, session_epoch=2, max_wait_ms=1)
        third.topics = []
        assert second.error_code == 0
        answer = connection.call(third, FetchResponse, 11)
        assert answer.error_code == 0
        wrong = fetch_request(topic, 2, session_id=session_id, session_epoch=9)
        assert connection.call(wrong, FetchResponse, 11).error_code == 71
        unknown = fetch_request(topic, 2, session_id=session_id + 1, session_epoch=1)
        assert connection.call(unknown, FetchResponse, 11).error_code == 70


def test_a_parked_incremental_fetch_is_answered_by_the_record_that_arrives(
    broker: BrokerProcess, topic: str
) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        first = connection.call(fetch_request(topic, 0, session_epoch=0), FetchResponse, 11)
        session_id = first.session_id
        moved = fetch_request(topic, 1, session_id=session_id, session_epoch=1)
        connection.send_request(moved, 11)
        write_one(broker, topic, b"second")
        second = connection.read_response(FetchResponse, 11)
        assert b"second" in bytes(only_partition(second).records)
        moved = fetch_request(topic, 2, session_id=session_id, session_epoch=2)
        connection.send_request(moved, 11)
        write_one(broker, topic, b"third")
        third = connection.read_response(FetchResponse, 11)
        assert b"third" in bytes(only_partition(third).records)


@pytest.mark.parametrize("offset", [-1, 2, 1_000_000])
def test_an_offset_outside_the_log(broker: BrokerProcess, offset: int, topic: str) -> None:
    write_one(broker, topic)
    with RawConnection(broker) as connection:
        response = connection.call(fetch_request(topic, offset), FetchResponse, 11)
    assert only_partition(response).error_code == 1


def test_librdkafka_waits_for_a_record(broker: BrokerProcess, topic: str) -> None:
    write_one(broker, topic)
    consumer = Confluent.consumer(broker.address, **{"fetch.wait.max.ms": LONG_WAIT_MS})
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        assert confluent_messages(consumer, 1)[0].value == b"value"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(confluent_messages, consumer, 1)
            write_one(broker, topic, b"arrives")
            assert waiting.result(TIMEOUT_S)[0].value == b"arrives"
    finally:
        consumer.close()


def test_kafka_python_waits_for_a_record(broker: BrokerProcess, topic: str) -> None:
    write_one(broker, topic)
    consumer = KafkaPython.consumer(broker.address, fetch_max_wait_ms=LONG_WAIT_MS)
    try:
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        assert kafka_python_messages(consumer, 1)[0].value == b"value"
        writer = threading.Thread(target=write_one, args=(broker, topic, b"arrives"))
        writer.start()
        assert kafka_python_messages(consumer, 1)[0].value == b"arrives"
        writer.join()
    finally:
        consumer.close(autocommit=False)


def test_aiokafka_waits_for_a_record(broker: BrokerProcess, topic: str) -> None:
    async def wait() -> bytes:
        async with aiokafka.AIOKafkaConsumer(
            bootstrap_servers=broker.address, fetch_max_wait_ms=LONG_WAIT_MS
        ) as consumer:
            place = aiokafka.TopicPartition(topic, 0)
            consumer.assign([place])
            consumer.seek(place, 0)
            await consumer.getone()
            waiting = asyncio.ensure_future(consumer.getone())
            await asyncio.to_thread(write_one, broker, topic, b"arrives")
            return (await waiting).value

    write_one(broker, topic)
    assert run_asyncio(wait()) == b"arrives"


def test_beginning_and_end(broker: BrokerProcess, topic: str) -> None:
    Confluent().write(broker.address, topic, [Message(b"%d" % number) for number in range(7)])
    consumer = KafkaPython.consumer(broker.address)
    try:
        place = kafka.TopicPartition(topic, 0)
        consumer.assign([place])
        assert consumer.beginning_offsets([place]) == {place: 0}
        assert consumer.end_offsets([place]) == {place: 7}
        consumer.seek_to_end(place)
        assert consumer.position(place) == 7
        consumer.seek_to_beginning(place)
        assert len(kafka_python_messages(consumer, 7)) == 7
    finally:
        consumer.close(autocommit=False)
    confluent = Confluent.consumer(broker.address)
    try:
        place = confluent_kafka.TopicPartition(topic, 0)
        assert confluent.get_watermark_offsets(place, timeout=TIMEOUT_S) == (0, 7)
        two_before_the_end = -2000 - 2  # librdkafka's OFFSET_TAIL, which the binding lacks
        tail = confluent_kafka.TopicPartition(topic, 0, two_before_the_end)
        confluent.assign([tail])
        assert [message.offset for message in confluent_messages(confluent, 2)] == [5, 6]
    finally:
        confluent.close()
