"""Consumers in groups: shared out, taken over, committed; by both protocols."""

from __future__ import annotations

import contextlib
import math

import anyio
import pytest

import trioq
from tests.client.written import create, write
from tests.e2e.conftest import GROUPS
from trioq.errors import CommitFailed
from trioq.types import TopicPartition

pytestmark = pytest.mark.anyio

QUICK = {"heartbeat_interval_ms": 100, "session_timeout_ms": 6000, "auto_offset_reset": "earliest"}
KINDS = [
    pytest.param({}, id="range"),
    pytest.param({"assignors": ["sticky"]}, id="sticky"),
    pytest.param({"assignors": ["cooperative-sticky"]}, id="cooperative"),
    pytest.param({"group_protocol": "consumer"}, id="consumer"),
]
BACKENDS = {
    "trio": ("trio", {}),
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}


def in_pairs(name, *pairs):
    """Backends and values of `name` in these pairs, instead of each with each."""
    values = [
        pytest.param(BACKENDS[backend], *value.values, id=f"{backend}-{value.id}")
        for backend, value in pairs
    ]
    return pytest.mark.parametrize(("anyio_backend", name), values, indirect=["anyio_backend"])


EVERY_KIND = [
    *(("trio", kind) for kind in KINDS),
    ("asyncio", KINDS[0]),
    ("asyncio", KINDS[3]),
    ("uvloop", KINDS[2]),
]
PARTITIONS = 4


@pytest.fixture
async def client(group_broker):
    async with trioq.connect(group_broker.address, metadata_max_age_ms=500) as client:
        yield client


async def take(consumer, count):
    records = []
    with anyio.fail_after(60):
        while len(records) < count:
            records.append(await anext(consumer))
    return records


async def idle(consumer):
    """Keep asking, until cancelled; records that come are an error."""
    record = await anext(consumer)
    raise AssertionError(f"{record} came")


async def assigned(consumers, count=PARTITIONS):
    """Wait until the consumers share `count` partitions evenly, asking for records meanwhile."""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for consumer in consumers:
                tasks.start_soon(idle, consumer)
            while True:
                parts = [consumer.assignment for consumer in consumers]
                whole = sum(map(len, parts)) == len(frozenset().union(*parts)) == count
                if whole and max(map(len, parts)) <= math.ceil(count / len(consumers)):
                    tasks.cancel_scope.cancel()
                    return
                await anyio.sleep(0.01)


@in_pairs("kind", *EVERY_KIND)
async def test_members_share_and_take_over(client, topic, kind):
    await create(client, topic, partitions=PARTITIONS)
    seen = []

    async def on_assigned(partitions):
        seen.append(("assigned", len(partitions)))

    async def on_revoked(partitions):
        seen.append(("revoked", len(partitions)))

    options = {"group": topic, **QUICK, **kind}
    listeners = {"on_assigned": on_assigned, "on_revoked": on_revoked}
    async with client.consumer(topic, **options, **listeners) as first:
        await assigned([first])
        async with client.consumer(topic, **options) as second:
            await assigned([first, second])
            for number in range(PARTITIONS):
                await write(client, topic, [b"%d" % number], partition=number)
            mine = await take(first, 2)
            others = await take(second, 2)
            assert sorted(record.partition for record in mine + others) == [0, 1, 2, 3]
        await assigned([first])
        for number in range(PARTITIONS):
            await write(client, topic, [b"more"], partition=number)
        records = await take(first, PARTITIONS)
        assert {(record.partition, record.value) for record in records} == {
            (number, b"more") for number in range(PARTITIONS)
        }
    if kind.get("assignors") == ["cooperative-sticky"] or "group_protocol" in kind:
        assert ("revoked", 2) in seen
    else:
        assert ("revoked", 4) in seen
    assert seen[-1] == ("revoked", PARTITIONS)


@in_pairs("kind", ("trio", KINDS[0]), ("asyncio", KINDS[0]), ("trio", KINDS[3]))
@pytest.mark.parametrize("mode", ["auto", "after_processing", "before_processing", "manual"])
async def test_what_is_committed_when(client, topic, kind, mode):
    await create(client, topic)
    place = TopicPartition(topic, 0)
    await write(client, topic, [b"0", b"1", b"2"])
    await write(client, topic, [b"3", b"4", b"5"])
    options = {"group": topic, "commit": mode, **QUICK, **kind}

    async def committed(consumer):
        return (await consumer.committed([place])).get(place, (None,))[0]

    with contextlib.suppress(ZeroDivisionError):
        async with client.consumer(topic, **options) as consumer:
            await take(consumer, 2)
            if mode == "manual":
                assert await committed(consumer) is None
                await consumer.commit()
                assert await committed(consumer) == 2
            elif mode == "before_processing":
                assert await committed(consumer) == 3
            elif mode == "after_processing":
                while await committed(consumer) != 1:
                    await anyio.sleep(0.01)
            raise ZeroDivisionError
    expected = {"auto": 1, "after_processing": 1, "before_processing": 3, "manual": 2}[mode]
    async with client.consumer(topic, **options) as consumer:
        (record,) = await take(consumer, 1)
        assert record.offset == expected
        with contextlib.suppress(CommitFailed):
            await consumer.commit({place: 0})
        assert await committed(consumer) == 0
        await take(consumer, 1)
    async with client.consumer(topic, **options) as consumer:
        (record,) = await take(consumer, 1)
        assert record.offset == {"before_processing": 6, "manual": 0}.get(mode, expected + 2) % 6


async def test_commits_happen_by_time(client, topic):
    await create(client, topic)
    place = TopicPartition(topic, 0)
    await write(client, topic, [b"0", b"1"])
    options = {"group": topic, "auto_commit_interval_ms": 20, **QUICK}
    async with client.consumer(topic, **options) as consumer:
        await take(consumer, 2)
        with anyio.fail_after(30):
            while not consumer.statistics().commits:
                await anyio.sleep(0.01)
        assert (await consumer.committed([place]))[place].offset in {0, 1}
        with anyio.fail_after(30):
            while (await consumer.committed([place]))[place].offset != 1:
                await anyio.sleep(0.01)


@in_pairs("kind", *EVERY_KIND)
async def test_a_rebalance_waits_for_the_record_in_hand(client, topic, kind):
    await create(client, topic, partitions=PARTITIONS)
    for number in range(PARTITIONS):
        await write(client, topic, [b"0", b"1"], partition=number)
    options = {"group": topic, **QUICK, **kind}
    revoked = []

    async def on_revoked(partitions):
        revoked.append(partitions)

    async with client.consumer(topic, **options, on_revoked=on_revoked) as first:
        held = await anext(first)
        async with client.consumer(topic, **options) as second:
            with anyio.move_on_after(0.7):
                await idle(second)
            assert revoked == []
            assert TopicPartition(held.topic, held.partition) in first.assignment
            counts = {}
            async with anyio.create_task_group() as tasks:

                async def count(consumer):
                    async for record in consumer:
                        place = record.partition, record.offset
                        counts[place] = counts.get(place, 0) + 1
                        if len(counts) == 2 * PARTITIONS - 1:
                            tasks.cancel_scope.cancel()

                with anyio.fail_after(60):
                    tasks.start_soon(count, first)
                    tasks.start_soon(count, second)
            assert len(revoked) >= 1
            assert (held.partition, held.offset) not in counts
            assert set(counts.values()) == {1}


@in_pairs("kind", ("trio", KINDS[0]), ("asyncio", KINDS[2]), ("uvloop", KINDS[3]))
async def test_slower_than_the_poll_interval(client, topic, kind):
    await create(client, topic)
    await write(client, topic, [b"0", b"1"])
    lost = []

    async def on_lost(partitions):
        lost.append(partitions)

    options = {"group": topic, **QUICK, **kind}
    async with client.consumer(topic, **options, max_poll_interval_ms=300, on_lost=on_lost) as slow:
        assert (await anext(slow)).offset == 0
        with anyio.fail_after(30):
            while not lost:
                await anyio.sleep(0.02)
        assert lost == [{TopicPartition(topic, 0)}]
        assert slow.assignment == frozenset()
        async with client.consumer(topic, **options) as other:
            (record,) = await take(other, 1)
            assert record.offset == 0, "it was not committed"
        assert (await take(slow, 1))[0].offset in {0, 1}


async def test_a_static_member_comes_back_without_a_rebalance(client, topic):
    await create(client, topic, partitions=2)
    options = {"group": topic, **QUICK}
    async with client.consumer(topic, **options, instance_id="one") as one:
        async with client.consumer(topic, **options, instance_id="two") as two:
            await assigned([one, two], 2)
            before = two.assignment
        rebalances = one.statistics().rebalances
        async with client.consumer(topic, **options, instance_id="two") as two:
            await assigned([two], 1)
            assert two.assignment == before
        assert one.statistics().rebalances == rebalances


async def test_fenced_by_its_own_name(client, topic):
    await create(client, topic)
    options = {"group": topic, **QUICK, "instance_id": "same"}
    async with client.consumer(topic, **options) as old:
        await assigned([old], 1)
        async with client.consumer(topic, **options) as new:
            await assigned([new], 1)
            with pytest.raises(trioq.KafkaError, match="FENCED_INSTANCE_ID"):
                with anyio.fail_after(30):
                    await anext(old)


async def test_unsubscribing_leaves_and_subscribing_joins(client, topic):
    await create(client, topic, partitions=2)
    await write(client, topic, [b"0"])
    options = {"group": topic, **QUICK}
    async with client.consumer(topic, **options) as one, client.consumer(**options) as two:
        await take(one, 1)
        await one.unsubscribe()
        assert one.assignment == frozenset()
        two.subscribe(topic)
        await assigned([two], 2)
        assert (await two.committed([(topic, 0)]))[TopicPartition(topic, 0)].offset == 1
        one.subscribe(topic)
        await assigned([one, two], 2)


async def test_partitions_that_are_added_are_taken_up(client, topic):
    from trioq.wire.messages.create_partitions import (
        CreatePartitionsRequest,
        CreatePartitionsRequestTopic,
        CreatePartitionsResponse,
    )

    await create(client, topic)
    async with client.consumer(topic, group=topic, **QUICK) as consumer:
        await assigned([consumer], 1)
        response = await client.cluster.call_controller(
            CreatePartitionsRequest(
                topics=[CreatePartitionsRequestTopic(name=topic, count=3, assignments=None)]
            ),
            CreatePartitionsResponse,
        )
        assert response.results[0].error_code == 0
        await assigned([consumer], 3)


async def test_a_pattern_in_a_group(client, topic):
    await create(client, f"{topic}-one")
    async with client.consumer(pattern=f"{topic}-.*", group=topic, **QUICK) as consumer:
        await assigned([consumer], 1)
        await create(client, f"{topic}-two", partitions=2)
        await assigned([consumer], 3)


async def test_seeking_in_the_listener(client, topic):
    await create(client, topic)
    await write(client, topic, [b"0", b"1", b"2"])

    async def on_assigned(partitions):
        for partition in partitions:
            consumer.seek(partition, 2)

    async with client.consumer(topic, group=topic, **QUICK, on_assigned=on_assigned) as consumer:
        assert (await take(consumer, 1))[0].offset == 2


async def test_an_exception_in_a_listener_ends_the_block(client, topic):
    await create(client, topic)

    async def on_assigned(partitions):
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with client.consumer(topic, group=topic, **QUICK, on_assigned=on_assigned) as one:
            await idle(one)
    assert caught.group_contains(ZeroDivisionError)


async def test_assigning_by_hand_uses_the_offsets_of_the_group(client, topic):
    await create(client, topic)
    await write(client, topic, [b"0", b"1", b"2"])
    for offset in (0, 1):
        async with client.consumer(group=topic, auto_offset_reset="earliest") as consumer:
            consumer.assign([(topic, 0)])
            assert (await take(consumer, 1))[0].offset == offset


async def test_cancelled_in_the_middle_it_leaves_the_group(client, topic):
    await create(client, topic)
    options = {"group": topic, **QUICK}
    with anyio.move_on_after(1):
        async with client.consumer(topic, **options) as consumer:
            await idle(consumer)
    async with client.consumer(topic, **options) as consumer:
        await assigned([consumer], 1)


async def test_the_coordinator_restarts(start_broker, topic):
    broker = start_broker(settings=GROUPS)
    async with trioq.connect(broker.address) as client:
        await create(client, topic)
        await write(client, topic, [b"0"])
        async with client.consumer(topic, group=topic, commit="manual", **QUICK) as consumer:
            await take(consumer, 1)
            await consumer.commit()
            broker.kill9()
            broker.start()
            async with trioq.connect(broker.address) as other:
                await other.cluster.metadata.topic(topic)
                await write(other, topic, [b"1"])
            (record,) = await take(consumer, 1)
            assert record.offset == 1
            with anyio.fail_after(30):
                while True:
                    try:
                        await consumer.commit()
                        break
                    except CommitFailed:
                        await anyio.sleep(0.05)
