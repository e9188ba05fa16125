"""Random histories of a classic group: clients that come, stall, crash and lose answers, a broker
that restarts, a store that fails.

The clients follow the protocol, the driver the contract of coordinator/effects.py. A part of a
plan is a set of partitions; who is told one is written down by generation.
"""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.machines.group_support import START_MS, subscription
from trioq.coordinator.effects import Answer, Effect, Persist, Remove
from trioq.coordinator.group_phases import GroupPhase
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
from trioq.errors import (
    CoordinatorNotAvailable,
    FencedInstanceId,
    GroupMaxSizeReached,
    IllegalGeneration,
    KafkaError,
    NotCoordinator,
    RebalanceInProgress,
    UnknownMemberId,
)
from trioq.metastore.group_layout import ClassicGroup

PARTITIONS = range(6)
SESSION_MS = 10_000
STATIC_SESSION_MS = 45_000
REBALANCE_MS = 30_000
NEW_MEMBER_S = 60
PROTOCOLS = (
    (("range", subscription("a")),),
    (("sticky", subscription("a")), ("range", subscription("a"))),
    (("range", subscription("a", "b")), ("sticky", b"?")),
)


class Client:
    """A consumer: what it believes to be, and the request that it waits for."""

    def __init__(self, number: int, instance_id: str | None) -> None:
        self.name = f"client{number}"
        self.instance_id = instance_id
        self.session_timeout_ms = SESSION_MS if instance_id is None else STATIC_SESSION_MS
        self.protocols = PROTOCOLS[0]
        self.alive = True
        self.forget()

    def forget(self) -> None:
        self.member_id = ""
        self.joined: JoinResult | None = None
        self.part: frozenset[int] | None = None
        self.waiter: int | None = None

    def hear(self, result: object) -> None:
        """Take an answer in."""
        self.waiter = None
        match result:
            case JoinRefused():
                self.member_id = result.member_id
            case JoinResult():
                self.member_id, self.joined, self.part = result.member_id, result, None
            case SyncResult():
                self.part = frozenset(result.assignment)
            case None:
                pass
            case _:
                self.joined = self.part = None
                if isinstance(result, UnknownMemberId | GroupMaxSizeReached):
                    self.member_id = ""
                elif isinstance(result, FencedInstanceId):
                    self.alive = False
                else:
                    expected = RebalanceInProgress | IllegalGeneration | CoordinatorNotAvailable
                    assert isinstance(result, expected | NotCoordinator), result

    def plan(self) -> dict[str, bytes]:
        """All partitions dealt to all members, by the leader."""
        assert self.joined is not None
        ids = sorted(member.member_id for member in self.joined.members)
        return {each: bytes(PARTITIONS[number :: len(ids)]) for number, each in enumerate(ids)}


class GroupHistory(RuleBasedStateMachine):
    """One group through any history; `kept` is what its store holds."""

    clients_indexes = st.integers(0, 5)

    @initialize(
        delay_ms=st.sampled_from([0, 3_000]),
        max_size=st.sampled_from([3, 100]),
        instances=st.lists(
            st.sampled_from([None, None, "instance-0", "instance-1"]), min_size=6, max_size=6
        ),
    )
    def begin(self, delay_ms, max_size, instances):
        self.settings = GroupSettings(
            initial_rebalance_delay_ms=delay_ms,
            max_size=max_size,
            new_member_join_timeout_ms=NEW_MEMBER_S * 1000,
        )
        self.now_s = 1_000.0
        self.clients = [Client(*each) for each in enumerate(instances)]
        self.waiters = 0
        self.store_is_up = True
        self.new_group()

    def new_group(self):
        self.group = GroupState("g", self.settings, self.now_ms)
        self.kept: ClassicGroup | None = None
        self.unwritten = False
        self.told_generation = 0
        self.owners: dict[tuple[int, int], str] = {}
        self.parts: dict[tuple[int, str], set[bytes]] = {}
        self.open: dict[int, tuple[Client | None, int, str]] = {}

    @property
    def now_ms(self):
        return START_MS + int(self.now_s * 1000)

    # The driver.

    def ask(self, client: Client, generation: int = 0) -> int:
        """A waiter for the client's next request; an earlier one is given up by the client."""
        self.waiters += 1
        client.waiter = self.waiters
        self.open[self.waiters] = (client, generation, client.instance_id or client.member_id)
        return self.waiters

    def write(self) -> None:
        self.unwritten = not self.store_is_up
        if self.store_is_up:
            self.kept = self.group.snapshot()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Persist():
                    self.write()
                case Remove():
                    assert self.group.phase is GroupPhase.DEAD
                case Answer(waiter, JoinResult() | SyncResult() as result):
                    if self.unwritten:
                        self.write()
                    self.tell(waiter, CoordinatorNotAvailable() if self.unwritten else result)
                case Answer(waiter, result):
                    self.tell(waiter, result)

    def tell(self, waiter: int, result: object) -> None:
        client, generation, place = self.open.pop(waiter)  # KeyError: answered twice
        if isinstance(result, JoinResult):
            assert result.generation >= self.told_generation
            self.told_generation = result.generation
            assert self.kept is not None
            assert self.kept.generation == result.generation
            assert result.member_id in {member.member_id for member in self.kept.members}
        elif isinstance(result, SyncResult):
            assert self.kept is not None
            assert self.kept.state == "Stable"
            assert self.kept.generation == generation
            if result.assignment:
                assert result.assignment in self.parts[generation, place]
            for partition in result.assignment:
                assert self.owners.setdefault((generation, partition), place) == place
        if client is not None and client.waiter == waiter:
            client.hear(result)

    def tick(self) -> None:
        if self.group.next_deadline_s() <= self.now_s:
            self.take(self.group.on_time(self.now_s, self.now_ms))

    # What clients do.

    def send_join(self, client: Client) -> None:
        request = JoinRequest(
            group_id="g",
            member_id=client.member_id,
            instance_id=client.instance_id,
            client_id=client.name,
            client_host="/::1",
            protocol_type="consumer",
            protocols=client.protocols,
            session_timeout_ms=client.session_timeout_ms,
            rebalance_timeout_ms=REBALANCE_MS,
            requires_known_member_id=client.name != "client5",
            supports_skip_assignment=client.name != "client4",
        )
        client.joined = client.part = None
        self.take(self.group.join(request, self.ask(client), self.now_s, self.now_ms))

    def send_sync(self, client: Client) -> None:
        joined = client.joined
        assert joined is not None
        leads = joined.leader == joined.member_id and not joined.skip_assignment
        plan = client.plan() if leads else {}
        for member in joined.members if leads else ():
            place = member.instance_id or member.member_id
            part = plan[member.member_id]
            self.parts.setdefault((joined.generation, place), set()).add(part)
        request = SyncRequest(
            joined.generation,
            client.member_id,
            client.instance_id,
            joined.protocol_type,
            joined.protocol,
            plan,
        )
        waiter = self.ask(client, joined.generation)
        self.take(self.group.sync(request, waiter, self.now_s, self.now_ms))

    def send_heartbeat(self, client: Client) -> None:
        assert client.joined is not None
        part = client.part
        error = self.group.heartbeat(
            client.member_id, client.instance_id, client.joined.generation, self.now_s
        )
        client.hear(error)
        if error is None:
            assert client.joined.generation == self.group.generation
            client.part = part

    def act(self, client: Client) -> None:
        """What a consumer does next."""
        if client.waiter is not None or not client.alive:
            return
        if client.joined is None:
            self.send_join(client)
        elif client.part is None:
            self.send_sync(client)
        else:
            self.send_heartbeat(client)

    # What happens.

    @rule(number=clients_indexes)
    def client_acts(self, number):
        self.act(self.clients[number])

    @rule(numbers=st.permutations(range(6)), rounds=st.integers(1, 3))
    def all_act(self, numbers, rounds):
        for _ in range(rounds):
            for number in numbers:
                self.act(self.clients[number])

    @rule(number=clients_indexes, protocols=st.sampled_from(PROTOCOLS))
    def client_joins(self, number, protocols):
        """It joins, or joins again, whatever it waits for."""
        client = self.clients[number]
        client.alive = True
        client.protocols = protocols
        self.send_join(client)

    @rule(number=clients_indexes)
    def client_heartbeats(self, number):
        client = self.clients[number]
        if client.joined is not None and client.waiter is None:
            self.send_heartbeat(client)

    @rule(number=clients_indexes)
    def client_crashes(self, number):
        client = self.clients[number]
        client.alive = False
        client.forget()

    @rule(number=clients_indexes)
    def client_restarts(self, number):
        client = self.clients[number]
        client.alive = True
        client.forget()

    @rule(number=clients_indexes)
    def answer_is_lost(self, number):
        """What the client is still to be told it never gets."""
        client = self.clients[number]
        client.waiter = None

    @rule(numbers=st.lists(clients_indexes, min_size=1, max_size=3))
    def clients_leave(self, numbers):
        leaving = [
            LeavingMember(self.clients[number].member_id, self.clients[number].instance_id)
            for number in numbers
        ]
        results, effects = self.group.leave(leaving, self.now_s, self.now_ms)
        self.take(effects)
        assert [result[:2] for result in results] == [each[:2] for each in leaving]
        for number in numbers:
            self.clients[number].forget()

    @rule(number=clients_indexes)
    def client_commits(self, number):
        client = self.clients[number]
        if client.joined is None:
            error = self.group.check_commit("", None, -1, self.now_s)
            assert (error is None) == (self.group.member_count == 0) or (
                self.group.phase is GroupPhase.PREPARING_REBALANCE
            )
            return
        error = self.group.check_commit(
            client.member_id, client.instance_id, client.joined.generation, self.now_s
        )
        if error is None:
            assert client.joined.generation == self.group.generation
            assert self.group.phase is not GroupPhase.COMPLETING_REBALANCE

    @rule(seconds=st.sampled_from([0.5, 3, 9, 11, 31, 61]))
    def time_passes(self, seconds):
        """Nobody says anything meanwhile."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, max(self.group.next_deadline_s(), self.now_s + 0.25))
            self.tick()

    @rule(steps=st.integers(1, 12))
    def time_passes_with_clients(self, steps):
        for _ in range(steps):
            self.now_s += 1
            self.tick()
            for client in self.clients:
                self.act(client)

    @rule()
    def time_is_looked_at(self):
        """To look too often does no harm."""
        deadline_s = self.group.next_deadline_s()
        if deadline_s > self.now_s:
            assert self.group.on_time(self.now_s, self.now_ms) == []

    @rule(is_up=st.booleans())
    def store_changes(self, is_up):
        self.store_is_up = is_up

    @rule()
    def all_waiters_are_answered(self):
        self.take(self.group.abandon(NotCoordinator(), self.now_s))
        assert not self.open

    @rule(crashed=st.booleans())
    def broker_restarts(self, crashed):
        """The group is read back as it was written; what was not is lost."""
        self.take(self.group.abandon(NotCoordinator(), self.now_s))
        kept = self.kept if crashed else self.group.snapshot()
        if kept is None:
            self.group = GroupState("g", self.settings, self.now_ms)
        else:
            self.group = GroupState.restore(kept, self.settings, self.now_s)
            assert self.group.snapshot() == kept
        self.kept = kept
        self.unwritten = False

    @precondition(lambda self: self.group.member_count == 0)
    @rule()
    def group_is_deleted(self):
        error, effects = self.group.delete(self.now_ms)
        if self.group.phase is not GroupPhase.DEAD:
            assert isinstance(error, KafkaError)
            assert effects == []
            return
        assert effects == [Remove()]
        assert self.group.next_deadline_s() == math.inf
        self.new_group()

    @rule()
    def all_settle(self):
        """Clients that go on, and a store that works, come to a stable group with all of it."""
        self.store_is_up = True
        for _ in range(200):
            self.now_s += 1
            self.tick()
            for client in self.clients:
                self.act(client)
        living = [client for client in self.clients if client.alive]
        if self.settings.max_size < len(living):
            return
        assert all(client.part is not None for client in living)
        assert len({client.instance_id or client.member_id for client in living}) == len(living)
        assert self.group.member_count == len(living)
        shared = Counter(partition for client in living for partition in client.part)
        assert shared == (Counter(PARTITIONS) if living else Counter())

    # What always holds.

    @invariant()
    def books_are_right(self):
        group = self.group
        members = list(group._members)
        waiting = [each for member in members for each in (member.join_waiter, member.sync_waiter)]
        assert sorted(each for each in waiting if each is not None) == sorted(self.open)
        assert group._members.awaiting_join == sum(
            member.join_waiter is not None for member in members
        )
        assert group._members._supporters == Counter(
            name for member in members for name, _ in member.protocols
        )
        assert group._members._static_ids == {
            member.instance_id: member.member_id
            for member in members
            if member.instance_id is not None
        }
        ids = {member.member_id for member in members}
        assert (group.leader in ids) if members else group.leader is None
        assert group._pending_sync <= ids
        assert not group._pending_join.keys() & ids
        assert group._sessions._watched.keys() <= ids | group._pending_join.keys()

    @invariant()
    def phase_fits(self):
        group, members = self.group, list(self.group._members)
        match group.phase:
            case GroupPhase.EMPTY:
                assert not members
                assert group._phase_end_s == math.inf
            case GroupPhase.PREPARING_REBALANCE:
                assert not any(member.sync_waiter for member in members)
                assert not group._pending_sync
                assert group._phase_end_s < math.inf
            case GroupPhase.COMPLETING_REBALANCE:
                assert not any(member.join_waiter for member in members)
                assert not any(member.assignment for member in members)
                assert group.leader in group._pending_sync
            case GroupPhase.STABLE:
                assert not any(member.is_parked for member in members)
                assert (group._phase_end_s < math.inf) == bool(group._pending_sync)
        assert group.protocol is not None or group.phase in {
            GroupPhase.EMPTY,
            GroupPhase.PREPARING_REBALANCE,
        }

    @invariant()
    def sessions_end(self):
        """Who may go silent is watched, and nobody whose session has ended is left."""
        group = self.group
        ends = dict(group._pending_join)
        ends.update({member.member_id: member.expires_s for member in group._members})
        for member_id, end_s in ends.items():
            if end_s < math.inf:
                assert group._sessions._watched[member_id] <= end_s
                assert self.now_s - 1 < end_s <= self.now_s + NEW_MEMBER_S
        for member in group._members:
            if not member.is_parked:
                assert member.expires_s <= self.now_s + member.session_timeout_ms / 1000
            elif not member.is_new:
                assert member.expires_s == math.inf

    def teardown(self):
        """As time passes everyone is answered and, nobody heartbeating, out."""
        if not hasattr(self, "group"):
            return
        for _ in range(1_000):
            deadline_s = self.group.next_deadline_s()
            if deadline_s == math.inf:
                break
            self.now_s = max(self.now_s, deadline_s)
            self.take(self.group.on_time(self.now_s, self.now_ms))
        assert self.group.next_deadline_s() == math.inf
        assert not self.open
        assert self.group.phase is GroupPhase.EMPTY


TestGroupHistory = GroupHistory.TestCase
TestGroupHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
