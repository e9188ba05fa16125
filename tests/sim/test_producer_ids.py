"""Blocks of producer ids, taken by several brokers from a store that fails as told."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.sim.group_world import FaultyStore
from trioq.controller.producer_ids import BLOCK_LENGTH, ProducerIds
from trioq.metastore import store
from trioq.metastore.bootstrap import ensure_cluster

fates = st.lists(st.sampled_from(["done", "unavailable", "lost", "late", "applied"]), max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(fates, min_size=2, max_size=3), st.integers(1, 2 * BLOCK_LENGTH), st.booleans())
def test_safety_4_no_id_is_given_twice_whatever_becomes_of_the_writes(
    histories, count, with_reserve
):
    """A block of unknown outcome is thrown away: it may be another broker's by now."""

    async def live() -> None:
        root = FaultyStore()
        await ensure_cluster(root, slots=1)
        given_out: list[int] = []

        async def take(metastore: FaultyStore) -> None:
            ids = ProducerIds(metastore)
            async with trio.open_nursery() as broker_nursery:
                if with_reserve:
                    broker_nursery.start_soon(ids.keep_reserve)
                for _ in range(count):
                    try:
                        given_out.append(await ids.next_producer_id())
                    except store.MetastoreUnavailable:
                        await trio.sleep(0.01)
                broker_nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for history in histories:
                metastore = FaultyStore(root)
                metastore.fates.extend(history)
                nursery.start_soon(take, metastore)
        assert len(set(given_out)) == len(given_out)
        assert len(given_out) >= len(histories) * (count - 6)

    trio.run(live, clock=MockClock(autojump_threshold=0))


def test_a_store_that_does_not_answer_is_not_waited_for_for_ever():
    async def live() -> None:
        metastore = FaultyStore()
        await ensure_cluster(metastore, slots=1)
        ids = ProducerIds(metastore, patience_s=5)
        first = await ids.next_producer_id()
        metastore.delay_s = 60
        assert await ids.next_producer_id() == first + 1, "of the block that is there"
        ids.raise_above(first + BLOCK_LENGTH)
        with pytest.raises(store.MetastoreUnavailable, match="5 s"):
            await ids.next_producer_id()
        metastore.delay_s = 0
        assert await ids.next_producer_id() > first + BLOCK_LENGTH

    trio.run(live, clock=MockClock(autojump_threshold=0))


def test_producers_can_begin_while_the_store_does_not_answer():
    async def live() -> None:
        metastore = FaultyStore()
        await ensure_cluster(metastore, slots=1)
        ids = ProducerIds(metastore, patience_s=5)
        async with trio.open_nursery() as broker_nursery:
            metastore.fates.append("unavailable")
            broker_nursery.start_soon(ids.keep_reserve)
            await trio.sleep(10)
            metastore.delay_s = 60
            first = await ids.next_producer_id()
            rest = [await ids.next_producer_id() for _ in range(BLOCK_LENGTH - 1)]
            assert rest == list(range(first + 1, first + BLOCK_LENGTH))
            with pytest.raises(store.MetastoreUnavailable):
                await ids.next_producer_id()
            metastore.delay_s = 0
            await trio.sleep(120)
            metastore.delay_s = 60
            assert await ids.next_producer_id() >= first + BLOCK_LENGTH
            broker_nursery.cancel_scope.cancel()

    trio.run(live, clock=MockClock(autojump_threshold=0))
