"""Coordination slots over a real ZooKeeper: two brokers' groups, each with a session of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.sim.group_world import commit, fetched, join_alone, start_join
from tests.zookeeper.server import one_server
from trioq.clock import SystemClock
from trioq.cluster.pulse import Pulse
from trioq.config import BrokerConfig
from trioq.controller.producer_ids import BLOCK_LENGTH, ProducerIds
from trioq.controller.slot_plan import plan_slots, slot_writes
from trioq.coordinator.service import GroupService
from trioq.errors import CoordinatorLoadInProgress, NotCoordinator
from trioq.metastore import feed, layout, store
from trioq.metastore.bootstrap import ensure_cluster, register_broker
from trioq.metastore.feed import ImageFollower
from trioq.metastore.session import SessionState
from trioq.metastore.zookeeper import ZooKeeperMetastore, open_zookeeper
from trioq.metastore.zookeeper_address import ZooKeeperAddress
from trioq.server.deadlines import Deadlines

pytestmark = pytest.mark.trio
PATIENCE_S = 60.0


@pytest.fixture
def hosts(tmp_path):
    with one_server(tmp_path) as server:
        yield server.address


class SteppedClock(SystemClock):
    """The machine's clocks; the monotonic one can be made to jump, as after SIGSTOP."""

    __slots__ = ("ahead_s",)

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Broker:
    """What of a broker coordinates groups."""

    def __init__(self, broker_id: int, metastore: ZooKeeperMetastore) -> None:
        self.broker_id, self.broker_epoch = broker_id, -1
        self.metastore = metastore
        self.clock = clock = SteppedClock()
        self.following = trio.CancelScope()
        self.deadlines = Deadlines(clock)
        self.follower = ImageFollower(metastore, on_swap=self._follow)
        keys = {"node.id": str(broker_id), "group.initial.rebalance.delay.ms": "0"}
        self.service = GroupService(
            metastore,
            config=BrokerConfig.from_mapping(keys),
            clock=clock,
            deadlines=self.deadlines,
            image=lambda: self.follower.image,
        )

    def _follow(self, before, after) -> None:
        self.service.follow(before, after)

    @property
    def groups(self):
        return self.service.coordinator

    @property
    def slots(self) -> dict[int, int]:
        return {slot.number: slot.epoch for slot in self.service.slots if slot.refusal is None}

    async def keep_following(self) -> None:
        """As the broker's supervisor does: again after a lost session."""
        with self.following:
            while True:
                try:
                    await self.follower.run()
                except* store.SessionLost:
                    session = self.metastore.session
                    if session.state is SessionState.LOST:
                        await session.changed_from(SessionState.LOST)

    async def register(self) -> None:
        made = await register_broker(
            self.metastore,
            layout.BrokerRegistration(
                self.broker_id,
                -1,
                None,
                {"PLAINTEXT": ("h", 1)},
                (f"d{self.broker_id}",),
                "h",
                f"i{self.broker_id}",
                clean=False,
            ),
        )
        self.broker_epoch = made.broker_epoch
        self.service.use_broker_epoch(made.broker_epoch)

    async def until(self, holds) -> None:
        """Until `holds(self)`; it changes with the image, or with what is loaded."""
        with trio.fail_after(PATIENCE_S):
            while not holds(self):
                await trio.sleep(0.005)


@asynccontextmanager
async def broker(broker_id: int, hosts: str, timeout_s: float = 6.0) -> AsyncIterator[Broker]:
    address = ZooKeeperAddress(hosts, "/slots", session_timeout_s=timeout_s)
    async with open_zookeeper(address, SystemClock()) as metastore:
        await ensure_cluster(metastore, slots=8)
        made = Broker(broker_id, metastore)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.deadlines.run)
            nursery.start_soon(made.keep_following)
            await made.until(lambda it: it.follower.image.slots)
            await made.register()
            await nursery.start(made.service.run)
            yield made
            nursery.cancel_scope.cancel()


async def control(by: Broker, *others: Broker, leaving: frozenset[int] = frozenset()) -> None:
    """Give every slot a live leader, as the controller does, once `by` knows of all brokers."""
    wanted = {one.broker_id: one.broker_epoch for one in (by, *others)}
    await by.until(
        lambda it: (
            wanted
            == {one: broker.broker_epoch for one, broker in it.follower.image.brokers.items()}
        )
    )
    await by.follower.catch_up()
    image = by.follower.image
    live = {one: broker.broker_epoch for one, broker in image.brokers.items()}
    plan = plan_slots(image.slots, live, leaving=leaving)
    if plan:
        await by.metastore.multi(feed.with_entry(slot_writes(image.slots, plan)))


async def test_groups_go_on_at_the_other_broker_when_theirs_dies(hosts):
    async with broker(1, hosts) as one:
        await control(one)
        await one.until(lambda it: len(it.slots) == 8)
        joined = await join_alone(one.groups, "g")
        membership = {"generation": joined.generation, "member_id": joined.member_id}
        async with broker(2, hosts) as two:
            for number in range(30):
                assert await commit(one.groups, f"g{number}", {0: number}) is None
            assert await commit(one.groups, "g", {0: 7}, **membership) is None
            parked = start_join(one.groups, "g")
            await control(two, one, leaving=frozenset({1}))
            await two.until(lambda it: len(it.slots) == 8)
            assert isinstance(await parked.wait(), NotCoordinator)
            await one.until(lambda it: not it.slots)
            assert one.groups.leader_of("g") == two.groups.leader_of("g") == 2
            assert isinstance(await commit(one.groups, "g", {0: 1}), NotCoordinator)
            for number in range(30):
                assert fetched(two.groups, f"g{number}") == {0: number}
            assert two.groups.heartbeat("g", joined.generation, joined.member_id, None) is None
            assert await commit(two.groups, "g", {0: 8}, **membership) is None
            assert fetched(two.groups, "g") == {0: 8}
            await control(two, one)
            await one.until(lambda it: len(it.slots) == 4)
            await two.until(lambda it: len(it.slots) == 4)


async def test_safety_7_commits_of_a_deposed_coordinator_are_refused_by_the_fence(hosts):
    """Its broker has heard nothing, and its session is in order."""
    async with broker(1, hosts) as one, broker(2, hosts) as two:
        await control(one, two, leaving=frozenset({2}))
        await one.until(lambda it: len(it.slots) == 8)
        assert await commit(one.groups, "g", {0: 1}) is None
        one.follower._on_swap = None
        await control(two, one, leaving=frozenset({1}))
        await two.until(lambda it: len(it.slots) == 8)
        assert await commit(two.groups, "g", {0: 5}) is None
        assert isinstance(await commit(one.groups, "g", {0: 2}), NotCoordinator)
        assert fetched(two.groups, "g") == {0: 5}
        assert len(one.slots) == 7, "the one slot knows now"


@pytest.mark.parametrize("answers", [True, False])
async def test_safety_12_a_slot_that_was_moved_while_its_leader_stood_still_is_not_answered_for(
    hosts, answers
):
    """Its session and its lease live on, and what it holds in memory is another's by now."""
    async with broker(1, hosts) as one, trio.open_nursery() as nursery:
        pulse = Pulse(one.metastore, one.follower, one.clock)
        one.service.slots.use_pulse(pulse.is_behind)
        await nursery.start(pulse.run)
        await control(one)
        await one.until(lambda it: len(it.slots) == 8)
        assert await commit(one.groups, "g", {0: 1}) is None
        assert fetched(one.groups, "g") == {0: 1}
        async with broker(2, hosts) as two:
            one.following.cancel()  # it stands still
            await control(two, one, leaving=frozenset({1}))
            await two.until(lambda it: len(it.slots) == 8)
            assert await commit(two.groups, "g", {0: 9}) is None
            one.clock.ahead_s += 1.0  # less than a third of the session, but more than a twelfth
            if not answers:
                one.metastore.sync = trio.sleep_forever
            now = one.groups.fetch_offsets("g", None, -1, None, require_stable=False)
            assert isinstance(now, CoordinatorLoadInProgress)
            assert isinstance(one.groups.list_groups(), CoordinatorLoadInProgress)
            refused = await commit(one.groups, "g", {0: 2})
            assert isinstance(refused, NotCoordinator), "the fence tells at once"
            assert not pulse.is_shut(one.clock.monotonic_s()), "all else is served"
            if answers:
                await one.until(lambda it: not it.slots)
                later = one.groups.fetch_offsets("g", None, -1, None, require_stable=False)
                assert isinstance(later, NotCoordinator)
            assert fetched(two.groups, "g") == {0: 9}
        nursery.cancel_scope.cancel()


async def test_a_lost_session_demotes_all_slots_and_a_new_registration_leads_again(hosts):
    async with broker(1, hosts) as one, broker(2, hosts) as two:
        await control(one, two, leaving=frozenset({2}))
        await one.until(lambda it: len(it.slots) == 8)
        joined = await join_alone(one.groups, "g")
        parked = start_join(one.groups, "g")
        session = one.metastore.session
        # What ZooKeeper says when it has ended the session by itself.
        client_id, password = one.metastore._client.client_id
        await trio.to_thread.run_sync(_end_session, hosts, client_id, password)
        with trio.fail_after(PATIENCE_S):
            while session.generation == 1:
                await session.changed_from(session.state)
            assert isinstance(await parked.wait(), NotCoordinator)
        await one.until(lambda it: not it.slots)
        if session.state is not SessionState.CONNECTED:
            await session.changed_from(session.state)
        await two.until(lambda it: 1 not in it.follower.image.brokers)
        assert two.groups.leader_of("g") is None
        await one.register()
        await two.until(lambda it: 1 in it.follower.image.brokers)
        assert two.groups.leader_of("g") is None
        assert not one.slots
        await control(two, one, leaving=frozenset({2}))
        await one.until(lambda it: len(it.slots) == 8)
        assert one.groups.heartbeat("g", joined.generation, joined.member_id, None) is None


def _end_session(hosts: str, client_id: int, password: bytes) -> None:
    """Close the session as its owner would: another connection with its id and password."""
    from kazoo.client import KazooClient

    other = KazooClient(hosts, client_id=(client_id, password), timeout=6)
    other.start(10)
    other.stop()
    other.close()


async def test_safety_4_brokers_never_hand_out_the_same_producer_id(hosts):
    address = ZooKeeperAddress(hosts, "/ids", session_timeout_s=10.0)
    clock = SystemClock()
    given: list[int] = []

    async def take(ids: ProducerIds) -> None:
        for _ in range(BLOCK_LENGTH + 10):
            given.append(await ids.next_producer_id())
            await trio.lowlevel.checkpoint()

    async with open_zookeeper(address, clock) as first, open_zookeeper(address, clock) as second:
        await ensure_cluster(first)
        async with trio.open_nursery() as nursery:
            for metastore in (first, second, first):
                nursery.start_soon(take, ProducerIds(metastore))
    assert len(set(given)) == len(given) == 3 * (BLOCK_LENGTH + 10)
