"""The leader's changes of in-sync replicas, with a metastore that loses answers."""

from __future__ import annotations

import errno
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.group_world import FaultyStore, TrioClock
from tests.unit.storage_support import NOW_MS, TOPIC_ID, batch, open_dirs
from trioq.config import BrokerConfig, TopicConfig
from trioq.controller.election_state import ElectionRules, LiveBroker, review
from trioq.errors import ReplicaNotAvailable
from trioq.metastore import feed, layout, store
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.feed import ImageFollower
from trioq.metastore.layout import BrokerRegistration, PartitionState, TopicNode
from trioq.replication.isr_keeper import GATHER_JOINS_S, IsrKeeper
from trioq.replication.isr_state import REJOIN_S, with_failed_log
from trioq.replication.partition import Partition
from trioq.replication.partitions import Partitions
from trioq.storage.memory_disk import MemoryDisk

LAG_S = 30


@dataclass
class World:
    """Broker 1 leads every partition; 2 and 3 are other replicas, that fetch as they are told."""

    metastore: FaultyStore
    disk: MemoryDisk
    follower: ImageFollower
    partitions: Partitions
    keeper: IsrKeeper
    end_pass: Callable[[], bool]

    def partition(self, number: int = 0) -> Partition:
        found = self.partitions.find("orders", number)
        assert found is not None
        return found

    def append(self, number: int = 0) -> None:
        data = batch(b"a")
        partition = self.partition(number)
        header = partition.check_batch(memoryview(data))
        partition.append_as_leader(memoryview(data), header, acks=1, now_ms=NOW_MS)
        self.end_pass()

    def fetch(
        self,
        replica: int,
        number: int = 0,
        *,
        end: int | None = None,
        epoch: int = 0,
        log_start_offset: int = 0,
    ):
        partition = self.partition(number)
        offset = partition.log.written_end_offset if end is None else end
        found = partition.read_as_replica(
            replica,
            epoch or 10 * replica,
            offset,
            1 << 20,
            min_one_batch=True,
            current_leader_epoch=-1,
            last_fetched_epoch=-1,
            now_s=trio.current_time(),
            log_start_offset=log_start_offset,
        )
        if found.region is not None:
            found.region.file.release()
        return found

    async def stored(self, number: int = 0) -> PartitionState:
        node = await self.metastore.get(layout.partition_path(TOPIC_ID, number))
        return PartitionState.of(layout.decode_json("", node.value), node.version)

    async def write_as_controller(self, number: int = 0, **changes: object) -> None:
        before = await self.stored(number)
        path = layout.partition_path(TOPIC_ID, number)
        value = before._replace(**changes).encode()
        await self.metastore.multi(
            feed.with_entry([store.Set(path, value, before.partition_epoch)])
        )


@asynccontextmanager
async def world(
    isr: tuple[int, ...] = (1, 2, 3),
    *,
    partitions: int = 1,
    min_insync: int = 2,
    gate: ShutGate | None = None,
) -> AsyncIterator[World]:
    metastore, disk, clock = FaultyStore(), MemoryDisk(), TrioClock()
    await ensure_cluster(metastore)
    for broker in (1, 2, 3):
        registration = BrokerRegistration(broker, 10 * broker, None, {}, (), "", "", True)
        await metastore.create(registration.path(), registration.encode(), ephemeral=True)
    topic = TopicNode("orders", partitions, config={"min.insync.replicas": str(min_insync)})
    await metastore.create(layout.topic_path(TOPIC_ID), topic.encode())
    state = PartitionState(1, 5, isr, tuple(10 * one for one in isr), (1, 2, 3))
    for number in range(partitions):
        await metastore.create(layout.partition_path(TOPIC_ID, number), state.encode())
    config = BrokerConfig.from_mapping(
        {"node.id": "1", "replica.lag.time.max.ms": str(LAG_S * 1000)}
    )
    dirs = open_dirs(disk, clock=clock)
    hosted = Partitions(dirs, config)
    hosted.use_broker_epoch(10)
    follower = ImageFollower(metastore, on_swap=hosted.apply_image)
    await follower.load()
    keeper = IsrKeeper(metastore, hosted, lambda: follower.image, clock, lambda: config, gate)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        yield World(metastore, disk, follower, hosted, keeper, dirs.end_pass)
        nursery.cancel_scope.cancel()
    dirs.close(clean=False)


def in_virtual_time(test: Callable[..., object], *args: object) -> None:
    trio.run(partial(test, *args), clock=trio.testing.MockClock(autojump_threshold=0))


def test_rule_8_who_lags_leaves_and_then_the_high_watermark_moves() -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            w.fetch(2)
            assert w.partition().log.high_watermark == 0
            await trio.sleep(LAG_S - 1)
            assert (await w.stored()).isr == (1, 2, 3)
            w.fetch(2)
            await trio.sleep(3)
            state = await w.stored()
            assert (state.isr, state.broker_epochs, state.elr) == ((1, 2), (10, 20), ())
            assert w.partition().log.high_watermark == 1
            assert w.keeper.counters.shrinks == 1
            await w.follower.catch_up()
            assert w.follower.image.topics["orders"].partitions[0] == state

    in_virtual_time(story)


def test_rule_9_who_leaves_too_small_an_isr_is_electable_and_the_high_watermark_rests() -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            await trio.sleep(LAG_S + 2)
            state = await w.stored()
            assert (state.isr, state.elr, state.elr_epochs) == ((1,), (2, 3), (20, 30))
            assert w.partition().log.high_watermark == 0
            w.fetch(3)
            await trio.sleep(0.2)
            state = await w.stored()
            assert (state.isr, state.broker_epochs, state.elr) == ((1, 3), (10, 30), ())
            assert w.partition().log.high_watermark == 1

    in_virtual_time(story)


def test_rule_8_who_is_behind_again_before_the_change_is_proposed_does_not_join() -> None:
    async def story() -> None:
        async with world((1,), min_insync=1) as w:
            write_batch = w.keeper._write_batch

            async def write_late(batch: object, limit: object) -> None:
                w.keeper._write_batch = write_batch
                w.append()  # which the leader, alone in sync, commits at once
                await write_batch(batch, limit)

            w.keeper._write_batch = write_late
            w.append()
            w.fetch(2)
            await trio.sleep(0.2)
            assert w.partition().log.high_watermark == 2
            assert (await w.stored()).isr == (1,)
            w.fetch(2)
            await trio.sleep(0.2)
            assert (await w.stored()).isr == (1, 2)

    in_virtual_time(story)


def test_rule_9_who_was_electable_is_not_any_more_when_fewer_suffice() -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            await trio.sleep(LAG_S + 2)
            assert (await w.stored()).elr == (2, 3)
            partition = w.partition()
            broker = BrokerConfig.from_mapping({"node.id": "1"})
            partition.apply_config(TopicConfig.of(broker, {"min.insync.replicas": "1"}), broker)
            assert partition.log.high_watermark == 0
            await trio.sleep(1)
            state = await w.stored()
            assert (state.isr, state.elr) == ((1,), ())
            assert partition.log.high_watermark == 1

    in_virtual_time(story)


def test_rule_9_who_lacks_what_it_held_is_not_elected_for_it_and_is_told_when_to_begin_again() -> (
    None
):
    async def story() -> None:
        async with world() as w:
            w.append()
            w.fetch(2)
            w.fetch(3)
            assert w.partition().log.high_watermark == 1
            w.append()
            w.fetch(2)
            with pytest.raises(ReplicaNotAvailable):
                w.fetch(3, end=0, log_start_offset=1)  # its files are damaged
            await trio.sleep(1)
            state = await w.stored()
            assert (state.isr, state.elr) == ((1, 2), ())
            assert w.partition().log.high_watermark == 2
            assert w.fetch(3, end=0, log_start_offset=1).region is not None
            await trio.sleep(LAG_S + 2)
            assert (await w.stored()).isr == (1, 2)
            w.fetch(3)
            await trio.sleep(REJOIN_S + 1)
            assert (await w.stored()).isr == (1, 2, 3)
            w.append()
            await trio.sleep(LAG_S + 2)
            state = await w.stored()
            assert (state.isr, state.elr_epochs) == ((1,), (20, 30))
            with pytest.raises(ReplicaNotAvailable):
                w.fetch(3, end=0, log_start_offset=1)
            await trio.sleep(1)
            state = await w.stored()
            assert (state.isr, state.elr, state.elr_epochs) == ((1,), (2, 3), (20, 28))
            w.fetch(3, end=0, log_start_offset=1)
            rules = ElectionRules(min_insync=2)
            for is_clean in (True, False):
                for epoch in (30, 31):
                    live = {3: LiveBroker(epoch, is_clean)}
                    assert review(state, live, rules).leader == -1
            assert review(state, {2: LiveBroker(20, True)}, rules).leader == 2

    in_virtual_time(story)


def test_rule_8_who_has_caught_up_joins_within_a_moment() -> None:
    async def story() -> None:
        async with world((1,), min_insync=1) as w:
            w.append()
            assert w.partition().log.high_watermark == 1
            w.fetch(2, end=0)
            await trio.sleep(5)
            assert (await w.stored()).isr == (1,)
            w.fetch(2)
            await trio.sleep(0.2)
            assert (await w.stored()).isr == (1, 2)
            assert w.partition().isr.committed == {1, 2}
            assert w.keeper.counters.expands == 1

    in_virtual_time(story)


def test_rule_6_a_replica_that_fetches_in_another_epoch_than_it_is_registered_in_does_not_join(
) -> None:  # fmt: skip
    async def story() -> None:
        async with world((1,), min_insync=1) as w:
            w.fetch(2, epoch=21)
            await trio.sleep(5)
            assert (await w.stored()).isr == (1,)
            assert w.partition().isr.is_alone

    in_virtual_time(story)


@pytest.mark.parametrize("fate", ["applied", "lost", "late"])
def test_rule_8_an_unknown_outcome_counts_both_until_it_is_known(fate: str) -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            w.fetch(2)
            await trio.sleep(LAG_S - 5)
            w.fetch(2)
            w.metastore.fates.extend([fate] if fate == "applied" else [fate, fate])
            await trio.sleep(8)
            assert not w.metastore.fates
            assert (await w.stored()).isr == (1, 2)
            assert w.partition().isr.committed == {1, 2}
            assert not w.partition().isr.is_undecided
            assert w.partition().log.high_watermark == 1

    in_virtual_time(story)


def test_changes_wait_while_the_metastore_does_not_answer() -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            w.metastore.is_down = True
            await trio.sleep(2 * LAG_S)
            assert w.partition().isr.committed == {1, 2, 3}
            assert not w.partition().isr.is_undecided
            assert w.keeper.counters.failed_writes < 40
            w.metastore.is_down = False
            await trio.sleep(6)
            assert (await w.stored()).isr == (1,)

    in_virtual_time(story)


def test_rule_17_a_batch_that_meets_a_newer_state_is_written_without_it() -> None:
    async def story() -> None:
        async with world(partitions=5) as w:
            for number in range(5):
                w.append(number)
                w.fetch(2, number)
            await trio.sleep(LAG_S - 1)
            for number in range(5):
                w.fetch(2, number)
            await w.write_as_controller(3, leader=2, leader_epoch=6)
            await trio.sleep(3)
            assert [(await w.stored(n)).isr for n in range(5)] == [
                (1, 2), (1, 2), (1, 2), (1, 2, 3), (1, 2),
            ]  # fmt: skip
            # It was read back: the new leader is known before the feed tells of it.
            assert not w.partition(3).is_leader
            assert w.partition(3).is_follower
            writes = [len(one) for one in w.metastore.writes if isinstance(one[0], store.Set)]
            assert writes[-1] == 5

    in_virtual_time(story)


def test_a_node_that_cannot_be_read_stops_no_other_partition() -> None:
    async def story() -> None:
        async with world(partitions=2) as w:
            await w.metastore.set(layout.partition_path(TOPIC_ID, 0), b"{", 0)
            for number in range(2):
                w.append(number)
                w.fetch(2, number)
            await trio.sleep(LAG_S - 1)
            for number in range(2):
                w.fetch(2, number)
            await trio.sleep(3)
            assert (await w.stored(1)).isr == (1, 2)
            assert w.partition(0).isr.committed == {1, 2, 3}
            assert w.partition(0).log.high_watermark == 0

    in_virtual_time(story)


def test_a_leader_whose_log_fails_says_so_at_once() -> None:
    async def story() -> None:
        async with world() as w:
            before = await w.stored()
            w.disk.inject("pwritev", errno.EIO)
            w.append()
            assert not w.partition().is_leader
            await trio.sleep(2 * GATHER_JOINS_S)
            state = await w.stored()
            assert state == with_failed_log(before, 1, 10)._replace(partition_epoch=1)
            await trio.sleep(2)
            assert await w.stored() == state, "it is said once"
            assert w.keeper.counters.failed_logs == 1

    in_virtual_time(story)


def test_a_follower_whose_log_fails_says_so_and_again_when_it_has_registered_anew() -> None:
    async def story() -> None:
        async with world(partitions=2) as w:
            await w.write_as_controller(leader=2, leader_epoch=6)
            await w.follower.catch_up()
            w.disk.inject("pwritev", errno.EIO)
            w.append(1)
            await trio.sleep(2 * GATHER_JOINS_S)
            assert (await w.stored()).failed_logs == {1: 10}
            w.partitions.use_broker_epoch(11)
            await trio.sleep(2 * GATHER_JOINS_S)
            assert [(await w.stored(one)).failed_logs for one in (0, 1)] == [{1: 11}, {1: 11}]
            assert w.keeper.counters.failed_logs == 4

    in_virtual_time(story)


def test_a_replica_that_no_directory_can_take_is_said_to_have_failed() -> None:
    async def story() -> None:
        async with world() as w:
            w.disk.inject("pwritev", errno.EIO)
            w.append()
            state = PartitionState(1, 0, (1, 2), (10, 20), (1, 2))
            topic = TopicNode("late", 2)
            other = uuid.UUID(int=77)
            await w.metastore.multi(
                feed.with_entry(
                    [
                        store.Create(layout.topic_path(other), topic.encode()),
                        store.Create(layout.partition_path(other, 0), state.encode()),
                        store.Create(layout.partition_path(other, 1), state.encode()),
                    ]
                )
            )
            await w.follower.catch_up()
            assert w.partitions.find("late", 0) is None
            assert len(w.partitions.unhosted) == 2
            await trio.sleep(1)
            path = layout.partition_path(other, 1)
            said = layout.decode_node(
                path, (await w.metastore.get(path)).value, lambda data: PartitionState.of(data, 0)
            )
            assert said == with_failed_log(state, 1, 10)
            await trio.sleep(2)
            assert (await w.metastore.get(path)).version == 1
            await w.follower.catch_up()
            await w.metastore.multi(
                feed.with_entry(
                    [
                        store.Delete(layout.partition_path(other, 0), 1),
                        store.Delete(path, 1),
                        store.Delete(layout.topic_path(other), 0),
                    ]
                )
            )
            await w.follower.catch_up()
            assert not w.partitions.unhosted

    in_virtual_time(story)


def test_who_said_that_its_log_failed_leaves_although_it_does_not_lag() -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            w.fetch(2)
            w.fetch(3)
            failed = with_failed_log(await w.stored(), 3, 30)
            await w.write_as_controller(failed=failed.failed, failed_epochs=failed.failed_epochs)
            await w.follower.catch_up()
            await trio.sleep(1)
            state = await w.stored()
            assert (state.isr, state.failed_logs) == ((1, 2), {3: 30})
            w.fetch(3)
            await trio.sleep(REJOIN_S + 1)
            assert (await w.stored()).isr == (1, 2)

    in_virtual_time(story)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "fetch", "fetch", "wait", "controller"]),
        st.sampled_from([2, 3]),
        st.sampled_from(["done", "done", "lost", "late", "applied", "unavailable"]),
        st.sampled_from([0.001, 0.021, 0.021, 0.05, 0.2, 20.0]),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_rule_8_all_below_the_high_watermark_is_held_by_every_member_in_the_metastore(
    steps: list[tuple[str, int, str, float]],
) -> None:
    async def history() -> None:
        async with world((1,), min_insync=1) as w:
            held = {2: 0, 3: 0}
            for what, replica, fate, wait_s in steps:
                w.metastore.fates.append(fate)
                if not w.partition().is_leader:
                    break
                if what == "append":
                    w.append()
                elif what == "fetch":
                    held[replica] = w.partition().log.written_end_offset
                    w.fetch(replica)
                elif what == "controller" and fate == "done":
                    w.metastore.fates.clear()
                    with suppress(store.VersionConflict):
                        await w.write_as_controller()
                    await w.follower.catch_up()
                await trio.sleep(wait_s)
                w.append()
                members = (await w.stored()).isr
                high_watermark = w.partition().log.high_watermark
                assert all(held[one] >= high_watermark for one in members if one != 1)
            w.metastore.fates.clear()
            await trio.sleep(LAG_S + 15)
            assert not w.partition().isr.is_undecided
            assert set((await w.stored()).isr) == w.partition().isr.committed

    in_virtual_time(history)


class ShutGate:
    """A gate that the test opens; as after a gap of the loop."""

    def __init__(self) -> None:
        self.gaps = 0
        self._open = trio.Event()
        self._open.set()

    def shut(self) -> None:
        self.gaps += 1
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    def is_shut(self, now_s: float) -> bool:
        assert now_s >= 0
        return not self._open.is_set()

    async def opened(self) -> None:
        await self._open.wait()


def stand_still(seconds: float, gate: ShutGate | None = None) -> None:
    """Nothing of this process runs for so long, as after SIGSTOP."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)
    if gate is not None:
        gate.shut()


@pytest.mark.parametrize("seconds", [0.6 * LAG_S, 2 * LAG_S])
def test_rule_12_a_leader_that_stood_still_holds_nothing_against_its_followers(
    seconds: float,
) -> None:
    async def story() -> None:
        async with world() as w:
            w.append()
            w.fetch(2)
            w.fetch(3)
            await trio.sleep(0.6 * LAG_S)
            w.append()  # which nobody has fetched yet
            stand_still(seconds)
            await trio.sleep(LAG_S - 2)
            assert (await w.stored()).isr == (1, 2, 3)
            w.fetch(2)
            await trio.sleep(4)
            assert (await w.stored()).isr == (1, 2), "who is silent still has had its time"

    in_virtual_time(story)


def test_rule_12_nothing_is_changed_while_it_is_not_known_what_happened_meanwhile() -> None:
    async def story() -> None:
        gate = ShutGate()
        async with world((1, 2), gate=gate) as w:
            w.append()
            stand_still(LAG_S / 3, gate)
            w.fetch(3)  # it may join, were it not for the gate
            await trio.sleep(2 * LAG_S)
            assert (await w.stored()).isr == (1, 2)
            gate.open()
            await trio.sleep(LAG_S - 1)
            assert (await w.stored()).isr == (1, 2, 3)
            await trio.sleep(2)
            assert (await w.stored()).isr == (1, 3)

    in_virtual_time(story)


def test_rule_12_a_gap_while_something_was_written_counts_too() -> None:
    async def story() -> None:
        gate = ShutGate()
        async with world(gate=gate) as w:
            write_all = w.keeper._write_all

            async def write_slowly(changes: object) -> None:
                w.keeper._write_all = write_all
                await write_all(changes)
                w.append()
                stand_still(2 * LAG_S, gate)
                gate.open()  # before the keeper looks

            w.append()
            w.fetch(2)
            await trio.sleep(LAG_S - 1)
            w.append()
            w.fetch(2)
            w.keeper._write_all = write_slowly
            await trio.sleep(2)
            await trio.sleep(LAG_S - 2)
            assert (await w.stored()).isr == (1, 2), "only who had lagged before has left"
            await trio.sleep(4)
            assert (await w.stored()).isr == (1,)

    in_virtual_time(story)
