"""Random histories of a group whose members speak either protocol, through upgrade and downgrade.

Whichever machine the group has, a partition has one owner at a time as clients see it, every
request has one answer, and clients that behave end up with all partitions between them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.machines.classic_member_support import assignment, subscription
from tests.machines.consumer_group_support import (
    GROUP,
    REBALANCE_TIMEOUT_MS,
    FakeTopics,
    as_assignment,
    pairs,
)
from trioq.coordinator.consumer_group_state import ConsumerGroupState
from trioq.coordinator.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatResult,
    MigrationPolicy,
)
from trioq.coordinator.effects import Answer, Convert, Effect, Persist
from trioq.coordinator.group_requests import (
    GroupSettings,
    JoinRefused,
    JoinRequest,
    JoinResult,
    LeavingMember,
    SyncRequest,
    SyncResult,
)
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.migration import upgrade
from trioq.errors import KafkaError, RebalanceInProgress
from trioq.metastore.group_layout import ClassicGroup, ConsumerGroup
from trioq.wire.messages.consumer_protocol import decode_assignment

PARTITIONS = 5
CLASSIC = GroupSettings(initial_rebalance_delay_ms=0)
SESSION_MS = 30_000
MAX_CLIENTS = 6

Owned = set[tuple[str, int]]


class Coordinator:
    """What a driver does: one group with the machine of either protocol, and what is written."""

    def __init__(self, policy: MigrationPolicy) -> None:
        self.settings = ConsumerGroupSettings(migration_policy=policy)
        self.topics = FakeTopics(orders=PARTITIONS)
        self.now_s = 1_000.0
        self.machine: GroupState | ConsumerGroupState | None = None
        self.written: ClassicGroup | ConsumerGroup | None = None
        self.waiting: set[Waiting] = set()
        self.changes = 0

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Answer):
                self.waiting.remove(effect.waiter)  # KeyError: answered twice
                effect.waiter.hear(effect.result)
            elif isinstance(effect, Persist):
                assert self.machine is not None
                self.written = self.machine.snapshot()
            else:
                assert isinstance(effect, Convert)
                self.changes += 1
                self.machine = GroupState.restore(effect.group, CLASSIC, self.now_s)
                if effect.join is not None:
                    self.carry_out(self.machine.join(*effect.join, self.now_s, self.now_ms))

    def ask(self, waiter: Waiting) -> Waiting:
        self.waiting.add(waiter)
        return waiter

    def join(self, request: JoinRequest, waiter: Waiting) -> None:
        if self.machine is None:
            self.machine = GroupState(GROUP, CLASSIC, self.now_ms)
        if isinstance(self.machine, GroupState):
            effects = self.machine.join(request, self.ask(waiter), self.now_s, self.now_ms)
        else:
            effects = self.machine.classic_join(
                request, self.ask(waiter), self.topics, self.now_s, self.now_ms
            )
        self.carry_out(effects)

    def sync(self, request: SyncRequest, waiter: Waiting) -> None:
        assert self.machine is not None
        if isinstance(self.machine, GroupState):
            effects = self.machine.sync(request, self.ask(waiter), self.now_s, self.now_ms)
        else:
            effects = self.machine.classic_sync(request, self.ask(waiter), self.topics, self.now_s)
        self.carry_out(effects)

    def classic_heartbeat(self, member_id: str, generation: int) -> KafkaError | None:
        assert self.machine is not None
        if isinstance(self.machine, GroupState):
            return self.machine.heartbeat(member_id, None, generation, self.now_s)
        return self.machine.classic_heartbeat(member_id, None, generation, self.now_s)

    def consumer_heartbeat(self, request: ConsumerHeartbeat, waiter: Waiting) -> None:
        self.ask(waiter)
        if isinstance(self.machine, GroupState):
            machine, effects = upgrade(
                self.machine, request, waiter, self.topics, self.settings, self.now_s, self.now_ms
            )
            if machine is not None:
                self.changes += 1
                self.machine = machine
        else:
            if self.machine is None:
                self.machine = ConsumerGroupState(GROUP, self.settings, self.now_ms)
            effects = self.machine.heartbeat(request, waiter, self.topics, self.now_s, self.now_ms)
        self.carry_out(effects)

    def leave(self, member_id: str) -> None:
        assert self.machine is not None
        leaving = [LeavingMember(member_id)]
        if isinstance(self.machine, GroupState):
            effects = self.machine.leave(leaving, self.now_s, self.now_ms)[1]
        else:
            effects = self.machine.classic_leave(leaving, self.now_ms)[1]
        self.carry_out(effects)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        while self.machine is not None and self.machine.next_deadline_s() <= self.now_s:
            self.carry_out(self.machine.on_time(self.now_s, self.now_ms))

    def restart(self) -> None:
        """What is written comes back; connections, and who waited on them, do not."""
        lost, self.waiting = self.waiting, set()
        for waiter in lost:
            waiter.hear(RebalanceInProgress())
        if self.written is None:
            self.machine = None
        elif isinstance(self.written, ClassicGroup):
            self.machine = GroupState.restore(self.written, CLASSIC, self.now_s)
        else:
            self.machine = ConsumerGroupState.restore(self.written, self.settings, self.now_s)

    def member_ids(self) -> set[str]:
        kept = None if self.machine is None else self.machine.snapshot()
        return set() if kept is None else {member.member_id for member in kept.members}


class Waiting:
    """A client; it has one request under way at most, and is the waiter of it."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.member_id = ""
        self.owned: Owned = set()

    def hear(self, result: Any) -> None:
        raise NotImplementedError

    def step(self) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        raise NotImplementedError


class Classic(Waiting):
    """A consumer of the classic protocol that gives up everything before it joins."""

    generation = -1
    must_join = True
    synced: JoinResult | None = None

    def step(self) -> None:
        if self in self.coordinator.waiting:
            return
        if not self.must_join:
            error = self.coordinator.classic_heartbeat(self.member_id, self.generation)
            if error is not None:
                self.hear(error)
            return
        self.owned.clear()
        request = JoinRequest(
            GROUP, self.member_id, None, "client", "/127.0.0.1", "consumer",
            (("range", subscription("orders", version=0)),), SESSION_MS, REBALANCE_TIMEOUT_MS,
        )  # fmt: skip
        self.coordinator.join(request, self)

    def hear(self, result: Any) -> None:
        if isinstance(result, JoinRefused):
            self.member_id = result.member_id
        elif isinstance(result, JoinResult):
            self.member_id, self.generation = result.member_id, result.generation
            self.must_join = False
            plan = {}
            if result.leader == self.member_id:
                ids = sorted(member.member_id for member in result.members)
                plan = {
                    each: assignment(*(("orders", p) for p in range(n, PARTITIONS, len(ids))))
                    for n, each in enumerate(ids)
                }
            request = SyncRequest(
                self.generation, self.member_id, None, "consumer", result.protocol, plan
            )
            self.coordinator.sync(request, self)
        elif isinstance(result, SyncResult):
            content = decode_assignment(result.assignment)[1] if result.assignment else None
            parts = [] if content is None else content.assigned_partitions
            self.owned = {(part.topic, p) for part in parts for p in part.partitions}
        else:
            assert isinstance(result, KafkaError)
            self.must_join = True
            if not isinstance(result, RebalanceInProgress):
                self.owned.clear()
                self.member_id = ""

    def leave(self) -> None:
        self.owned.clear()
        if self.coordinator.machine is not None:
            self.coordinator.leave(self.member_id)


class Modern(Waiting):
    """A consumer of the new protocol."""

    epoch = 0
    says_all = True

    def request(self, epoch: int) -> ConsumerHeartbeat:
        request = ConsumerHeartbeat(GROUP, self.member_id, epoch)
        if epoch >= 0 and self.says_all:
            topic_id = self.coordinator.topics.id_of("orders")
            assert topic_id is not None
            request = request._replace(
                rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
                subscribed_names=frozenset(["orders"]),
                owned=as_assignment((topic_id, p) for _, p in self.owned),
            )
        return request

    def step(self) -> None:
        self.coordinator.consumer_heartbeat(self.request(self.epoch), self)

    def hear(self, result: Any) -> None:
        if isinstance(result, KafkaError):
            self.owned.clear()
            self.epoch, self.says_all = 0, True
            return
        assert isinstance(result, ConsumerHeartbeatResult)
        if result.member_epoch < 0:
            return
        self.member_id, self.epoch, self.says_all = result.member_id, result.member_epoch, False
        if result.assignment is not None:
            owned = {("orders", p) for _, p in pairs(result.assignment)}
            self.says_all = owned != self.owned
            self.owned = owned

    def leave(self) -> None:
        self.owned.clear()
        if self.epoch > 0:
            self.coordinator.consumer_heartbeat(self.request(-1), self)


class ProtocolHistories(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from([MigrationPolicy.BIDIRECTIONAL, *MigrationPolicy]),
        kinds=st.lists(st.sampled_from([Classic, Modern]), min_size=1, max_size=3),
    )
    def begin(self, policy: MigrationPolicy, kinds: list[type[Waiting]]) -> None:
        self.coordinator = Coordinator(policy)
        self.clients = [kind(self.coordinator) for kind in kinds]
        self.crashed: list[Waiting] = []
        self.all_step(3)

    @rule(kind=st.sampled_from([Classic, Modern]))
    def start(self, kind: type[Waiting]) -> None:
        if len(self.clients) < MAX_CLIENTS:
            self.clients.append(kind(self.coordinator))

    @rule(order=st.lists(st.integers(0, MAX_CLIENTS - 1), min_size=1, max_size=8))
    def step(self, order: list[int]) -> None:
        for index in order:
            if index < len(self.clients):
                self.clients[index].step()

    @rule(times=st.integers(1, 3))
    def all_step(self, times: int) -> None:
        for _ in range(times):
            for client in self.clients:
                client.step()

    @rule(index=st.integers(0, MAX_CLIENTS - 1), leaves=st.booleans())
    def end(self, index: int, leaves: bool) -> None:
        if index < len(self.clients):
            client = self.clients.pop(index)
            if leaves and client not in self.coordinator.waiting:
                client.leave()
            else:
                self.crashed.append(client)

    @rule(kind=st.sampled_from([Classic, Modern]))
    def end_all(self, kind: type[Waiting]) -> None:
        """All that speak one of the protocols go."""
        for index in reversed(range(len(self.clients))):
            if isinstance(self.clients[index], kind):
                self.end(index, leaves=True)

    @rule(seconds=st.sampled_from([1, 10, 31, 61]))
    def pass_time(self, seconds: int) -> None:
        self.coordinator.pass_time(seconds)

    @rule()
    def restart_broker(self) -> None:
        self.coordinator.restart()

    @invariant()
    def a_partition_has_one_owner(self) -> None:
        if not hasattr(self, "clients"):
            return
        ids = self.coordinator.member_ids()
        owned = [
            partition
            for client in self.clients + self.crashed
            if client.member_id in ids
            for partition in client.owned
        ]
        assert len(owned) == len(set(owned))

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        for _ in range(40):
            self.coordinator.pass_time(3)
            self.all_step(1)
        self.a_partition_has_one_owner()
        if self.clients:
            owned = set().union(*(client.owned for client in self.clients))
            assert owned == {("orders", p) for p in range(PARTITIONS)}
            assert not self.coordinator.waiting


ProtocolHistories.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestProtocolHistories = ProtocolHistories.TestCase
