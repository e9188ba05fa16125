"""A classic group's coordinator as a model: enough of it to drive membership machines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from trioq.client.assignors import Assignor
from trioq.client.membership_state import ClassicMembership, JoinedGroup
from trioq.client.membership_steps import (
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
    IllegalGeneration,
    KafkaError,
    MemberIdRequired,
    RebalanceInProgress,
    UnknownMemberId,
)
from trioq.types import TopicPartition


class Coordinator:
    """Joins wait for every known member; syncs wait for the leader's."""

    def __init__(self) -> None:
        self.generation = 0
        self.members: dict[str, tuple[tuple[str, bytes], ...]] = {}
        self.pending: set[str] = set()
        self.joining: dict[str, Client] = {}
        self.syncing: dict[str, Client] = {}
        self.assignments: dict[str, bytes] | None = None
        self.rebalancing = False
        self._ids = itertools.count()

    def join(self, client: Client, step: Join) -> None:
        if not step.member_id:
            member_id = f"m{next(self._ids)}"
            self.pending.add(member_id)
            client.answer_join(MemberIdRequired(), member_id=member_id)
            return
        if step.member_id not in self.members and step.member_id not in self.pending:
            client.answer_join(UnknownMemberId())
            return
        self.pending.discard(step.member_id)
        self.members[step.member_id] = step.protocols
        self.joining[step.member_id] = client
        self._prepare()
        self._complete()

    def sync(self, client: Client, step: Sync) -> None:
        refusal = self._check(step.member_id, step.generation)
        if refusal is None and self.rebalancing:
            refusal = RebalanceInProgress()
        if refusal is not None:
            client.answer_sync(refusal)
            return
        self.syncing[step.member_id] = client
        if step.assignments:
            self.assignments = dict(step.assignments)
        if self.assignments is not None:
            waiting, self.syncing = self.syncing, {}
            for member_id, one in waiting.items():
                one.answer_sync(self.assignments.get(member_id, b""))

    def heartbeat(self, step: Heartbeat) -> KafkaError | None:
        refusal = self._check(step.member_id, step.generation)
        if refusal is None and self.rebalancing:
            return RebalanceInProgress()
        return refusal

    def remove(self, member_id: str) -> None:
        """A member left, or its session ended."""
        if self.members.pop(member_id, None) is None:
            return
        self.joining.pop(member_id, None)
        self.syncing.pop(member_id, None)
        self._prepare()
        self._complete()

    def forget_everything(self) -> None:
        """What a coordinator without its state does: nobody is known."""
        waiting, self.joining = self.joining, {}
        syncing, self.syncing = self.syncing, {}
        self.members = {}
        self.pending = set()
        self.assignments = None
        self.rebalancing = False
        for client in waiting.values():
            client.answer_join(UnknownMemberId())
        for client in syncing.values():
            client.answer_sync(UnknownMemberId())

    def _check(self, member_id: str, generation: int) -> KafkaError | None:
        if member_id not in self.members:
            return UnknownMemberId()
        return None if generation == self.generation else IllegalGeneration()

    def _prepare(self) -> None:
        self.rebalancing = bool(self.members)
        self.assignments = None
        waiting, self.syncing = self.syncing, {}
        for client in waiting.values():
            client.answer_sync(RebalanceInProgress())

    def _complete(self) -> None:
        if not self.members or self.joining.keys() != self.members.keys():
            return
        self.generation += 1
        self.rebalancing = False
        joined, self.joining = self.joining, {}
        common = set.intersection(
            *({name for name, _ in protocols} for protocols in self.members.values())
        )
        protocol = min(common)
        leader = min(self.members)
        for member_id, client in joined.items():
            members = [
                (one, None, dict(protocols)[protocol]) for one, protocols in self.members.items()
            ]
            client.answer_join(
                JoinedGroup(
                    self.generation,
                    protocol,
                    leader,
                    member_id,
                    members if member_id == leader else [],
                )
            )


class Client:
    """One machine with its driver; what it reads is `reading`."""

    def __init__(
        self,
        coordinator: Coordinator,
        assignors: Sequence[Assignor],
        counts: dict[str, int],
        topics: frozenset[str],
    ) -> None:
        self.coordinator = coordinator
        self.counts = counts
        settings = MembershipSettings("g", heartbeat_interval_ms=1000)
        self.machine = ClassicMembership(settings, assignors)
        self.machine.subscribe(topics)
        self.topics = topics
        self.reading: frozenset[TopicPartition] = frozenset()
        self.lost: list[frozenset[TopicPartition]] = []
        self.now_s = 0.0
        self.waits_for_answer = False

    def answer_join(self, answer: JoinedGroup | KafkaError, member_id: str = "") -> None:
        self.waits_for_answer = False
        if isinstance(answer, KafkaError):
            self.machine.join_failed(answer, self.now_s, member_id)
        else:
            self.machine.joined(answer, self.now_s)

    def answer_sync(self, answer: bytes | KafkaError) -> None:
        self.waits_for_answer = False
        if isinstance(answer, KafkaError):
            self.machine.sync_failed(answer, self.now_s)
        else:
            self.machine.synced(answer)

    def step(self) -> bool:
        """Take one step; False if there was none to take."""
        self.now_s += 0.25
        if self.waits_for_answer:
            return False
        machine = self.machine
        match machine.next_step(self.now_s):
            case Revoke(partitions, lost):
                assert partitions
                if lost:
                    self.lost.append(partitions)
                self.reading -= partitions
                machine.revoked(partitions)
            case Assign(added, owned):
                assert not added & self.reading
                self.reading |= added
                machine.assigned()
                assert self.reading == owned == machine.owned
            case Join() as join:
                self.waits_for_answer = True
                machine.joining()
                self.coordinator.join(self, join)
            case Plan(topics):
                machine.plan({one: self.counts[one] for one in topics if one in self.counts})
            case Sync() as sync:
                self.waits_for_answer = True
                self.coordinator.sync(self, sync)
            case Failed(error):
                raise error
            case Wait():
                machine.partitions_changed(self.counts)
                heartbeat = machine.next_heartbeat(self.now_s)
                if heartbeat is None:
                    return False
                machine.heartbeat_answered(heartbeat, self.coordinator.heartbeat(heartbeat))
        return True
