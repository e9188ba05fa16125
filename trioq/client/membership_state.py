"""A member of a classic group: join, sync, heartbeat, rejoin, leave.

    PREPARING -> JOINING -> PLANNING (leader) -> SYNCING -> STABLE -> PREPARING -> ...
                         `----- follower -----^
    Errors lead back to PREPARING; LEFT is left by `return_to_group`.

Eager members give up all their partitions before they rejoin. Cooperative ones (KIP-429: all
assignors are) keep them, learn from the assignment what to give up, and then join once more.
What a member owned is lost, not revoked, once the coordinator no longer knows it or its
generation: others may be reading it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from trioq.client.assignors import Assignor, MemberSubscription
from trioq.client.group_protocol import (
    member_assignment,
    member_metadata,
    read_member_assignment,
    read_member_metadata,
)
from trioq.client.membership_steps import (
    NEVER_S,
    NO_GENERATION,
    Assign,
    Backoff,
    Failed,
    Heartbeat,
    Join,
    MembershipSettings,
    Plan,
    Revoke,
    Sync,
    Wait,
    is_transient,
)
from trioq.errors import (
    FencedInstanceId,
    IllegalGeneration,
    InconsistentGroupProtocol,
    KafkaError,
    MemberIdRequired,
    ProtocolViolation,
    RebalanceInProgress,
    TrioqError,
    UnknownMemberId,
)
from trioq.types import TopicPartition

Step = Wait | Revoke | Assign | Failed | Join | Plan | Sync


class MemberPhase(Enum):
    """Where the member is between two assignments."""

    PREPARING = "Preparing"
    JOINING = "Joining"
    PLANNING = "Planning"
    SYNCING = "Syncing"
    STABLE = "Stable"
    LEFT = "Left"


class JoinedGroup(NamedTuple):
    """A JoinGroup response; `members` (id, instance id, metadata) has entries for the leader."""

    generation: int
    protocol: str
    leader: str
    member_id: str
    members: Sequence[tuple[str, str | None, bytes]]
    skip_assignment: bool = False


class ClassicMembership:
    """One member; owned by one task, but heartbeats may be reported from another."""

    def __init__(self, settings: MembershipSettings, assignors: Sequence[Assignor]) -> None:
        self.phase = MemberPhase.PREPARING
        self.member_id = ""
        self.generation = NO_GENERATION
        self.owned: frozenset[TopicPartition] = frozenset()
        self.unreadable_members: list[str] = []
        """Members whose metadata the last plan could not read; they were given nothing."""
        self._settings = settings
        self._assignors = {assignor.name: assignor for assignor in assignors}
        self._cooperative = all(assignor.cooperative for assignor in assignors)
        self._topics: frozenset[str] | None = None
        self._protocol = ""
        self._assignments: dict[str, bytes] = {}
        self._members: dict[str, MemberSubscription] = {}
        self._planned: dict[str, int] | None = None
        self._keeps_assignment = False
        self._revoking: frozenset[TopicPartition] = frozenset()
        self._lost = False
        self._assigning: frozenset[TopicPartition] | None = None
        self._told_of_assigning = False
        self._prepared = False
        self._rejoin_reason: str | None = "first join"
        self._remembered: tuple[frozenset[TopicPartition], int] = (frozenset(), NO_GENERATION)
        self._backoff = Backoff(settings)
        self._failure: TrioqError | None = None
        self._heartbeat_at_s = NEVER_S

    # ---- what to do -------------------------------------------------------------------

    def next_step(self, now_s: float) -> Step:
        """What the driver does next; the same again until it reports back."""
        if self._revoking:
            return Revoke(self._revoking, self._lost)
        if self._failure is not None:
            return Failed(self._failure)
        if self._assigning is not None:
            self._told_of_assigning = True
            return Assign(self._assigning, self.owned | self._assigning)
        match self.phase:
            case MemberPhase.PLANNING:
                return Plan(self._group_topics())
            case MemberPhase.SYNCING:
                return Sync(self.generation, self.member_id, self._protocol, self._assignments)
            case MemberPhase.STABLE if self._rejoin_reason is not None:
                self.phase = MemberPhase.PREPARING
                self._prepared = False
            case MemberPhase.STABLE | MemberPhase.LEFT:
                return Wait(NEVER_S)
            case _:
                pass
        return self._join_step(now_s)

    def next_heartbeat(self, now_s: float) -> Heartbeat | None:
        """The heartbeat that is due, which then counts as sent; None before its time."""
        if now_s < self.heartbeat_at_s():
            return None
        self._heartbeat_at_s = now_s + self._settings.heartbeat_interval_ms / 1000
        return Heartbeat(self.generation, self.member_id)

    def heartbeat_at_s(self) -> float:
        """When the next heartbeat is due; NEVER_S while there is nothing to keep alive."""
        alive = self.phase in {MemberPhase.PREPARING, MemberPhase.PLANNING, MemberPhase.STABLE}
        if not alive or self.generation == NO_GENERATION:
            return NEVER_S
        return self._heartbeat_at_s

    @property
    def watched_topics(self) -> frozenset[str]:
        """Of the leader: the topics that it planned for, which it watches for changes."""
        return self._group_topics() if self._planned is not None else frozenset()

    @property
    def is_stable(self) -> bool:
        """Whether nothing is to be done: the assignment is complete and current."""
        return (
            self.phase is MemberPhase.STABLE
            and self._assigning is None
            and not self._revoking
            and self._rejoin_reason is None
        )

    # ---- what the user and the cluster want -------------------------------------------

    def subscribe(self, topics: frozenset[str]) -> None:
        """Consume `topics` from now on; rejoins if they changed."""
        if topics == self._topics:
            return
        self._topics = topics
        self.request_rejoin("the subscription changed")

    def partitions_changed(self, partition_counts: Mapping[str, int]) -> None:
        """What the cluster has now, for a leader: rejoins if its plan has become outdated.

        Topics that are not in `partition_counts` do not exist.
        """
        if self._planned is None or self.phase is not MemberPhase.STABLE:
            return
        if self._known(partition_counts) != self._planned:
            self.request_rejoin("the partitions of subscribed topics changed")

    def request_rejoin(self, reason: str) -> None:
        """Take part in a new rebalance as soon as the present one is over."""
        if self.phase is not MemberPhase.LEFT and self._rejoin_reason is None:
            self._rejoin_reason = reason

    def leave(self) -> bool:
        """Give up membership, after which all owned partitions are revoked.

        True if the coordinator must be told: LeaveGroup with `member_id` as it was before.
        Static members only stay away; the coordinator keeps their place for the session timeout.
        """
        known = self.member_id != ""
        self._forget(lost=False)
        self.phase = MemberPhase.LEFT
        return known and self._settings.instance_id is None

    def return_to_group(self) -> None:
        """Join again after `leave`, as a new member."""
        if self.phase is MemberPhase.LEFT:
            self._forget(lost=False)
            self.member_id = ""
            self.phase = MemberPhase.PREPARING
            self._prepared = False
            self._rejoin_reason = "the consumer polls again"

    def poll_expired(self) -> str | None:
        """The user took longer than max_poll_interval: everything owned is lost, the member leaves.

        The member id to leave with; None if there is nothing to leave. `return_to_group` undoes it.
        """
        member_id, known = self.member_id, self.member_id != ""
        self._forget(lost=True)
        self.phase = MemberPhase.LEFT
        return member_id if known and self._settings.instance_id is None else None

    # ---- what was done ----------------------------------------------------------------

    def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """The partitions of Revoke are given up; what was lost meanwhile comes as another."""
        self.owned -= partitions
        self._revoking -= partitions
        if not self._revoking:
            self._lost = False

    def assigned(self) -> None:
        """The partitions of Assign are being read."""
        self.owned |= self._assigning or frozenset()
        self._assigning = None
        self._told_of_assigning = False

    def joining(self) -> None:
        """The Join is on its way: from here on the old generation is not kept alive."""
        self.phase = MemberPhase.JOINING
        self._rejoin_reason = None

    def joined(self, answer: JoinedGroup, now_s: float) -> None:
        """The coordinator has made the member part of a new generation."""
        if self.phase is not MemberPhase.JOINING:
            return
        self._backoff.succeeded()
        self.member_id = answer.member_id
        self.generation = answer.generation
        self._protocol = answer.protocol
        self._assignments = {}
        self._planned = None
        self._members = {}
        self._heartbeat_at_s = now_s + self._settings.heartbeat_interval_ms / 1000
        if answer.protocol not in self._assignors:
            self._fail(
                InconsistentGroupProtocol(
                    f"group {self._settings.group_id!r} chose the assignor {answer.protocol!r}, "
                    f"which this member did not list; list it, or use another group"
                )
            )
        elif answer.leader == answer.member_id and answer.members:
            self._read_members(answer.members)
            self._keeps_assignment = answer.skip_assignment
            self.phase = MemberPhase.PLANNING
        else:
            self.phase = MemberPhase.SYNCING

    def join_failed(self, error: TrioqError, now_s: float, member_id: str = "") -> None:
        """JoinGroup was refused, or its answer did not come; `member_id` is the answer's."""
        if self.phase is not MemberPhase.JOINING:
            return
        self.phase = MemberPhase.PREPARING
        self._rejoin_reason = self._rejoin_reason or f"the last join failed: {_name(error)}"
        if isinstance(error, MemberIdRequired):
            self.member_id = member_id
        elif isinstance(error, (UnknownMemberId, IllegalGeneration)):
            self._reset(error)
        elif isinstance(error, RebalanceInProgress):
            self._backoff.failed(now_s)
        else:
            self._fail_or_retry(error, now_s)

    def plan(self, partition_counts: Mapping[str, int]) -> None:
        """The partitions of the topics asked for by Plan; those not in it do not exist."""
        if self.phase is not MemberPhase.PLANNING:
            return
        counts = self._known(partition_counts)
        if not self._keeps_assignment:
            target = self._assignors[self._protocol].assign(counts, self._members)
            self._assignments = {
                member_id: member_assignment(partitions) for member_id, partitions in target.items()
            }
        self._planned = counts
        self.phase = MemberPhase.SYNCING

    def synced(self, data: bytes) -> None:
        """The coordinator answered SyncGroup with this member's assignment (empty: nothing)."""
        if self.phase is not MemberPhase.SYNCING:
            return
        self._assignments = {}
        try:
            assigned = read_member_assignment(data)
        except ProtocolViolation as error:
            self._fail(
                ProtocolViolation(
                    f"the assignment from the leader of group {self._settings.group_id!r} cannot "
                    f"be read: {error}"
                )
            )
            return
        topics = self._topics or frozenset()
        wanted = frozenset(partition for partition in assigned if partition.topic in topics)
        if wanted != assigned:
            self.request_rejoin("the subscription changed during the rebalance")
        self._revoking = self.owned - wanted
        self._lost = False
        if self._revoking:
            self.request_rejoin("partitions were given up for other members")
        self._assigning = wanted - self.owned
        self._remembered = (wanted, self.generation)
        self.phase = MemberPhase.STABLE
        self._prepared = False

    def sync_failed(self, error: TrioqError, now_s: float) -> None:
        """SyncGroup was refused, or its answer did not come."""
        if self.phase is not MemberPhase.SYNCING:
            return
        self.phase = MemberPhase.PREPARING
        self._rejoin_reason = self._rejoin_reason or f"the last sync failed: {_name(error)}"
        if isinstance(error, RebalanceInProgress):
            return
        if isinstance(error, (UnknownMemberId, IllegalGeneration)):
            self._reset(error)
        else:
            self._fail_or_retry(error, now_s)

    def heartbeat_answered(self, sent: Heartbeat, error: TrioqError | None) -> None:
        """How the coordinator answered `sent`; ignored if the member has moved on since."""
        if error is None or (sent.generation, sent.member_id) != (self.generation, self.member_id):
            return
        if not self._refused(error) and not is_transient(error):
            self._fail(error)

    def commit_refused(self, generation: int, error: TrioqError) -> None:
        """A commit of `generation` was refused; what that says about the membership."""
        if generation == self.generation:
            self._refused(error)

    # ---- inside -----------------------------------------------------------------------

    def _refused(self, error: TrioqError) -> bool:
        """React to what a refusal says about the membership; False if it says nothing."""
        if isinstance(error, RebalanceInProgress):
            if self.phase is MemberPhase.STABLE:
                self.request_rejoin("the group is rebalancing")
        elif isinstance(error, (UnknownMemberId, IllegalGeneration)):
            self._reset(error)
            if self.phase not in {MemberPhase.LEFT, MemberPhase.JOINING}:
                self.phase = MemberPhase.PREPARING
                self._rejoin_reason = self._rejoin_reason or f"{_name(error)} from the coordinator"
        elif isinstance(error, FencedInstanceId):
            self._fail(error)
        else:
            return False
        return True

    def _join_step(self, now_s: float) -> Step:
        if self._topics is None:
            return Wait(NEVER_S)
        if now_s < self._backoff.retry_at_s:
            return Wait(self._backoff.retry_at_s)
        if not self._prepared:
            self._prepared = True
            if self._cooperative:
                gone = {one for one in self.owned if one.topic not in self._topics}
                self._revoking = frozenset(gone)
            else:
                self._revoking = self.owned
            if self._revoking:
                return Revoke(self._revoking, self._lost)
        return Join(self.member_id, self._protocols(), self._rejoin_reason or "")

    def _protocols(self) -> tuple[tuple[str, bytes], ...]:
        remembered, generation = self._remembered
        return tuple(
            (
                name,
                member_metadata(
                    MemberSubscription(
                        topics=self._topics or frozenset(),
                        owned=tuple(self.owned),
                        generation=self.generation if self.owned else NO_GENERATION,
                        user_data=assignor.user_data(remembered, generation),
                        rack=self._settings.rack,
                    )
                ),
            )
            for name, assignor in self._assignors.items()
        )

    def _read_members(self, members: Sequence[tuple[str, str | None, bytes]]) -> None:
        self.unreadable_members = []
        for member_id, instance_id, metadata in members:
            try:
                subscription = read_member_metadata(metadata)
            except ProtocolViolation:
                self.unreadable_members.append(member_id)
                subscription = MemberSubscription(topics=frozenset())
            self._members[member_id] = subscription._replace(instance_id=instance_id)

    def _group_topics(self) -> frozenset[str]:
        return frozenset().union(*(member.topics for member in self._members.values()))

    def _known(self, partition_counts: Mapping[str, int]) -> dict[str, int]:
        """The counts of the topics that the group consumes, where they exist."""
        return {
            topic: partition_counts[topic]
            for topic in self._group_topics()
            if topic in partition_counts
        }

    def _reset(self, error: TrioqError) -> None:
        """The coordinator does not know this generation, or not even this member, any more."""
        if isinstance(error, UnknownMemberId):
            self.member_id = ""
        self._forget(lost=True)

    def _forget(self, *, lost: bool) -> None:
        self.generation = NO_GENERATION
        self._planned = None
        if self._told_of_assigning:
            self.assigned()
        self._assigning = None
        if self.owned:
            self._revoking = self.owned
            self._lost = lost
        self._prepared = False

    def _fail_or_retry(self, error: TrioqError, now_s: float) -> None:
        if is_transient(error):
            self._backoff.failed(now_s)
        else:
            self._fail(error)

    def _fail(self, error: TrioqError) -> None:
        self._failure = error
        self._forget(lost=True)
        self.phase = MemberPhase.LEFT


def _name(error: TrioqError) -> str:
    return error.kafka_name if isinstance(error, KafkaError) else type(error).__name__
