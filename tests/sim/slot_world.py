"""Several brokers that coordinate groups over one store, on a clock that jumps.

Each has a session of its own. The image is handed to them by the test, as the feed would: to all,
or to those that are not cut off.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.sim.group_world import (
    CONFIG,
    FaultyStore,
    Reply,
    TrioClock,
    image_of,
    registration,
    slots_in,
    start_commit,
)
from trioq.config import BrokerConfig
from trioq.controller.slot_plan import plan_slots, slot_writes
from trioq.coordinator.coordinator import GroupCoordinator
from trioq.coordinator.service import GroupService
from trioq.errors import CoordinatorLoadInProgress, KafkaError, NotCoordinator
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.image import ClusterImage
from trioq.metastore.layout import SlotState
from trioq.metastore.session import SessionState
from trioq.metastore.store import Set
from trioq.server.deadlines import Deadlines

PAUSE_S = 0.1


class Member:
    """One broker: its session with the store, what it knows, and its groups."""

    def __init__(self, broker_id: int, shared: FaultyStore, image: ClusterImage) -> None:
        self.broker_id = broker_id
        self.store = FaultyStore(shared)
        self.image = image
        self.is_cut_off = False
        clock = TrioClock()
        self.deadlines = Deadlines(clock)
        self.service = GroupService(
            self.store,
            config=BrokerConfig.from_mapping({**CONFIG, "node.id": str(broker_id)}),
            clock=clock,
            deadlines=self.deadlines,
            image=lambda: self.image,
        )

    @property
    def groups(self) -> GroupCoordinator:
        return self.service.coordinator

    def swap(self, image: ClusterImage) -> None:
        before, self.image = self.image, image
        self.service.follow(before, image)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.deadlines.run)
            await nursery.start(self.service.run)


class SlotWorld:
    """The cluster: its store, its brokers by id, and who is registered."""

    def __init__(self) -> None:
        self.store = FaultyStore()
        self.members: dict[int, Member] = {}
        self.epochs: dict[int, int] = {}
        self.image = image_of(orders=600)
        self._counter = 0

    @asynccontextmanager
    async def brokers(self, *broker_ids: int) -> AsyncIterator[list[Member]]:
        """So many, registered, with the slots spread over them."""
        await ensure_cluster(self.store, slots=int(CONFIG["coordination.slots"]))
        async with trio.open_nursery() as nursery:
            for broker_id in broker_ids:
                self.members[broker_id] = Member(broker_id, self.store, self.image)
                nursery.start_soon(self.members[broker_id].run)
                self.register(broker_id)
            await self.control()
            await wait_all_tasks_blocked()
            yield list(self.members.values())
            nursery.cancel_scope.cancel()

    def register(self, broker_id: int) -> None:
        """In the broker's present session, under its next epoch."""
        self._counter += 1
        self.epochs[broker_id] = self._counter
        self.members[broker_id].service.use_broker_epoch(self._counter)

    async def control(self, *, leaving: Iterable[int] = ()) -> None:
        """Be the controller: give every slot a live leader, evenly."""
        slots = await slots_in(self.store)
        plan = plan_slots(slots, self.epochs, leaving=set(leaving))
        if plan:
            await self.store.multi(slot_writes(slots, plan))
        await self.publish()

    async def assign(self, broker_id: int) -> None:
        """Every slot to that broker."""
        state = SlotState(broker_id, self.epochs[broker_id])
        for number, slot in enumerate(await slots_in(self.store)):
            await self.store.multi([Set(f"/slots/{number}", state.encode(), slot.epoch)])
        await self.publish()
        await wait_all_tasks_blocked()

    async def publish(self) -> None:
        """Let the feed reach everybody who is not cut off."""
        slots = await slots_in(self.store)
        brokers = {one: registration(one, epoch) for one, epoch in self.epochs.items()}
        self.image = replace(self.image, slots=slots, brokers=brokers)
        for member in self.members.values():
            if not member.is_cut_off:
                member.swap(self.image)

    def lose_session(self, broker_id: int) -> None:
        """It has ended; the broker is registered no longer, and has a new session."""
        self.epochs.pop(broker_id, None)
        session = self.members[broker_id].store.session
        session.move(SessionState.SUSPENDED)
        session.move(SessionState.LOST)

    def reconnect(self, broker_id: int) -> None:
        """A new session, and a new registration in it."""
        self.members[broker_id].store.session.move(SessionState.CONNECTED)
        self.register(broker_id)

    def leader_of(self, group_id: str) -> Member | None:
        """Where a client finds the coordinator, asking the first broker that knows the newest."""
        for member in self.members.values():
            if not member.is_cut_off:
                leader = member.groups.leader_of(group_id)
                return None if leader is None else self.members[leader]
        return None

    async def commit(self, group_id: str, offsets: dict[int, int]) -> None:
        """As a client: again at the coordinator of the moment, until it is acknowledged."""
        while True:
            member = self.leader_of(group_id)
            if member is not None:
                answer = await start_commit(member.groups, group_id, offsets).wait()
                if answer is None:
                    return
                assert answer.retriable, answer
            await trio.sleep(PAUSE_S)

    async def ask(self, group_id: str, call: Callable[[GroupCoordinator], Reply]) -> Any:
        """As a client: `call` at the coordinator of the moment, again while it is none."""
        while True:
            member = self.leader_of(group_id)
            if member is not None:
                answer = await call(member.groups).wait()
                if not isinstance(answer, NotCoordinator | CoordinatorLoadInProgress):
                    return answer
            await trio.sleep(PAUSE_S)

    async def fetched(self, group_id: str) -> dict[int, int]:
        """As a client: the offsets of the group, by partition."""
        while True:
            member = self.leader_of(group_id)
            if member is not None:
                found = member.groups.fetch_offsets(group_id, None, -1, None, require_stable=False)
                if not isinstance(found, KafkaError):
                    return {
                        number: one.offset
                        for some in found.values()
                        for number, one in some.items()
                    }
            await trio.sleep(PAUSE_S)


def simulated(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run `test(world, ...)` in a new world, whose clock jumps on when nothing else can happen."""
    signature = inspect.signature(test)

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def live() -> None:
            await test(SlotWorld(), **fixtures)

        trio.run(live, clock=MockClock(autojump_threshold=0))

    parameters = [one for name, one in signature.parameters.items() if name != "world"]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run
