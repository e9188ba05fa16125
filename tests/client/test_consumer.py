"""Consuming without a group: what is read, from where, and how it is given out."""

from __future__ import annotations

import re

import anyio
import pytest

import trioq
from tests.client.written import create, write
from trioq.errors import (
    ClientClosed,
    ClientUsageError,
    InvalidTopicException,
    NoCommittedOffset,
)
from trioq.record.compression import Codec
from trioq.types import TopicPartition

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(broker):
    async with trioq.connect(broker.address, metadata_max_age_ms=500) as client:
        yield client


async def take(consumer, count):
    records = []
    with anyio.fail_after(60):
        while len(records) < count:
            records.append(await anext(consumer))
    return records


def places(records):
    return [(record.partition, record.offset) for record in records]


async def nothing_comes(consumer):
    with anyio.move_on_after(0.1):
        await anext(consumer)
        return False
    return True


async def test_records_of_a_topic(client, topic):
    await create(client, topic, partitions=2)
    headers = (("a", b"1"), ("b", None))
    await write(client, topic, [(b"k", b"v", headers), (None, None, ())], timestamp_ms=7)
    await write(client, topic, [b"other"], partition=1)
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        records = await take(consumer, 3)
        first = next(record for record in records if record.key == b"k")
        assert (first.topic, first.partition, first.offset) == (topic, 0, 0)
        assert (first.value, first.headers, first.timestamp) == (b"v", headers, 7)
        assert sorted(places(records)) == [(0, 0), (0, 1), (1, 0)]
        assert consumer.assignment == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
        assert consumer.subscription == {topic}
        await write(client, topic, [b"later"])
        assert (await anext(consumer)).value == b"later"
        statistics = consumer.statistics()
        assert (statistics.partitions, statistics.buffered_bytes) == (2, 0)
        assert statistics.lag == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}


async def test_latest_is_the_default(client, topic):
    await create(client, topic)
    await write(client, topic, [b"old"])
    async with client.consumer(topic) as consumer:
        assert await nothing_comes(consumer)
        assert await consumer.position((topic, 0)) == 1
        await write(client, topic, [b"new"])
        assert (await anext(consumer)).value == b"new"


async def test_without_a_policy_the_user_decides(client, topic):
    await create(client, topic)
    await write(client, topic, [b"0", b"1"])
    async with client.consumer(topic, auto_offset_reset="error") as consumer:
        for _ in range(2):
            with pytest.raises(NoCommittedOffset):
                await anext(consumer)
        consumer.seek((topic, 0), 1)
        assert (await anext(consumer)).value == b"1"


@pytest.mark.parametrize("codec", list(Codec))
async def test_every_codec(client, topic, codec):
    await create(client, topic)
    values = [b"value %d" % number for number in range(500)]
    await write(client, topic, values, codec=codec)
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        assert [record.value for record in await take(consumer, 500)] == values


async def test_batches(client, topic):
    await create(client, topic)
    for _ in range(3):
        await write(client, topic, [b"a", b"b"])
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        offsets = []
        async for batch in consumer.batches():
            assert batch.values() == [b"a", b"b"]
            offsets += batch.offsets
            assert await consumer.position((topic, 0)) == offsets[-1] + 1
            if len(offsets) == 6:
                break
        assert offsets == list(range(6))


async def test_records_and_batches_can_be_mixed(client, topic):
    await create(client, topic)
    await write(client, topic, [b"%d" % number for number in range(4)])
    await write(client, topic, [b"4"])
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        assert places(await take(consumer, 2)) == [(0, 0), (0, 1)]
        batch = await anext(consumer.batches())
        assert list(batch.offsets) == [2, 3]
        assert places(await take(consumer, 1)) == [(0, 4)]


async def test_seeking_and_positions(client, topic):
    await create(client, topic)
    await write(client, topic, [b"%d" % number for number in range(10)])
    async with client.consumer() as consumer:
        consumer.assign([(topic, 0)])
        consumer.seek((topic, 0), 4)
        assert await consumer.position((topic, 0)) == 4
        assert places(await take(consumer, 2)) == [(0, 4), (0, 5)]
        assert await consumer.position((topic, 0)) == 6
        consumer.seek((topic, 0), 1)
        assert places(await take(consumer, 1)) == [(0, 1)]
        consumer.seek_to_beginning()
        assert places(await take(consumer, 1)) == [(0, 0)]
        consumer.seek_to_end((topic, 0))
        assert await consumer.position((topic, 0)) == 10
        await write(client, topic, [b"10"])
        assert places(await take(consumer, 1)) == [(0, 10)]
        consumer.seek((topic, 0), 999)
        consumer.assign([])
        assert consumer.assignment == frozenset()
        with pytest.raises(ClientUsageError, match="not assigned"):
            consumer.seek((topic, 0), 1)


async def test_out_of_range_goes_by_the_policy(client, topic):
    await create(client, topic)
    await write(client, topic, [b"0", b"1"])
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        await anext(consumer)
        consumer.seek((topic, 0), 999)
        assert (await anext(consumer)).offset == 0


async def test_pausing_keeps_what_is_in_hand(client, topic):
    await create(client, topic, partitions=2)
    await write(client, topic, [b"%d" % number for number in range(6)])
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        assert places(await take(consumer, 2)) == [(0, 0), (0, 1)]
        consumer.pause((topic, 0))
        assert consumer.paused == {TopicPartition(topic, 0)}
        assert await nothing_comes(consumer)
        await write(client, topic, [b"x"], partition=1)
        assert places(await take(consumer, 1)) == [(1, 0)]
        consumer.resume((topic, 0))
        assert places(await take(consumer, 4)) == [(0, 2), (0, 3), (0, 4), (0, 5)]


async def test_offsets_by_time_and_at_the_ends(client, topic):
    await create(client, topic)
    place = TopicPartition(topic, 0)
    for timestamp_ms in (1000, 2000, 3000):
        await write(client, topic, [b"v"], timestamp_ms=timestamp_ms)
    async with client.consumer() as consumer:
        found = await consumer.offsets_for_times({place: 1500})
        assert found[place] is not None
        assert (found[place].offset, found[place].timestamp) == (1, 2000)
        assert await consumer.offsets_for_times({place: 4000}) == {place: None}
        assert await consumer.beginning_offsets([place]) == {place: 0}
        assert await consumer.end_offsets([place]) == {place: 3}
        with pytest.raises(ClientUsageError, match="does not exist"):
            await consumer.end_offsets([(topic, 9)])


async def test_a_pattern_takes_up_topics_as_they_come(client, topic):
    await create(client, f"{topic}-one")
    await write(client, f"{topic}-one", [b"1"])
    async with client.consumer(
        pattern=re.compile(f"{topic}-.*"), auto_offset_reset="earliest"
    ) as consumer:
        assert (await anext(consumer)).value == b"1"
        await create(client, f"{topic}-two")
        await write(client, f"{topic}-two", [b"2"])
        assert (await anext(consumer)).value == b"2"
        assert consumer.subscription == {f"{topic}-one", f"{topic}-two"}


async def test_a_topic_may_come_later(client, topic):
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        assert await nothing_comes(consumer)
        await create(client, topic)
        await write(client, topic, [b"1"])
        assert (await anext(consumer)).value == b"1"


async def test_deserializers_make_the_types(client, topic):
    await create(client, topic)
    await write(client, topic, [(b"k", b"12", ()), (None, None, ())])
    async with client.consumer(
        topic, auto_offset_reset="earliest", key_deserializer=bytes.decode, value_deserializer=int
    ) as consumer:
        first, second = await take(consumer, 2)
        assert (first.key, first.value, first.raw_value) == ("k", 12, b"12")
        assert (second.key, second.value) == (None, None)


async def test_what_is_prefetched_is_bounded(client, topic):
    await create(client, topic)
    size = 10_000
    for _ in range(50):
        await write(client, topic, [bytes(size)])
    async with client.consumer(
        topic, auto_offset_reset="earliest", prefetch_bytes=100_000, partition_max_bytes=20_000
    ) as consumer:
        for offset in range(50):
            record = await anext(consumer)
            assert record.offset == offset
            await anyio.sleep(0)
            assert consumer.statistics().buffered_bytes <= 100_000 + 2 * size


async def test_cancelling_loses_no_record(client, topic):
    await create(client, topic)
    async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        for round_ in range(3):
            assert await nothing_comes(consumer)
            await write(client, topic, [b"%d" % round_])
            assert (await anext(consumer)).value == b"%d" % round_


async def test_two_tasks_cannot_read_from_one_consumer(client, topic):
    await create(client, topic)
    async with client.consumer(topic) as consumer, anyio.create_task_group() as tasks:
        tasks.start_soon(consumer.__anext__)
        while not consumer._open().reader._asking:
            await anyio.sleep(0)
        with pytest.raises(ClientUsageError, match="two tasks"):
            await anext(consumer)
        tasks.cancel_scope.cancel()


async def test_a_consumer_is_used_inside_of_its_block_only(client, topic):
    consumer = client.consumer(topic)
    with pytest.raises(ClientClosed, match="not open"):
        consumer.statistics()
    async with consumer:
        pass
    with pytest.raises(ClientClosed, match="not open"):
        await anext(consumer)
    with pytest.raises(ClientClosed, match="entered once"):
        await consumer.__aenter__()


async def test_what_the_block_raises_comes_out_as_it_is(client, topic):
    with pytest.raises(ZeroDivisionError):
        async with client.consumer(topic):
            raise ZeroDivisionError


async def test_wrong_use_is_told(client, topic):
    for options, message in (
        ({"commit": "never"}, "commit='never'"),
        ({"auto_offset_reset": "first"}, "auto_offset_reset"),
        ({"commit": "after_processing"}, "needs a group"),
        ({"prefetch_bytes": 0}, "prefetch_bytes=0"),
        ({"heartbeat_interval_ms": 50_000}, "must be below"),
        ({"assignors": ["best"]}, "'best'"),
        ({"group": ""}, "1 to 32767"),
    ):
        with pytest.raises(ClientUsageError, match=message):
            client.consumer(topic, **options)
    async with client.consumer() as consumer:
        with pytest.raises(ClientUsageError, match="by name, or by one pattern"):
            consumer.subscribe()
        with pytest.raises(ClientUsageError, match="pattern"):
            consumer.subscribe(pattern="(")
        with pytest.raises(ClientUsageError, match="nothing to commit"):
            await consumer.commit()
        with pytest.raises(ClientUsageError, match="no committed"):
            await consumer.committed([(topic, 0)])
        consumer.assign([(topic, 0)])
        with pytest.raises(ClientUsageError, match="unsubscribe"):
            consumer.subscribe(topic)
        await consumer.unsubscribe()
        consumer.subscribe(topic)
        with pytest.raises(ClientUsageError, match="unsubscribe"):
            consumer.assign([(topic, 0)])


async def test_a_topic_that_cannot_be_is_an_error(client):
    async with client.consumer("no/topic") as consumer:
        with pytest.raises(InvalidTopicException, match="no/topic"):
            await anext(consumer)


async def test_a_broker_that_dies_is_waited_for(start_broker, topic):
    broker = start_broker()
    async with trioq.connect(broker.address) as client:
        await create(client, topic)
        await write(client, topic, [b"before"])
        async with client.consumer(topic, auto_offset_reset="earliest") as consumer:
            assert (await anext(consumer)).value == b"before"
            broker.kill9()
            assert await nothing_comes(consumer)
            broker.start()
            async with trioq.connect(broker.address) as other:
                await other.cluster.metadata.topic(topic)
                await write(other, topic, [b"after"])
            with anyio.fail_after(60):
                assert (await anext(consumer)).value == b"after"
