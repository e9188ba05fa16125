"""A coordinator over a metastore that fails as told, on a clock that tests move.

The store is the embedded backend's table in memory, without its thread: with trio's autojump
clock, hours of retries and timeouts pass at once.
"""

from __future__ import annotations

import functools
import inspect
import sqlite3
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from trioq.config import BrokerConfig
from trioq.controller.takeover import take_over_alone
from trioq.coordinator.coordinator import GroupCoordinator
from trioq.coordinator.group_requests import JoinRequest, JoinResult, SyncRequest
from trioq.coordinator.offset_requests import CommitRequest, NewOffset
from trioq.coordinator.service import GroupService, LogEnd
from trioq.metastore import layout, node_table, store
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.image import ClusterImage, SlotImage, TopicImage
from trioq.metastore.layout import BrokerRegistration, PartitionState
from trioq.metastore.node_table import NodeTable, Touched
from trioq.metastore.session import Session, SessionState
from trioq.server.deadlines import Deadlines

ORDERS = uuid.UUID(int=1)
START_MS = 1_700_000_000_000
CONFIG = {"group.initial.rebalance.delay.ms": "0", "coordination.slots": "4"}


class TrioClock:
    """Both clocks follow trio's, which tests make jump; `ahead_ms` moves the wall clock."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return START_MS + self.ahead_ms + int(trio.current_time() * 1000)

    def monotonic_s(self) -> float:
        return trio.current_time()


class FaultyStore(store.Metastore):
    """A metastore in memory. `fates` are those of the next writes, then all is well:

    "unavailable"  not done, and said so
    "lost"         nobody knows; not done
    "late"         nobody knows; done, if it still can be, before the next write
    "applied"      nobody knows; done
    "gone"         the session ends

    `delay_s` is how long each write takes, `read_delay_s` the reading of a tree; while `is_down`
    everything is unavailable.
    """

    def __init__(self, shared: FaultyStore | None = None) -> None:
        """With `shared`, another session with the same nodes."""
        if shared is None:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.execute(node_table._SCHEMA)
            self._table = NodeTable(connection, Path("memory"))
        else:
            self._table = shared._table
        self.session = Session()
        self.fates: deque[str] = deque()
        self.delay_s = self.read_delay_s = 0.0
        self.is_down = False
        self.writes: list[Sequence[store.Operation]] = []
        self._late: list[Sequence[store.Operation]] = []

    def reopen(self) -> None:
        """Another process opens it."""
        self.session = Session()
        self.land_late()
        self._table._execute("DELETE FROM nodes WHERE ephemeral")

    def _check(self) -> None:
        if self.is_down:
            raise store.MetastoreUnavailable("the store is down")

    async def get_many(self, paths: Sequence[str]) -> list[store.Node | None]:
        await trio.lowlevel.checkpoint()
        self._check()
        return self._table.get_many(paths)

    async def children(self, path: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        self._check()
        return self._table.children(path)

    async def read_tree(self, path: str) -> dict[str, store.Node]:
        await (trio.sleep(self.read_delay_s) if self.read_delay_s else trio.lowlevel.checkpoint())
        self._check()
        return self._table.read_tree(path)

    async def multi(self, operations: Sequence[store.Operation]) -> list[store.Result]:
        store.check_multi(operations)
        fate = self.fates.popleft() if self.fates else "done"
        await (trio.sleep(self.delay_s) if self.delay_s else trio.lowlevel.checkpoint())
        self._check()
        if fate == "gone":
            self.session.move(SessionState.LOST)
            raise store.SessionLost("the session has ended")
        if fate == "unavailable":
            raise store.MetastoreUnavailable("not now")
        self.land_late()
        if fate == "late":
            self._late.append(operations)
        if fate in {"late", "lost"}:
            raise store.OutcomeUnknown("connection lost")
        results = self._apply(operations)
        self.writes.append(operations)
        if fate == "applied":
            raise store.OutcomeUnknown("connection lost")
        return results

    def _apply(self, operations: Iterable[store.Operation]) -> list[store.Result]:
        self._table.begin()
        try:
            results = self._table.apply(list(operations), Touched())
        except store.NodeError:
            self._table.rollback()
            raise
        self._table.commit()
        return results

    def land_late(self) -> None:
        """What nobody knew of is done now, if it still can be."""
        late, self._late = self._late, []
        for operations in late:
            try:
                self._apply(operations)
            except store.NodeError:
                continue

    async def bulk(self, groups: Iterable[Sequence[store.Operation]]) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        self._apply(one for group in groups for one in group)

    def watch_node(self, path: str) -> store.Watch:
        raise NotImplementedError

    def watch_children(self, path: str) -> store.Watch:
        raise NotImplementedError


def topic_image(name: str, topic_id: uuid.UUID, partitions: int) -> TopicImage:
    state = PartitionState(1, 0, (1,), (0,), (1,))
    return TopicImage(name, topic_id, (state,) * partitions, {}, 0)


def image_of(**topics: int) -> ClusterImage:
    """An image with topics of that many partitions; their ids count from 1."""
    images = [
        topic_image(name, uuid.UUID(int=number), partitions)
        for number, (name, partitions) in enumerate(topics.items(), 1)
    ]
    return ClusterImage(
        topics={one.name: one for one in images}, topics_by_id={one.topic_id: one for one in images}
    )


async def slots_in(metastore: store.Metastore) -> tuple[SlotImage, ...]:
    """The slots as an image has them."""
    node = await metastore.get(layout.SLOTS)
    number = layout.decode_node(layout.SLOTS, node.value, layout.Slots.of).number
    nodes = [await metastore.get(layout.slot_path(slot)) for slot in range(number)]
    states = [layout.decode_node("", one.value, layout.SlotState.of) for one in nodes]
    return tuple(SlotImage(*state, node.version) for state, node in zip(states, nodes, strict=True))


def registration(broker_id: int, broker_epoch: int) -> BrokerRegistration:
    return BrokerRegistration(
        broker_id, broker_epoch, None, {"PLAINTEXT": ("h", 9092)}, ("dir",), "host", "inc", False
    )


class World:
    """One cluster's store, and the broker that coordinates its groups at the moment."""

    def __init__(self) -> None:
        self.store = FaultyStore()
        self.clock = TrioClock()
        self.use_config({})
        self.image = image_of(orders=600, payments=3)
        self.service: GroupService = None  # type: ignore[assignment]
        self.crashes = False

    def use_config(self, keys: dict[str, str]) -> None:
        """What the next broker is started with."""
        self.config = BrokerConfig.from_mapping({**CONFIG, **keys})

    @asynccontextmanager
    async def broker(self, *, log_end: LogEnd | None = None) -> AsyncIterator[GroupCoordinator]:
        """A broker's life. Its end is in order, unless the world says that it `crashes`."""
        self.crashes = False
        self.store.reopen()
        await ensure_cluster(self.store, slots=self.config.coordination_slots)
        await take_over_alone(self.store, 1, 0)
        deadlines = Deadlines(self.clock)
        self.service = GroupService(
            self.store,
            config=self.config,
            clock=self.clock,
            deadlines=deadlines,
            image=lambda: self.image,
            log_end=log_end,
        )
        self.service.use_broker_epoch(0)
        await self._load_slots()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.run)
            await nursery.start(self.service.run)
            yield self.service.coordinator
            if not self.crashes:
                self.service.begin_stop()
                await self.service.finish_stop()
            nursery.cancel_scope.cancel()

    def swap(self, image: ClusterImage) -> None:
        """Other topics; brokers and slots stay."""
        before = self.image
        self.image = replace(image, brokers=before.brokers, slots=before.slots)
        self.service.follow(before, self.image)

    async def _load_slots(self) -> None:
        before = self.image
        slots = await slots_in(self.store)
        self.image = replace(before, brokers={1: registration(1, 0)}, slots=slots)
        self.service.follow(before, self.image)


def simulated(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run `test(world, ...)` in a new world, whose clock jumps on when nothing else can happen."""
    signature = inspect.signature(test)

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def live() -> None:
            await test(World(), **fixtures)

        trio.run(live, clock=MockClock(autojump_threshold=0))

    parameters = [one for name, one in signature.parameters.items() if name != "world"]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


class Reply:
    """The answer to one request, when it has come."""

    def __init__(self) -> None:
        self._came = trio.Event()
        self.answer: Any = None

    def __call__(self, answer: Any) -> None:
        assert not self._came.is_set(), "answered twice"
        self.answer = answer
        self._came.set()

    @property
    def has_come(self) -> bool:
        return self._came.is_set()

    async def wait(self) -> Any:
        await self._came.wait()
        return self.answer


def commit_request(
    group_id: str,
    offsets: dict[int, int],
    *,
    topic_id: uuid.UUID = ORDERS,
    generation: int = -1,
    member_id: str = "",
    retention_ms: int | None = None,
) -> CommitRequest:
    return CommitRequest(
        group_id,
        generation,
        member_id,
        None,
        [NewOffset(topic_id, partition, offset, 0) for partition, offset in offsets.items()],
        retention_ms,
    )


def start_commit(groups: GroupCoordinator, group_id: str, offsets: dict[int, int], **how) -> Reply:
    reply = Reply()
    groups.commit_offsets(commit_request(group_id, offsets, **how), reply)
    return reply


async def commit(groups: GroupCoordinator, group_id: str, offsets: dict[int, int], **how) -> Any:
    return await start_commit(groups, group_id, offsets, **how).wait()


def fetched(
    groups: GroupCoordinator, group_id: str, topic_id: uuid.UUID = ORDERS
) -> dict[int, int]:
    """The offsets that a group has for a topic, by partition."""
    found = groups.fetch_offsets(group_id, None, -1, None, require_stable=False)
    assert isinstance(found, dict), found
    return {number: one.offset for number, one in found.get(topic_id, {}).items()}


def join_request(
    group_id: str,
    member_id: str = "",
    *,
    instance_id: str | None = None,
    metadata: bytes = b"",
) -> JoinRequest:
    """A consumer of "orders"; other `metadata` is another subscription, so a rebalance."""
    return JoinRequest(
        group_id,
        member_id,
        instance_id,
        "client",
        "/127.0.0.1",
        "consumer",
        (("range", b"\0\0\0\0\0\1\0\6orders\0\0\0\1" + (metadata or b"\0")),),
        10_000,
        60_000,
        requires_known_member_id=False,
    )


def start_join(groups: GroupCoordinator, group_id: str, member_id: str = "", **fields) -> Reply:
    reply = Reply()
    groups.join_group(join_request(group_id, member_id, **fields), reply)
    return reply


def start_sync(
    groups: GroupCoordinator, group_id: str, joined: JoinResult, plan: dict[str, bytes]
) -> Reply:
    reply = Reply()
    request = SyncRequest(joined.generation, joined.member_id, assignments=plan)
    groups.sync_group(group_id, request, reply)
    return reply


async def join_alone(
    groups: GroupCoordinator, group_id: str, member_id: str = "", *, plan: bytes = b"all", **fields
) -> JoinResult:
    """A member that is the only one, with the whole plan."""
    joined = await start_join(groups, group_id, member_id, **fields).wait()
    assert isinstance(joined, JoinResult), joined
    synced = await start_sync(groups, group_id, joined, {joined.member_id: plan}).wait()
    assert synced.assignment == plan
    return joined


def slots_written(metastore: FaultyStore) -> set[str]:
    """The slots that anything was written in."""
    return {
        operation.path.split("/")[2]
        for operations in metastore.writes
        for operation in operations
        if operation.path.startswith(layout.SLOTS + "/")
    }
