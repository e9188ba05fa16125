"""A member of a consumer group, and who owns which partition."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

from trioq.coordinator.consumer_requests import JOIN_EPOCH
from trioq.errors import BrokerBug
from trioq.metastore.group_layout import NO_PARTITIONS, Assignment, ConsumerMember
from trioq.types import TopicId

NEVER_S = math.inf


class MemberPhase(Enum):
    """How far a member is on the way to its part of the target assignment (KIP-848)."""

    STABLE = "STABLE"
    UNREVOKED = "UNREVOKED_PARTITIONS"
    """It was told to give up partitions and has not yet said that it did."""
    UNRELEASED = "UNRELEASED_PARTITIONS"
    """It is at the target's epoch, but other members still own some of its partitions."""


class Member:
    """The state of one member; changed by the group's machine only.

    `epoch` is -2 for a static member that left for now. Deadlines are monotonic times;
    `revoke_by_s` is set while UNREVOKED, `join_by_s` and `sync_by_s` only for members that speak
    the classic protocol, which are those with a `classic_session_timeout_ms`.

    Whoever changes what `record()` holds calls `touch()`.
    """

    __slots__ = (
        "_record",
        "assigned",
        "classic_protocols",
        "classic_session_timeout_ms",
        "client_host",
        "client_id",
        "epoch",
        "expires_s",
        "instance_id",
        "join_by_s",
        "member_id",
        "pending_revocation",
        "phase",
        "previous_epoch",
        "rack_id",
        "rebalance_timeout_ms",
        "releases_seen",
        "revoke_by_s",
        "server_assignor",
        "subscribed_names",
        "subscribed_regex",
        "sync_by_s",
        "target",
        "topics",
        "version",
    )

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        self.instance_id: str | None = None
        self.rack_id: str | None = None
        self.client_id = ""
        self.client_host = ""
        self.rebalance_timeout_ms = -1
        self.epoch = JOIN_EPOCH
        self.previous_epoch = JOIN_EPOCH
        self.phase = MemberPhase.STABLE
        self.subscribed_names: frozenset[str] = frozenset()
        self.subscribed_regex: str | None = None
        self.server_assignor: str | None = None
        self.assigned: Assignment = NO_PARTITIONS
        self.pending_revocation: Assignment = NO_PARTITIONS
        self.target: Assignment = NO_PARTITIONS
        self.classic_session_timeout_ms: int | None = None
        self.classic_protocols: tuple[tuple[str, bytes], ...] = ()
        self.topics: frozenset[TopicId] = frozenset()
        self.releases_seen = -1
        self.expires_s = NEVER_S
        self.revoke_by_s = NEVER_S
        self.join_by_s = NEVER_S
        self.sync_by_s = NEVER_S
        self.version = 0
        self._record: ConsumerMember | None = None

    @classmethod
    def restore(cls, record: ConsumerMember) -> Member:
        """The member as it was kept, without deadlines."""
        member = cls(record.member_id)
        member.instance_id = record.instance_id
        member.rack_id = record.rack_id
        member.client_id = record.client_id
        member.client_host = record.client_host
        member.rebalance_timeout_ms = record.rebalance_timeout_ms
        member.epoch = record.member_epoch
        member.previous_epoch = record.previous_member_epoch
        member.phase = MemberPhase(record.state)
        member.subscribed_names = record.subscribed_names
        member.subscribed_regex = record.subscribed_regex
        member.server_assignor = record.server_assignor
        member.assigned = record.assigned
        member.pending_revocation = record.pending_revocation
        member.target = record.target
        member.classic_session_timeout_ms = record.classic_session_timeout_ms
        member.classic_protocols = record.classic_protocols
        member._record = record
        return member

    def record(self) -> ConsumerMember:
        """What is kept of it; the same object as before if nothing changed."""
        if self._record is None:
            self._record = ConsumerMember(
                member_id=self.member_id,
                instance_id=self.instance_id,
                rack_id=self.rack_id,
                client_id=self.client_id,
                client_host=self.client_host,
                rebalance_timeout_ms=self.rebalance_timeout_ms,
                member_epoch=self.epoch,
                previous_member_epoch=self.previous_epoch,
                state=self.phase.value,
                subscribed_names=self.subscribed_names,
                subscribed_regex=self.subscribed_regex,
                server_assignor=self.server_assignor,
                assigned=self.assigned,
                pending_revocation=self.pending_revocation,
                target=self.target,
                classic_session_timeout_ms=self.classic_session_timeout_ms,
                classic_protocols=self.classic_protocols,
            )
        return self._record

    def touch(self) -> None:
        """What `record()` holds has changed."""
        self._record = None
        self.version += 1

    @property
    def is_classic(self) -> bool:
        """It speaks the classic protocol (online migration)."""
        return self.classic_session_timeout_ms is not None

    def is_reconciled_to(self, epoch: int) -> bool:
        return self.phase is MemberPhase.STABLE and self.epoch == epoch

    def move_to_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.previous_epoch = self.epoch
            self.epoch = epoch
        self.touch()

    def deadline_s(self) -> float:
        """The earliest time at which something has to be done about it."""
        return min(self.expires_s, self.revoke_by_s, self.join_by_s, self.sync_by_s)


class PartitionOwners:
    """Which member has each partition: it is assigned to it, or not given up by it yet.

    A partition has one owner at most; whoever breaks this is told with BrokerBug.
    `releases` counts what was set free, so that waiting members know when to look again.
    """

    def __init__(self) -> None:
        self._owners: dict[TopicId, dict[int, Member]] = {}
        self.releases = 0

    def owner(self, topic_id: TopicId, partition: int) -> Member | None:
        partitions = self._owners.get(topic_id)
        return None if partitions is None else partitions.get(partition)

    def free_for(
        self, member: Member, topic_id: TopicId, partitions: frozenset[int]
    ) -> frozenset[int]:
        """Those of `partitions` that nobody owns but perhaps `member` itself."""
        owners = self._owners.get(topic_id)
        if not owners:
            return partitions
        return frozenset(p for p in partitions if owners.get(p, member) is member)

    def take(self, member: Member, assignment: Assignment) -> None:
        for topic_id, partitions in assignment.items():
            owners = self._owners.setdefault(topic_id, {})
            for partition in partitions:
                owner = owners.setdefault(partition, member)
                if owner is not member:
                    raise BrokerBug(
                        f"partition {partition} of topic {topic_id} goes to member"
                        f" {member.member_id} while member {owner.member_id} owns it"
                    )

    def release(self, member: Member, assignment: Assignment) -> None:
        for topic_id, partitions in assignment.items():
            owners = self._owners.get(topic_id, {})
            for partition in partitions:
                if owners.pop(partition, None) is not member:
                    raise BrokerBug(
                        f"member {member.member_id} gives up partition {partition} of topic"
                        f" {topic_id}, which it does not own"
                    )
            if not owners:
                self._owners.pop(topic_id, None)
        if assignment:
            self.releases += 1


def holds_any(owned: Assignment | None, partitions: Assignment) -> bool:
    """Whether a member that says it owns `owned` still has one of `partitions`.

    One that says nothing (None) may have them all.
    """
    if owned is None:
        return bool(partitions)
    return any(
        not partitions[topic_id].isdisjoint(numbers)
        for topic_id, numbers in owned.items()
        if topic_id in partitions
    )


def is_part_of(owned: Assignment | None, assigned: Assignment) -> bool:
    """Whether a member says what it owns, and all of it is in `assigned`."""
    return owned is not None and all(
        numbers <= assigned.get(topic_id, frozenset()) for topic_id, numbers in owned.items()
    )


def earliest_deadline_s(members: Iterable[Member]) -> float:
    return min((member.deadline_s() for member in members), default=NEVER_S)
