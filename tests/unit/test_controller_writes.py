"""Producer ids and the write chain, when writes are lost, doubtful or contended."""

from __future__ import annotations

import pytest
import trio

from trioq.controller.producer_ids import BLOCK_LENGTH, ProducerIds
from trioq.controller.takeover import take_over_alone
from trioq.controller.write_chain import WriteChain
from trioq.errors import NotController
from trioq.metastore import layout, store
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.embedded import open_embedded
from trioq.metastore.store import Create, Set

pytestmark = pytest.mark.trio


@pytest.fixture
async def metastore(tmp_path):
    async with open_embedded(tmp_path / "metastore.sqlite") as opened:
        await ensure_cluster(opened)
        yield opened


class Doubtful:
    """A store whose next multis answer OutcomeUnknown, applied or not as told."""

    def __init__(self, metastore, *applied: bool) -> None:
        self._metastore = metastore
        self._applied = list(applied)

    def __getattr__(self, name):
        return getattr(self._metastore, name)

    async def multi(self, operations):
        if not self._applied:
            return await self._metastore.multi(operations)
        if self._applied.pop(0):
            await self._metastore.multi(operations)
        raise store.OutcomeUnknown("connection lost")

    async def set(self, path, value, version):
        (result,) = await self.multi([Set(path, value, version)])
        return result


async def test_producer_ids_are_dense_in_blocks_and_never_shared(metastore):
    first, second = ProducerIds(metastore), ProducerIds(metastore)
    assert [await first.next_producer_id() for _ in range(3)] == [0, 1, 2]
    assert await second.next_producer_id() == BLOCK_LENGTH
    rest = [await first.next_producer_id() for _ in range(BLOCK_LENGTH - 2)]
    assert rest[-2:] == [BLOCK_LENGTH - 1, 2 * BLOCK_LENGTH]


async def test_concurrent_callers_get_distinct_ids(metastore):
    allocators = [ProducerIds(metastore) for _ in range(3)]
    ids = []

    async def take(allocator):
        for _ in range(500):
            ids.append(await allocator.next_producer_id())

    async with trio.open_nursery() as nursery:
        for allocator in allocators * 3:
            nursery.start_soon(take, allocator)
    assert len(set(ids)) == len(ids) == 4500


async def test_producer_ids_rise_above_those_seen(metastore):
    allocator = ProducerIds(metastore)
    allocator.raise_above(5)
    assert await allocator.next_producer_id() == 6
    allocator.raise_above(3)
    assert await allocator.next_producer_id() == 7
    allocator.raise_above(12_345)
    assert await allocator.next_producer_id() == 12_346
    assert await ProducerIds(metastore).next_producer_id() == 12_346 + BLOCK_LENGTH


async def test_producer_ids_are_not_repeated_after_a_restart(tmp_path):
    path = tmp_path / "metastore.sqlite"
    seen = set()
    for _ in range(3):
        async with open_embedded(path) as metastore:
            await ensure_cluster(metastore)
            seen.add(await ProducerIds(metastore).next_producer_id())
    assert len(seen) == 3


@pytest.mark.parametrize("applied", [True, False])
async def test_a_block_of_unknown_outcome_is_thrown_away(metastore, applied):
    allocator = ProducerIds(Doubtful(metastore, applied))
    expected = BLOCK_LENGTH if applied else 0
    assert await allocator.next_producer_id() == expected


@pytest.fixture
async def epoch(metastore):
    return (await take_over_alone(metastore, 1, 0)).controller_epoch


async def test_a_doubtful_write_is_read_back(metastore, epoch):
    chain = WriteChain(Doubtful(metastore, True, False), epoch)
    await chain.write([Create("/a", b"")])
    with pytest.raises(store.MetastoreUnavailable):
        await chain.write([Create("/b", b"")])
    await chain.write([Create("/c", b"")])
    assert await metastore.get_many(["/a", "/b", "/c"]) == [(b"", 0), None, (b"", 0)]


async def test_a_position_read_back_includes_the_write(metastore, epoch):
    chain = WriteChain(Doubtful(metastore, True), epoch)
    path = layout.BrokerConfig.path("")
    position = await chain.write([Create(path, b"{}")])
    assert position >= 0
    assert await chain.write([Set(path, b"{}", 0)]) > position


async def test_a_lost_write_that_comes_late_fails(metastore, epoch):
    lost = []

    class Delaying(Doubtful):
        async def multi(self, operations):
            if lost:
                return await metastore.multi(operations)
            lost.append(operations)
            raise store.OutcomeUnknown("connection lost")

    chain = WriteChain(Delaying(metastore), epoch)
    with pytest.raises(store.MetastoreUnavailable):
        await chain.write([Create("/lost", b"")])
    await chain.write([Create("/next", b"")])
    with pytest.raises(store.VersionConflict) as caught:
        await metastore.multi(lost[0])
    assert caught.value.path == layout.CONTROLLER_SEQ
    assert await metastore.get_many(["/lost"]) == [None]


async def test_a_refused_write_names_its_own_operation(metastore, epoch):
    chain = WriteChain(metastore, epoch)
    with pytest.raises(store.NoNode) as caught:
        await chain.write([Create("/a", b""), Create("/x/y", b"")])
    assert caught.value.index == 1
    await chain.write([Create("/a", b"")])


async def test_a_cancelled_write_is_found_out_by_the_next(metastore, epoch):
    chain = WriteChain(metastore, epoch)
    await chain.write([Create("/a", b"")])
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.write, [Create(f"/b{number}", b"")])
                for _ in range(number % 4):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await chain.write([Create(f"/c{number}", b"")])


async def test_chains_of_one_term_take_turns(metastore, epoch):
    chains = [WriteChain(metastore, epoch) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(chains[number % 3].write, [Create(f"/n{number}", b"")])
    assert len([name for name in await metastore.children("/") if name.startswith("n")]) == 30


async def test_a_new_term_ends_the_old_one(metastore):
    old = await take_over_alone(metastore, 1, 0)
    await metastore.delete(layout.CONTROLLER_LEADER, 0)
    new = await take_over_alone(metastore, 1, 1)
    assert new.controller_epoch == old.controller_epoch + 1
    with pytest.raises(NotController):
        await old.write([Create("/a", b"")])
    await new.write([Create("/a", b"")])


async def test_the_chain_trims_the_feed(metastore, epoch, monkeypatch):
    monkeypatch.setattr("trioq.metastore.feed.trim.__kwdefaults__", {"fence": (), "kept": 20})
    chain = WriteChain(metastore, epoch)
    path = layout.BrokerConfig.path("")
    await chain.write([Create(path, b"{}")])
    for version in range(205):
        await chain.write([Set(path, b"{}", version)])
    assert 20 <= len(await metastore.children(layout.FEED_ENTRIES)) <= 130


async def test_a_missing_partition_state_stops_the_start(metastore):
    node = layout.TopicNode("t", 2)
    path = "/topics/ids/01/" + "0" * 31 + "1"
    await metastore.create(path, node.encode())
    with pytest.raises(layout.CorruptNode, match=f"{path}/0"):
        await take_over_alone(metastore, 1, 0)
