"""Membership of classic groups: whatever happens, no partition has two readers who both belong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.client.group_model import Client, Coordinator
from trioq.client.assignors import ASSIGNORS, Assignor, assignors_named
from trioq.client.group_protocol import member_assignment, member_metadata, read_member_metadata
from trioq.client.membership_state import ClassicMembership, JoinedGroup, MemberPhase
from trioq.client.membership_steps import (
    NEVER_S,
    Assign,
    Failed,
    Heartbeat,
    Join,
    MembershipSettings,
    Plan,
    Revoke,
    Sync,
    Wait,
)
from trioq.errors import (
    CoordinatorLoadInProgress,
    FencedInstanceId,
    GroupAuthorizationFailed,
    IllegalGeneration,
    InconsistentGroupProtocol,
    KafkaError,
    MemberIdRequired,
    NotCoordinator,
    OffsetMetadataTooLarge,
    ProtocolViolation,
    RebalanceInProgress,
    UnknownMemberId,
)
from trioq.types import TopicPartition

TOPICS = frozenset({"t", "u"})
T0, T1, T2 = (TopicPartition("t", number) for number in range(3))


class Groups(RuleBasedStateMachine):
    """Members come, go, crash, resubscribe and are forgotten, in any order of their steps."""

    @initialize(names=st.sampled_from([["range"], ["cooperative-sticky"], ["sticky", "range"]]))
    def start(self, names: list[str]) -> None:
        self.assignors: tuple[Assignor, ...] = assignors_named(names)
        self.coordinator = Coordinator()
        self.counts = {"t": 3, "u": 2}
        self.clients: list[Client] = []

    def client(self, number: int) -> Client | None:
        return self.clients[number % len(self.clients)] if self.clients else None

    @rule(topics=st.sampled_from([TOPICS, frozenset({"t"})]))
    def add(self, topics: frozenset[str]) -> None:
        if len(self.clients) < 4:
            self.clients.append(Client(self.coordinator, self.assignors, self.counts, topics))

    @rule(number=st.integers(0, 3), steps=st.integers(1, 12))
    def run(self, number: int, steps: int) -> None:
        client = self.client(number)
        for _ in range(steps if client else 0):
            client.step()

    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        if client := self.client(number):
            member_id = client.machine.member_id
            told = client.machine.leave()
            self.clients.remove(client)
            if told:
                self.coordinator.remove(member_id)

    @rule(number=st.integers(0, 3))
    def expire(self, number: int) -> None:
        """Its session ends; it finds out later."""
        if client := self.client(number):
            waited = client.waits_for_answer
            self.coordinator.remove(client.machine.member_id)
            if waited and client.waits_for_answer:
                error = UnknownMemberId()
                joining = client.machine.phase is MemberPhase.JOINING
                (client.answer_join if joining else client.answer_sync)(error)

    @rule(number=st.integers(0, 3), topics=st.sampled_from([TOPICS, frozenset({"u"})]))
    def resubscribe(self, number: int, topics: frozenset[str]) -> None:
        if client := self.client(number):
            client.topics = topics
            client.machine.subscribe(topics)

    @rule()
    def grow(self) -> None:
        self.counts["t"] = min(self.counts["t"] + 1, 6)

    @rule()
    def lose_state(self) -> None:
        self.coordinator.forget_everything()

    @invariant()
    def nothing_is_read_twice(self) -> None:
        if not hasattr(self, "clients"):
            return
        belonging = [
            client
            for client in self.clients
            if client.machine.member_id in self.coordinator.members
            and client.machine.generation
            in {self.coordinator.generation, self.coordinator.generation - 1}
        ]
        for one, other in itertools.combinations(belonging, 2):
            assert not one.reading & other.reading

    def teardown(self) -> None:
        if not getattr(self, "clients", None):
            return
        idle = 0
        for _ in range(400):
            stepped = [client.step() for client in self.clients]
            idle = 0 if any(stepped) else idle + 1
            if idle > 12:  # longer than a heartbeat's interval
                break
        everything = frozenset().union(*(client.topics for client in self.clients))
        owned = [partition for client in self.clients for partition in client.reading]
        assert sorted(owned) == [
            TopicPartition(topic, number)
            for topic in sorted(everything)
            for number in range(self.counts[topic])
        ]
        assert all(client.machine.is_stable for client in self.clients)
        assert all(client.reading == client.machine.owned for client in self.clients)


Groups.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestGroups = Groups.TestCase


# ---- single members, step by step ---------------------------------------------------------


def give_up(machine: ClassicMembership) -> None:
    step = machine.next_step(0)
    assert isinstance(step, Revoke)
    machine.revoked(step.partitions)


def member(*names: str, topics: frozenset[str] = TOPICS, **arguments: object) -> ClassicMembership:
    values = {"heartbeat_interval_ms": 3000, "retry_backoff_ms": 100, **arguments}
    machine = ClassicMembership(
        MembershipSettings("g", **values),  # type: ignore[arg-type]
        assignors_named(names or ("range",)),
    )
    machine.subscribe(topics)
    return machine


def run_join(
    machine: ClassicMembership, *owned: TopicPartition, generation: int = 1, protocol: str = "range"
) -> None:
    """A rebalance as a follower, in which nothing has to be revoked first."""
    assert isinstance(machine.next_step(0), Join)
    machine.joining()
    machine.joined(JoinedGroup(generation, protocol, "leader", "me", []), 0)
    assert isinstance(machine.next_step(0), Sync)
    machine.synced(member_assignment(owned))


def settled(*names: str, owned: tuple[TopicPartition, ...] = (T0, T1)) -> ClassicMembership:
    machine = member(*names)
    run_join(machine, *owned, protocol=names[0] if names else "range")
    assert machine.next_step(0) == Assign(frozenset(owned), frozenset(owned))
    machine.assigned()
    assert machine.next_step(0) == Wait(NEVER_S)
    assert machine.is_stable
    return machine


def test_nothing_is_joined_before_a_subscription() -> None:
    machine = ClassicMembership(MembershipSettings("g"), assignors_named(["range"]))
    assert machine.next_step(0) == Wait(NEVER_S)
    assert machine.next_heartbeat(1e9) is None


def test_a_member_id_that_is_required_is_used_at_once() -> None:
    machine = member()
    first = machine.next_step(0)
    assert isinstance(first, Join)
    assert first.member_id == ""
    machine.joining()
    machine.join_failed(MemberIdRequired(), 0, "given")
    again = machine.next_step(0)
    assert isinstance(again, Join)
    assert again.member_id == "given"


def test_a_leader_plans_for_everybody_and_watches_its_topics() -> None:
    machine = member()
    machine.joining()
    other = member_metadata(read_member_metadata(machine_metadata(topics=frozenset({"v"}))))
    machine.joined(
        JoinedGroup(
            3, "range", "me", "me", [("me", None, machine_metadata()), ("you", None, other)]
        ),
        0,
    )
    assert machine.next_step(0) == Plan(frozenset({"t", "u", "v"}))
    machine.plan({"t": 2, "v": 1, "other": 9})
    sync = machine.next_step(0)
    assert isinstance(sync, Sync)
    assert sync.assignments == {
        "me": member_assignment([T0, T1]),
        "you": member_assignment([TopicPartition("v", 0)]),
    }
    machine.synced(sync.assignments["me"])
    machine.next_step(0)
    machine.assigned()
    assert machine.watched_topics == {"t", "u", "v"}
    machine.partitions_changed({"t": 2, "v": 1, "other": 10})
    assert machine.is_stable
    machine.partitions_changed({"t": 2, "v": 1, "u": 1})
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=False)


def machine_metadata(topics: frozenset[str] = TOPICS) -> bytes:
    join = member(topics=topics).next_step(0)
    assert isinstance(join, Join)
    return join.protocols[0][1]


def test_metadata_that_cannot_be_read_gets_nothing_and_is_named() -> None:
    machine = member()
    machine.joining()
    members = [("me", None, machine_metadata()), ("odd", None, b"\0")]
    machine.joined(JoinedGroup(1, "range", "me", "me", members), 0)
    machine.plan({"t": 1, "u": 1})
    sync = machine.next_step(0)
    assert isinstance(sync, Sync)
    assert machine.unreadable_members == ["odd"]
    assert sync.assignments["odd"] == member_assignment([])


def test_a_leader_told_to_skip_sends_no_assignment_but_watches() -> None:
    machine = member()
    machine.joining()
    members = [("me", "i", machine_metadata())]
    machine.joined(JoinedGroup(1, "range", "me", "me", members, skip_assignment=True), 0)
    assert isinstance(machine.next_step(0), Plan)
    machine.plan({"t": 1})
    assert machine.next_step(0) == Sync(1, "me", "range", {})
    machine.synced(member_assignment([T0]))
    machine.assigned()
    machine.partitions_changed({"t": 2})
    assert not machine.is_stable


def test_an_eager_member_gives_all_up_before_it_rejoins() -> None:
    machine = settled()
    machine.heartbeat_answered(Heartbeat(1, "me"), RebalanceInProgress())
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=False)
    assert machine.next_heartbeat(10) == Heartbeat(1, "me"), "still alive while it gives up"
    give_up(machine)
    step = machine.next_step(0)
    assert isinstance(step, Join)
    assert read_member_metadata(step.protocols[0][1]).owned == ()


def test_a_cooperative_member_keeps_all_and_rejoins_after_giving_up() -> None:
    machine = settled("cooperative-sticky")
    machine.heartbeat_answered(Heartbeat(1, "me"), RebalanceInProgress())
    step = machine.next_step(0)
    assert isinstance(step, Join)
    metadata = read_member_metadata(step.protocols[0][1])
    assert (set(metadata.owned), metadata.generation) == ({T0, T1}, 1)
    run_join(machine, T1, generation=2, protocol="cooperative-sticky")
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=False)
    give_up(machine)
    assert machine.next_step(0) == Assign(frozenset(), frozenset({T1}))
    machine.assigned()
    assert isinstance(machine.next_step(0), Join)
    run_join(machine, T1, T2, generation=3, protocol="cooperative-sticky")
    assert machine.next_step(0) == Assign(frozenset({T2}), frozenset({T1, T2}))


def test_a_cooperative_member_gives_up_topics_that_it_left() -> None:
    machine = settled("cooperative-sticky")
    machine.subscribe(frozenset({"u"}))
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=False)
    give_up(machine)
    assert isinstance(machine.next_step(0), Join)


@pytest.mark.parametrize("error", [UnknownMemberId(), IllegalGeneration()])
@pytest.mark.parametrize("source", ["heartbeat", "commit", "sync", "join"])
@pytest.mark.parametrize("assignor", sorted(ASSIGNORS))
def test_whoever_is_forgotten_has_lost_everything(
    error: KafkaError, source: str, assignor: str
) -> None:
    machine = settled(assignor)
    owned = machine.owned
    if source == "heartbeat":
        machine.heartbeat_answered(Heartbeat(1, "me"), error)
    elif source == "commit":
        machine.commit_refused(1, error)
    else:
        machine.request_rejoin("test")
        if isinstance(machine.next_step(0), Revoke):
            give_up(machine)
            owned = frozenset()
        machine.next_step(0)
        machine.joining()
        if source == "join":
            machine.join_failed(error, 0)
        else:
            machine.joined(JoinedGroup(2, assignor, "leader", "me", []), 0)
            machine.sync_failed(error, 0)
    if owned:
        assert machine.next_step(0) == Revoke(owned, lost=True)
        give_up(machine)
    join = machine.next_step(0)
    assert isinstance(join, Join)
    assert join.member_id == ("" if isinstance(error, UnknownMemberId) else "me")
    assert read_member_metadata(join.protocols[0][1]).owned == ()


def test_answers_to_an_older_generation_change_nothing() -> None:
    machine = settled()
    machine.heartbeat_answered(Heartbeat(0, "me"), UnknownMemberId())
    machine.commit_refused(0, IllegalGeneration())
    machine.commit_refused(1, OffsetMetadataTooLarge())
    assert machine.is_stable


@pytest.mark.parametrize(
    "error", [NotCoordinator(), CoordinatorLoadInProgress(), RebalanceInProgress()]
)
def test_trouble_with_the_coordinator_is_waited_out_ever_longer(error: KafkaError) -> None:
    machine = member()
    waits = []
    now_s = 0.0
    for _ in range(6):
        assert isinstance(machine.next_step(now_s), Join)
        machine.joining()
        machine.join_failed(error, now_s)
        wait = machine.next_step(now_s)
        assert isinstance(wait, Wait)
        waits.append(round(wait.until_s - now_s, 3))
        now_s = wait.until_s
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@pytest.mark.parametrize("error", [GroupAuthorizationFailed(), FencedInstanceId()])
def test_what_cannot_be_mended_ends_the_membership(error: KafkaError) -> None:
    machine = settled()
    machine.heartbeat_answered(Heartbeat(1, "me"), error)
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=True)
    give_up(machine)
    assert machine.next_step(0) == Failed(error)
    assert machine.next_heartbeat(1e9) is None


def test_an_assignor_that_was_not_listed_is_an_error() -> None:
    machine = member()
    machine.joining()
    machine.joined(JoinedGroup(1, "sticky", "you", "me", []), 0)
    step = machine.next_step(0)
    assert isinstance(step, Failed)
    assert isinstance(step.error, InconsistentGroupProtocol)
    assert "'sticky'" in str(step.error)


def test_an_assignment_that_cannot_be_read_is_an_error() -> None:
    machine = member()
    machine.joining()
    machine.joined(JoinedGroup(1, "range", "you", "me", []), 0)
    machine.synced(b"\0\0\0\0")
    step = machine.next_step(0)
    assert isinstance(step, Failed)
    assert isinstance(step.error, ProtocolViolation)


def test_partitions_of_topics_that_were_left_meanwhile_are_not_taken() -> None:
    machine = member()
    machine.joining()
    machine.subscribe(frozenset({"u"}))
    machine.joined(JoinedGroup(1, "range", "you", "me", []), 0)
    machine.synced(member_assignment([T0]))
    assert machine.next_step(0) == Assign(frozenset(), frozenset())
    machine.assigned()
    assert isinstance(machine.next_step(0), Join)


def test_an_empty_assignment_owns_nothing() -> None:
    machine = member()
    run_join(machine)
    machine.synced(b"")
    assert machine.next_step(0) == Assign(frozenset(), frozenset())


def test_heartbeats_come_when_due_and_only_for_members() -> None:
    machine = settled()
    assert machine.heartbeat_at_s() == 3.0
    assert machine.next_heartbeat(2.9) is None
    assert machine.next_heartbeat(3.0) == Heartbeat(1, "me")
    assert machine.next_heartbeat(3.1) is None
    machine.request_rejoin("test")
    machine.next_step(3.1)
    give_up(machine)
    machine.next_step(3.1)
    machine.joining()
    assert machine.next_heartbeat(100) is None


def test_leaving_revokes_and_returning_joins_anew() -> None:
    machine = settled()
    assert machine.leave()
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=False)
    give_up(machine)
    assert machine.next_step(0) == Wait(NEVER_S)
    machine.return_to_group()
    join = machine.next_step(0)
    assert isinstance(join, Join)
    assert join.member_id == ""


def test_a_static_member_leaves_without_a_word() -> None:
    machine = member(instance_id="one")
    run_join(machine, T0)
    machine.next_step(0)
    machine.assigned()
    assert not machine.leave()


def test_a_member_that_does_not_poll_loses_all_and_leaves() -> None:
    machine = settled()
    assert machine.poll_expired() == "me"
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=True)
    give_up(machine)
    assert machine.next_step(0) == Wait(NEVER_S)


def test_losing_everything_while_it_is_being_assigned_takes_that_back_too() -> None:
    machine = member()
    run_join(machine, T0)
    assert machine.next_step(0) == Assign(frozenset({T0}), frozenset({T0}))
    machine.heartbeat_answered(Heartbeat(1, "me"), UnknownMemberId())
    machine.assigned()
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=True)


@given(st.binary(max_size=40))
def test_any_bytes_as_an_assignment_are_survived(data: bytes) -> None:
    machine = member()
    machine.joining()
    machine.joined(JoinedGroup(1, "range", "you", "me", []), 0)
    machine.synced(data)
    assert isinstance(machine.next_step(0), (Assign, Failed))
