"""Membership of consumer groups (KIP-848), against a model of their coordinator."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trioq.client.consumer_membership_state import (
    ConsumerMembership,
    ConsumerPhase,
    HeartbeatAnswer,
    Target,
    as_target,
)
from trioq.client.membership_steps import (
    NEVER_S,
    Assign,
    ConsumerHeartbeat,
    Failed,
    MembershipSettings,
    ResolveTopics,
    Revoke,
    Wait,
)
from trioq.errors import (
    CoordinatorNotAvailable,
    FencedMemberEpoch,
    GroupMaxSizeReached,
    KafkaError,
    StaleMemberEpoch,
    UnknownMemberId,
)
from trioq.types import TopicPartition

ID = uuid.UUID(int=7)
OTHER = uuid.UUID(int=8)
NAMES = {ID: "t", OTHER: "u"}
T0, T1, T2 = (TopicPartition("t", number) for number in range(3))
PARTITIONS = 4


class Coordinator:
    """Gives the partitions of one topic out; a partition moves once its owner reported it gone."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.owned: dict[str, frozenset[int]] = {}
        self.epoch = 0

    def target(self, member: str) -> frozenset[int]:
        members = sorted(self.epochs)
        index = members.index(member)
        return frozenset(range(index, PARTITIONS, len(members)))

    def heartbeat(self, sent: ConsumerHeartbeat) -> HeartbeatAnswer | KafkaError:
        member = sent.member_id
        if sent.member_epoch < 0:
            self.remove(member)
            return HeartbeatAnswer(member, sent.member_epoch, 0, None)
        if sent.member_epoch == 0:
            assert sent.topics == {"t"}
            assert sent.owned == ()
            self.epoch += 1
            self.owned[member] = frozenset()
        elif member not in self.epochs:
            return UnknownMemberId()
        elif sent.member_epoch != self.epochs[member]:
            return FencedMemberEpoch()
        self.epochs[member] = self.epochs.get(member, self.epoch)
        if sent.owned is not None and sent.member_epoch:
            self.owned[member] = frozenset(
                number for _, numbers in sent.owned for number in numbers
            )
        self.epochs[member] = self.epoch
        taken = frozenset().union(
            *(numbers for other, numbers in self.owned.items() if other != member)
        )
        free = self.target(member) - taken
        self.owned[member] |= free
        return HeartbeatAnswer(member, self.epoch, 1000, as_target([(ID, sorted(free))]))

    def remove(self, member: str) -> None:
        if self.epochs.pop(member, None) is not None:
            self.owned.pop(member)
            self.epoch += 1


class Client:
    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.coordinator = coordinator
        self.machine = ConsumerMembership(MembershipSettings("g"), member_id=name)
        self.machine.subscribe(frozenset({"t"}))
        self.reading: frozenset[TopicPartition] = frozenset()
        self.now_s = 0.0
        self.answer: HeartbeatAnswer | KafkaError | None = None

    def step(self) -> None:
        machine = self.machine
        match machine.next_step(self.now_s):
            case Revoke(partitions, _):
                self.reading -= partitions
                machine.revoked(partitions)
            case Assign(added, owned):
                self.reading |= added
                machine.assigned()
                assert owned == self.reading == machine.owned
            case ResolveTopics(topic_ids):
                machine.topics_resolved({topic_id: NAMES[topic_id] for topic_id in topic_ids})
            case Failed(error):
                raise error
            case _:
                self.now_s += 0.3

    def send(self) -> None:
        heartbeat = self.machine.next_heartbeat(self.now_s)
        if heartbeat is not None:
            self.answer = self.coordinator.heartbeat(heartbeat)

    def receive(self, *, lost: bool = False) -> None:
        answer, self.answer = self.answer, None
        if answer is None:
            return
        if lost:
            self.machine.heartbeat_failed(CoordinatorNotAvailable(), self.now_s)
        elif isinstance(answer, KafkaError):
            self.machine.heartbeat_failed(answer, self.now_s)
        else:
            self.machine.heartbeat_answered(answer, self.now_s)


class Groups(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.coordinator = Coordinator()
        self.clients: list[Client] = []
        self.names = itertools.count()

    @rule()
    def add(self) -> None:
        if len(self.clients) < 3:
            self.clients.append(Client(self.coordinator, f"member-{next(self.names)}"))

    @rule(number=st.integers(0, 2), kinds=st.lists(st.sampled_from("ssghl"), max_size=8))
    def run(self, number: int, kinds: list[str]) -> None:
        if not self.clients:
            return
        client = self.clients[number % len(self.clients)]
        for kind in kinds:
            if kind == "s":
                client.step()
            elif kind == "g":
                client.send()
            else:
                client.receive(lost=kind == "l")

    @rule(number=st.integers(0, 2))
    def expire(self, number: int) -> None:
        if self.clients:
            self.coordinator.remove(self.clients[number % len(self.clients)].machine.member_id)

    @rule(number=st.integers(0, 2))
    def leave(self, number: int) -> None:
        if self.clients:
            client = self.clients.pop(number % len(self.clients))
            client.receive()
            heartbeat = client.machine.leave()
            if heartbeat is not None:
                assert heartbeat.member_epoch == -1
                self.coordinator.heartbeat(heartbeat)

    @invariant()
    def nothing_is_read_twice(self) -> None:
        if not hasattr(self, "clients"):
            return
        belonging = [
            client
            for client in self.clients
            if client.machine.epoch and client.machine.member_id in self.coordinator.epochs
        ]
        for one, other in itertools.combinations(belonging, 2):
            if self.coordinator.epochs[one.machine.member_id] == one.machine.epoch:
                assert not one.reading & other.reading or self._stale(other) or self._stale(one)

    def _stale(self, client: Client) -> bool:
        """Removed and joined again on its behalf by an answer that was lost: it finds out."""
        owned = self.coordinator.owned[client.machine.member_id]
        return not {partition.partition for partition in client.reading} <= owned

    def teardown(self) -> None:
        if not getattr(self, "clients", None):
            return
        for _ in range(120):
            for client in self.clients:
                client.send()
                client.receive()
                for _ in range(4):
                    client.step()
        owned = [partition for client in self.clients for partition in client.reading]
        assert sorted(owned) == [TopicPartition("t", number) for number in range(PARTITIONS)]
        assert all(client.machine.is_stable for client in self.clients)


Groups.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestGroups = Groups.TestCase


# ---- single members, step by step ---------------------------------------------------------


def give_up(machine: ConsumerMembership) -> None:
    step = machine.next_step(0)
    assert isinstance(step, Revoke)
    machine.revoked(step.partitions)


def member(**arguments: Any) -> ConsumerMembership:
    machine = ConsumerMembership(MembershipSettings("g", **arguments), "uniform", member_id="me")
    machine.subscribe(frozenset({"t"}))
    return machine


def answered(machine: ConsumerMembership, epoch: int, target: Target | None) -> None:
    machine.heartbeat_answered(HeartbeatAnswer("me", epoch, 1000, target), 0)


def settled(*numbers: int, **arguments: Any) -> ConsumerMembership:
    machine = member(**arguments)
    assert machine.next_heartbeat(0) is not None
    answered(machine, 1, as_target([(ID, numbers)]))
    assert machine.next_step(0) == ResolveTopics(frozenset({ID}))
    machine.topics_resolved(NAMES)
    if numbers:
        assert isinstance(machine.next_step(0), Assign)
        machine.assigned()
    assert machine.next_step(0) == Wait(NEVER_S)
    if machine.next_heartbeat(0) is not None:
        answered(machine, 1, None)
    assert machine.is_stable
    return machine


def test_the_first_heartbeat_says_everything() -> None:
    machine = member(instance_id="i", rack="r", rebalance_timeout_ms=9000)
    assert machine.next_heartbeat(0) == ConsumerHeartbeat(
        "me", 0, "i", "r", 9000, frozenset({"t"}), "uniform", ()
    )
    assert machine.next_heartbeat(1e9) is None, "one at a time"


def test_later_ones_say_what_changed() -> None:
    machine = settled(0, 1)
    assert machine.heartbeat_at_s() == 1.0
    assert machine.next_heartbeat(1) == ConsumerHeartbeat("me", 1)
    answered(machine, 1, None)
    machine.subscribe(frozenset({"t", "u"}))
    assert machine.next_heartbeat(0) == ConsumerHeartbeat("me", 1, topics=frozenset({"t", "u"}))
    machine.heartbeat_failed(CoordinatorNotAvailable(), 0)
    again = machine.next_heartbeat(0.1)
    assert again is not None
    assert again.owned == ((ID, (0, 1)),)
    assert again.topics == {"t", "u"}


def test_what_is_gone_from_the_target_is_revoked_before_the_rest_is_taken() -> None:
    machine = settled(0, 1)
    machine.next_heartbeat(1)
    answered(machine, 2, as_target([(ID, [1, 2])]))
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=False)
    give_up(machine)
    assert machine.next_step(0) == Assign(frozenset({T2}), frozenset({T1, T2}))
    machine.assigned()
    assert machine.next_heartbeat(0) == ConsumerHeartbeat("me", 2, owned=((ID, (1, 2)),))


def test_topics_without_a_name_are_waited_for() -> None:
    machine = settled(0)
    machine.next_heartbeat(1)
    unknown = uuid.UUID(int=99)
    answered(machine, 2, as_target([(ID, [0]), (unknown, [5])]))
    assert machine.next_step(0) == ResolveTopics(frozenset({unknown}))
    machine.topics_resolved({})
    assert machine.next_step(0) == Wait(NEVER_S)
    machine.metadata_changed()
    assert machine.next_step(0) == ResolveTopics(frozenset({unknown}))
    machine.topics_resolved({unknown: "new"})
    assert machine.next_step(0) == Assign(
        frozenset({TopicPartition("new", 5)}), frozenset({T0, TopicPartition("new", 5)})
    )


@pytest.mark.parametrize("error", [FencedMemberEpoch(), UnknownMemberId()])
@pytest.mark.parametrize("source", ["heartbeat", "commit"])
def test_whoever_is_fenced_loses_all_and_joins_again(error: KafkaError, source: str) -> None:
    machine = settled(0, 1)
    if source == "heartbeat":
        machine.next_heartbeat(1)
        machine.heartbeat_failed(error, 1)
    else:
        machine.commit_refused(1, error)
    assert machine.next_heartbeat(1e9) is None, "not while it still reads"
    assert machine.next_step(0) == Revoke(frozenset({T0, T1}), lost=True)
    give_up(machine)
    heartbeat = machine.next_heartbeat(0)
    assert heartbeat is not None
    assert (heartbeat.member_epoch, heartbeat.owned) == (0, ())


def test_a_stale_commit_makes_the_member_ask() -> None:
    machine = settled(0)
    machine.commit_refused(0, FencedMemberEpoch())
    assert machine.heartbeat_at_s() == 1.0
    machine.commit_refused(1, StaleMemberEpoch())
    assert machine.heartbeat_at_s() == 0.0


def test_what_cannot_be_mended_ends_the_membership() -> None:
    machine = settled(0)
    machine.next_heartbeat(1)
    error = GroupMaxSizeReached()
    machine.heartbeat_failed(error, 1)
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=True)
    give_up(machine)
    assert machine.next_step(0) == Failed(error)
    assert machine.heartbeat_at_s() == NEVER_S


@pytest.mark.parametrize(("instance", "epoch"), [(None, -1), ("i", -2)])
def test_leaving_says_so_and_revokes(instance: str | None, epoch: int) -> None:
    machine = settled(0, instance_id=instance)
    assert machine.leave() == ConsumerHeartbeat("me", epoch, instance)
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=False)
    give_up(machine)
    assert machine.next_step(0) == Wait(NEVER_S)
    assert machine.leave() is None
    machine.return_to_group()
    assert machine.phase is ConsumerPhase.JOINING
    assert machine.next_heartbeat(0) is not None


def test_not_polling_loses_everything() -> None:
    machine = settled(0)
    assert machine.poll_expired() == ConsumerHeartbeat("me", -1)
    assert machine.next_step(0) == Revoke(frozenset({T0}), lost=True)


def test_an_answer_after_leaving_changes_nothing() -> None:
    machine = member()
    machine.next_heartbeat(0)
    assert machine.leave() is not None
    answered(machine, 1, as_target([(ID, [0])]))
    assert machine.phase is ConsumerPhase.LEFT
    assert machine.next_step(0) == Wait(NEVER_S)
