"""The producer against a real broker."""

from __future__ import annotations

import os
import re

import anyio
import pytest

import trioq
from tests.e2e.segments import read_with_kafka_python
from trioq.errors import (
    BufferFull,
    ClientClosed,
    ClientForked,
    ClientUsageError,
    DeliveryTimeout,
    MessageTooLarge,
    RecordTooLarge,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from trioq.types import RecordMetadata
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)

pytestmark = pytest.mark.anyio


def stored(broker, topic, partition=0):
    return read_with_kafka_python(broker.segment_paths(topic, partition))[1]


def values(broker, topic, partition=0):
    return [record.value for record in stored(broker, topic, partition)]


async def create_topic(client, name, partitions, **configs):
    request = CreateTopicsRequest(
        topics=[
            CreateTopicsRequestTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=1,
            )
        ],
        timeout_ms=10_000,
    )
    response = await client.cluster.call_controller(request, CreateTopicsResponse)
    assert response.topics[0].error_code in {0, TopicAlreadyExists.code}


async def test_the_lines_of_the_readme(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        await producer.send(topic, b"value", key=b"key")
    (record,) = stored(broker, topic)
    assert (record.key, record.value, record.headers) == (b"key", b"value", ())


async def test_send_says_where_the_record_is(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        for offset in range(3):
            metadata = await producer.send(topic, b"%d" % offset)
            assert metadata == RecordMetadata(topic, 0, offset, -1)
    assert values(broker, topic) == [b"0", b"1", b"2"]


async def test_keys_headers_timestamps_and_nulls_are_kept(broker, topic):
    headers = (("a", b"1"), ("null", None), ("ü", b""))
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        await producer.send(topic, None, key=b"k", timestamp_ms=1_700_000_000_123)
        await producer.send(topic, bytearray(b"v"), key=memoryview(b""), headers=headers)
    first, second = stored(broker, topic)
    assert (first.key, first.value, first.timestamp_ms) == (b"k", None, 1_700_000_000_123)
    assert (second.key, second.value) == (b"", b"v")
    assert second.headers == headers


async def test_deliveries_are_awaited_or_ignored(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        deliveries = [producer.send_nowait(topic, b"%d" % number) for number in range(100)]
        assert not deliveries[0].is_done
        assert (await deliveries[99]).offset == 99
        assert deliveries[0].is_done
        assert (await deliveries[0]).offset == 0
        assert (await deliveries[0]).offset == 0
        producer.send_nowait(topic, b"ignored")
    assert values(broker, topic) == [*(b"%d" % number for number in range(100)), b"ignored"]


async def test_many_are_sent_in_order(broker, topic):
    count = 30_000
    async with trioq.connect(broker.address) as client:
        async with client.producer(buffer_bytes=256 * 1024, batch_bytes=32 * 1024) as producer:
            deliveries = await producer.send_many(topic, [b"%d" % n for n in range(count)])
            assert deliveries.count == count
            assert await deliveries == count
            assert await (await producer.send_many(topic, (b"%d" % n for n in range(10)))) == 10
            statistics = producer.statistics()
            assert statistics.records_written == count + 10
            assert statistics.buffered_bytes == 0
    assert values(broker, topic) == [
        *(b"%d" % n for n in range(count)),
        *(b"%d" % n for n in range(10)),
    ]


async def test_keys_choose_partitions_as_java_does(broker, topic):
    async with trioq.connect(broker.address) as client:
        await create_topic(client, topic, 5)
        async with client.producer() as producer:
            # Java's Utils.murmur2 of these is positive and negative; from its own tests.
            expected = {
                b"21": -973932308, b"foobar": -790332482, b"abc": 479470107,
                b"a-little-bit-long-string": -985981536,
                b"a-little-bit-longer-string": -1486304829,
            }  # fmt: skip
            for key, hashed in expected.items():
                metadata = await producer.send(topic, b"v", key=key)
                assert metadata.partition == (hashed & 0x7FFFFFFF) % 5
            many = [b"key-%d" % number for number in range(1000)]
            await (await producer.send_many(topic, many, keys=many))
            for key in many[:50]:
                assert (await producer.send(topic, key, key=key)).partition in range(5)
    places = {}
    for partition in range(5):
        for record in stored(broker, topic, partition):
            places.setdefault(record.key, set()).add(partition)
    assert all(len(found) == 1 for found in places.values())
    assert set().union(*places.values()) == set(range(5))


async def test_records_without_keys_spread_over_partitions(broker, topic):
    async with trioq.connect(broker.address) as client:
        await create_topic(client, topic, 3)
        async with client.producer(batch_bytes=2000) as producer:
            await (await producer.send_many(topic, [b"x" * 100] * 3000))
            assert await producer.partitions(topic) == 3
    counts = [len(stored(broker, topic, partition)) for partition in range(3)]
    assert sum(counts) == 3000
    assert all(counts)


async def test_partitions_are_chosen_by_hand_or_by_function(broker, topic):
    def second_letter(_topic, key, value, count):
        return None if key is None else (value or key)[1] % count

    async with trioq.connect(broker.address) as client:
        await create_topic(client, topic, 4)
        async with client.producer(partitioner=second_letter) as producer:
            assert (await producer.send(topic, b"v", partition=3)).partition == 3
            assert (await producer.send(topic, b"\0\2", key=b"k")).partition == 2
            assert (await producer.send(topic, b"\0\1", key=b"k")).partition == 1
            assert (await producer.send(topic, b"no key")).partition in range(4)
            await (await producer.send_many(topic, [b"m"] * 10, partition=0))
            with pytest.raises(ClientUsageError, match="no partition 4"):
                producer.send_nowait(topic, b"v", partition=4)
            with pytest.raises(ClientUsageError, match="no partition -1"):
                await producer.send(topic, b"v", partition=-1)
    assert values(broker, topic, 0).count(b"m") == 10


async def test_a_partition_that_a_new_topic_lacks(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        delivery = producer.send_nowait(topic, b"v", partition=7)
        with pytest.raises(ClientUsageError, match="no partition 7"):
            await delivery
        assert delivery.is_done


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_compression(broker, topic, compression):
    async with trioq.connect(broker.address) as client:
        async with client.producer(compression=compression) as producer:
            await (await producer.send_many(topic, [b"%d" % n * 10 for n in range(5000)]))
            await producer.send(topic, b"small")
    batches, records = read_with_kafka_python(broker.segment_paths(topic))
    codec = ["none", "gzip", "snappy", "lz4", "zstd"].index(compression)
    assert {batch.codec for batch in batches} == {codec}
    assert [r.value for r in records] == [*(b"%d" % n * 10 for n in range(5000)), b"small"]


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_acks(broker, topic, acks):
    async with trioq.connect(broker.address) as client:
        await client.cluster.metadata.topic(topic, may_create=True)
        async with client.producer(acks=acks) as producer:
            metadata = await producer.send(topic, b"0")
            assert metadata.offset == (-1 if acks == 0 else 0)
            await (await producer.send_many(topic, [b"%d" % n for n in range(1, 1000)]))
        # Behind what was sent without acknowledgement: the broker answers in order.
        async with client.producer() as producer:
            await producer.send(topic, b"last")
    with anyio.fail_after(60):
        while len(values(broker, topic)) < 1001:
            await anyio.sleep(0.01)
    written = values(broker, topic)
    assert [value for value in written if value != b"last"] == [b"%d" % n for n in range(1000)]


async def test_a_full_buffer_is_an_error_or_a_wait(broker, topic):
    async with trioq.connect(broker.address) as client:
        async with client.producer(buffer_bytes=64 * 1024, batch_bytes=16 * 1024) as producer:
            await producer.send(topic, b"first")
            sent = 0
            with pytest.raises(BufferFull, match="65536 bytes"):
                while True:
                    producer.send_nowait(topic, b"x" * 1000)
                    sent += 1
            assert 30 < sent < 80
            assert (await producer.send(topic, b"waits for room")).offset == sent + 1
            assert producer.statistics().buffered_bytes == 0


async def test_a_buffer_that_stays_full_is_an_error_in_time(broker, closed_port):
    async with (
        trioq.connect(broker.address) as client,
        client.producer(buffer_bytes=1000, max_block_ms=30) as producer,
    ):
        client.cluster.metadata.request_refresh = lambda: None
        producer.send_nowait("unresolved", b"x" * 800)
        with pytest.raises(BufferFull):
            await producer.send("unresolved", b"x" * 800)
        producer._accumulator.unrouted["unresolved"].deadline_s = 0.0
        with pytest.raises(DeliveryTimeout, match="partitions were not known within 120000 ms"):
            await producer.flush()


async def test_records_that_are_too_large(broker, topic):
    async with trioq.connect(broker.address) as client:
        async with client.producer(max_request_bytes=10_000) as producer:
            with pytest.raises(RecordTooLarge, match="max_request_bytes"):
                producer.send_nowait(topic, b"x" * 10_000)
            await producer.send(topic, b"x" * 9_000)
            with pytest.raises(RecordTooLarge, match=f"{topic}-0.*max_request_bytes"):
                producer.send_nowait(topic, b"x" * 10_000)
            assert producer.statistics().buffered_bytes == 0
            await producer.send(topic, b"y" * 9_000)
        async with client.producer(max_request_bytes=4_000_000) as producer:
            with pytest.raises(MessageTooLarge, match=f"{topic}-0"):
                await producer.send(topic, os.urandom(2_000_000))
            await producer.send(topic, b"fits")
    assert [len(value) for value in values(broker, topic)] == [9000, 9000, 4]


async def test_what_is_no_record_is_refused(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        for _ in range(2):  # before the topic's partitions are known, and after
            with pytest.raises(TypeError):
                producer.send_nowait(topic, 5)
            with pytest.raises(TypeError):
                producer.send_nowait(topic, b"v", key="text")
            with pytest.raises((TypeError, ValueError)):
                producer.send_nowait(topic, b"v", headers=(("only a name",),))
            with pytest.raises(TypeError):
                producer.send_nowait(5, b"v")
            await producer.send(topic, b"v")
        assert producer.statistics().buffered_bytes == 0
    assert values(broker, topic) == [b"v", b"v"]


async def test_a_topic_that_is_not_created_for_us(start_broker):
    broker = start_broker(settings={"auto.create.topics.enable": "false"})
    async with trioq.connect(broker.address, unknown_topic_timeout_ms=50) as client:
        async with client.producer() as producer:
            with pytest.raises(UnknownTopicOrPartition, match="auto.create.topics.enable"):
                await producer.send("nowhere", b"v")
            producer.send_nowait("nowhere", b"ignored")
            with pytest.raises(UnknownTopicOrPartition):
                await producer.flush()
            assert producer.statistics().records_failed == 2
            await create_topic(client, "nowhere", 1)
            await producer.send("nowhere", b"v")


async def test_serializers_make_bytes(broker, topic):
    async with (
        trioq.connect(broker.address) as client,
        client.producer(
            key_serializer=str.encode, value_serializer=lambda number: b"%d" % number
        ) as producer,
    ):
        await producer.send(topic, 5, key="k")
        producer.send_nowait(topic, None, key=None)
        await (await producer.send_many(topic, [1, 2], keys=["a", None]))
        with pytest.raises(TypeError):
            await producer.send(topic, "five")
    assert [(r.key, r.value) for r in stored(broker, topic)] == [
        (b"k", b"5"), (None, None), (b"a", b"1"), (None, b"2"),
    ]  # fmt: skip


async def test_a_cancelled_send_may_be_delivered(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        await producer.send(topic, b"first")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await producer.send(topic, b"cancelled")
        assert scope.cancelled_caught
        assert (await producer.send(topic, b"last")).offset == 2
    assert values(broker, topic) == [b"first", b"cancelled", b"last"]


async def test_leaving_by_cancellation_does_not_wait(broker, topic):
    with anyio.CancelScope() as scope:
        async with trioq.connect(broker.address) as client, client.producer() as producer:
            delivery = producer.send_nowait(topic, b"v")
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert delivery.is_done
    with pytest.raises(ClientClosed):
        await delivery


async def test_leaving_by_an_error_sends_what_was_queued(broker, topic):
    with pytest.raises(ZeroDivisionError):
        async with trioq.connect(broker.address) as client, client.producer() as producer:
            producer.send_nowait(topic, b"v")
            raise ZeroDivisionError
    assert values(broker, topic) == [b"v"]


async def test_a_producer_is_used_inside_of_its_block_only(broker, topic):
    async with trioq.connect(broker.address) as client:
        producer = client.producer()
        with pytest.raises(ClientClosed, match="not open"):
            producer.send_nowait(topic, b"v")
        with pytest.raises(ClientClosed, match="not open"):
            await producer.flush()
        async with producer:
            await producer.send(topic, b"v")
        with pytest.raises(ClientClosed, match="was closed"):
            await producer.send(topic, b"v")
        with pytest.raises(ClientClosed, match="was closed"):
            await producer.send_many(topic, [b"v"])
        with pytest.raises(ClientClosed, match="entered once"):
            await producer.__aenter__()
    with pytest.raises(ClientClosed):
        client.producer()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_forked_child_is_refused(broker, topic, anyio_backend):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        await producer.send(topic, b"v")
        producer.send_nowait(topic, b"in an open batch")
        child = os.fork()
        if child == 0:
            try:
                producer.send_nowait(topic, b"child")
            except ClientForked:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        await producer.flush()
    assert values(broker, topic) == [b"v", b"in an open batch"]


async def test_many_tasks_share_a_producer(broker, topic):
    async with trioq.connect(broker.address) as client, client.producer() as producer:
        offsets = set()

        async def send(number):
            for turn in range(20):
                offsets.add((await producer.send(topic, b"%d %d" % (number, turn))).offset)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(send, number)
        assert offsets == set(range(400))
        assert producer.statistics().requests < 200
    written = values(broker, topic)
    for number in range(20):
        mine = [value for value in written if value.split()[0] == b"%d" % number]
        assert mine == [b"%d %d" % (number, turn) for turn in range(20)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acks": 2}, "acks=2"),
        ({"acks": 1, "idempotent": True}, 'needs acks="all"'),
        ({"compression": "rar"}, "compression='rar'"),
        ({"compression": "gzip", "compression_level": 99}, "compression_level=99"),
        ({"linger_ms": -1}, "linger_ms=-1"),
        ({"batch_bytes": 0}, "batch_bytes=0"),
        ({"max_in_flight": 6}, "max_in_flight=6"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_settings_are_checked(broker, settings, message, anyio_backend):
    async with trioq.connect(broker.address) as client:
        with pytest.raises(ClientUsageError, match=re.escape(message)):
            client.producer(**settings)


async def test_a_broker_that_is_killed_and_comes_back_has_everything_once(start_broker, topic):
    broker = start_broker()
    expected = [b"%d" % number for number in range(1001)]
    async with trioq.connect(broker.address) as client:
        async with client.producer(batch_bytes=500, linger_ms=0) as producer:
            await producer.send(topic, expected[0])
            for turn in range(1):
                batch = expected[1 + turn * 1000 : 1001 + turn * 1000]
                deliveries = await producer.send_many(topic, batch)
                await anyio.to_thread.run_sync(broker.kill9)
                await anyio.to_thread.run_sync(broker.start)
                await deliveries
            retries = producer.statistics().retries
    assert values(broker, topic) == expected
    assert retries > 0
