"""A member of a consumer group of the new protocol (KIP-848): heartbeats and reconciliation.

    JOINING (epoch 0) --answer--> RECONCILING <--> STABLE        LEFT
        ^                             |               |
        +------- fenced, unknown: everything is lost -+

The coordinator decides who owns what and says so in answers to heartbeats. The member gives up
what is not in its target, takes up what is new, and tells so with its next heartbeat. Heartbeats
go on meanwhile. What did not change since the coordinator last answered is left out of them;
after a failure everything is said again.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from trioq.client.membership_steps import (
    NEVER_S,
    Assign,
    Backoff,
    ConsumerHeartbeat,
    Failed,
    MembershipSettings,
    ResolveTopics,
    Revoke,
    Wait,
    is_transient,
)
from trioq.errors import (
    FencedMemberEpoch,
    StaleMemberEpoch,
    TrioqError,
    UnknownMemberId,
)
from trioq.types import TopicId, TopicPartition

JOIN_EPOCH = 0
LEAVE_EPOCH = -1
STATIC_LEAVE_EPOCH = -2

Step = Wait | Revoke | Assign | Failed | ResolveTopics
Target = tuple[tuple[TopicId, tuple[int, ...]], ...]


class ConsumerPhase(Enum):
    """What the member waits for."""

    JOINING = "Joining"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    LEFT = "Left"


class HeartbeatAnswer(NamedTuple):
    """A ConsumerGroupHeartbeat response without error; no target: it did not change."""

    member_id: str | None
    member_epoch: int
    heartbeat_interval_ms: int
    target: Target | None


class ConsumerMembership:
    """One member; owned by one loop: one task reconciles, another sends heartbeats.

    `member_id` is made here and kept for life (KIP-1082), unless the coordinator gives another.
    """

    def __init__(
        self,
        settings: MembershipSettings,
        server_assignor: str | None = None,
        member_id: str | None = None,
    ) -> None:
        self.phase = ConsumerPhase.JOINING
        self.member_id = member_id or str(uuid.uuid4())
        self.epoch = JOIN_EPOCH
        self.owned: frozenset[TopicPartition] = frozenset()
        self._settings = settings
        self._server_assignor = server_assignor
        self._topics: frozenset[str] | None = None
        self._target: Target | None = None
        self._names: dict[TopicId, str] = {}
        self._ids: dict[str, TopicId] = {}
        self._resolving = True
        self._revoking: frozenset[TopicPartition] = frozenset()
        self._lost = False
        self._assigning: frozenset[TopicPartition] | None = None
        self._told_of_assigning = False
        self._said: ConsumerHeartbeat | None = None
        self._in_flight: ConsumerHeartbeat | None = None
        self._announced = False
        self._urgent = True
        self._heartbeat_at_s = 0.0
        self._backoff = Backoff(settings)
        self._failure: TrioqError | None = None

    # ---- what to do -------------------------------------------------------------------

    def next_step(self, now_s: float) -> Step:  # noqa: ARG002 - as ClassicMembership
        """What the reconciling task does next; the same again until it reports back."""
        if self._revoking:
            return Revoke(self._revoking, self._lost)
        if self._failure is not None:
            return Failed(self._failure)
        if self._assigning is not None:
            self._told_of_assigning = True
            return Assign(self._assigning, self.owned | self._assigning)
        if self._target is None or self.phase is ConsumerPhase.LEFT:
            return Wait(NEVER_S)
        unknown = frozenset(topic_id for topic_id, _ in self._target) - self._names.keys()
        if unknown and self._resolving:
            return ResolveTopics(unknown)
        self._reconcile()
        if self._revoking or self._assigning is not None:
            return self.next_step(0.0)
        return Wait(NEVER_S)

    def next_heartbeat(self, now_s: float) -> ConsumerHeartbeat | None:
        """The heartbeat that is due, which then counts as under way; None before its time."""
        if now_s < self.heartbeat_at_s():
            return None
        full = ConsumerHeartbeat(
            self.member_id,
            self.epoch,
            self._settings.instance_id,
            self._settings.rack,
            self._settings.rebalance_timeout_ms,
            self._topics,
            self._server_assignor,
            self._owned_by_id(),
        )
        self._in_flight = full
        self._announced = True
        self._urgent = False
        said = self._said
        if said is None or self.epoch == JOIN_EPOCH:
            return full
        return full._replace(
            instance_id=self._settings.instance_id,
            rack=None,
            rebalance_timeout_ms=-1,
            topics=None if said.topics == full.topics else full.topics,
            server_assignor=None,
            owned=None if said.owned == full.owned else full.owned,
        )

    def heartbeat_at_s(self) -> float:
        """When the next heartbeat is due; NEVER_S while one is under way or not a member."""
        if (
            self._in_flight is not None
            or self._topics is None
            or self._failure is not None
            or self.phase is ConsumerPhase.LEFT
            or (self.epoch == JOIN_EPOCH and (self._revoking or self.owned))
        ):
            return NEVER_S
        if self._backoff.retry_at_s:
            return self._backoff.retry_at_s
        return 0.0 if self._urgent else self._heartbeat_at_s

    @property
    def is_stable(self) -> bool:
        """Whether the member owns its target and the coordinator knows it."""
        return self.phase is ConsumerPhase.STABLE and not self._urgent

    @property
    def generation(self) -> int:
        """What commits carry: the member epoch."""
        return self.epoch

    # ---- what the user and the cluster want -------------------------------------------

    def subscribe(self, topics: frozenset[str]) -> None:
        """Consume `topics` from now on."""
        if topics != self._topics:
            self._topics = topics
            self._urgent = True

    def topics_resolved(self, names: Mapping[TopicId, str]) -> None:
        """The names of topic ids; the driver calls again when unknown ones may be known."""
        self._names.update(names)
        self._ids.update({name: topic_id for topic_id, name in names.items()})
        self._resolving = False

    def metadata_changed(self) -> None:
        """Topics that could not be resolved may be known now."""
        self._resolving = True

    def leave(self) -> ConsumerHeartbeat | None:
        """Give up membership: the heartbeat that says so, None if there is nothing to say.

        Everything owned is revoked afterwards. A static member keeps its place.
        """
        return self._leave(lost=False)

    def poll_expired(self) -> ConsumerHeartbeat | None:
        """The user took longer than max_poll_interval: as `leave`, but everything owned is lost."""
        return self._leave(lost=True)

    def return_to_group(self) -> None:
        """Join again after `leave` or `poll_expired`."""
        if self.phase is ConsumerPhase.LEFT and self._failure is None:
            self.phase = ConsumerPhase.JOINING
            self._urgent = True

    # ---- what was done ----------------------------------------------------------------

    def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """The partitions of Revoke are given up; what was lost meanwhile comes as another."""
        self.owned -= partitions
        self._revoking -= partitions
        if not self._revoking:
            self._lost = False
        self._urgent = True

    def assigned(self) -> None:
        """The partitions of Assign are being read: the coordinator is told at once."""
        self.owned |= self._assigning or frozenset()
        self._assigning = None
        self._told_of_assigning = False
        self._urgent = True

    def heartbeat_answered(self, answer: HeartbeatAnswer, now_s: float) -> None:
        """The coordinator answered the heartbeat under way without error."""
        sent, self._in_flight = self._in_flight, None
        if sent is None or self.phase is ConsumerPhase.LEFT:
            return
        self._said = sent
        self._backoff.succeeded()
        self._heartbeat_at_s = now_s + answer.heartbeat_interval_ms / 1000
        self.member_id = answer.member_id or self.member_id
        self.epoch = answer.member_epoch
        if answer.target is not None:
            self._target = answer.target
            self._resolving = True
            self.phase = ConsumerPhase.RECONCILING
        elif self.phase is ConsumerPhase.JOINING:
            self.phase = ConsumerPhase.RECONCILING
            self._target = ()

    def heartbeat_failed(self, error: TrioqError, now_s: float) -> None:
        """The heartbeat under way was refused, or its answer did not come."""
        self._in_flight = None
        self._said = None
        if self.phase is ConsumerPhase.LEFT:
            return
        if isinstance(error, (FencedMemberEpoch, UnknownMemberId)):
            self._rejoin()
        elif is_transient(error):
            self._backoff.failed(now_s)
        else:
            self._failure = error
            self._forget(lost=True)
            self.phase = ConsumerPhase.LEFT

    def commit_refused(self, generation: int, error: TrioqError) -> None:
        """A commit in epoch `generation` was refused; what that says about the membership."""
        if generation != self.epoch or self.phase is ConsumerPhase.LEFT:
            return
        if isinstance(error, (FencedMemberEpoch, UnknownMemberId)):
            self._rejoin()
        elif isinstance(error, StaleMemberEpoch):
            self._urgent = True

    # ---- inside -----------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Compare what is owned with what can be resolved of the target."""
        assert self._target is not None
        wanted = frozenset(
            TopicPartition(self._names[topic_id], number)
            for topic_id, numbers in self._target
            if topic_id in self._names
            for number in numbers
        )
        self._revoking = self.owned - wanted
        self._lost = False
        added = wanted - self.owned
        if added:
            self._assigning = added
        if self._revoking or added:
            self.phase = ConsumerPhase.RECONCILING
        elif self.phase is ConsumerPhase.RECONCILING:
            self.phase = ConsumerPhase.STABLE
            self._urgent = (
                self._urgent or self._said is None or self._said.owned != (self._owned_by_id())
            )

    def _owned_by_id(self) -> Target:
        by_topic: dict[TopicId, list[int]] = defaultdict(list)
        for topic, number in sorted(self.owned):
            by_topic[self._ids[topic]].append(number)
        return tuple((topic_id, tuple(numbers)) for topic_id, numbers in by_topic.items())

    def _rejoin(self) -> None:
        self._forget(lost=True)
        self.phase = ConsumerPhase.JOINING
        self._urgent = True

    def _leave(self, *, lost: bool) -> ConsumerHeartbeat | None:
        was_announced, self._announced = self._announced, False
        member_id = self.member_id
        self._forget(lost=lost)
        self._in_flight = None
        self.phase = ConsumerPhase.LEFT
        if not was_announced:
            return None
        static = self._settings.instance_id is not None
        return ConsumerHeartbeat(
            member_id,
            STATIC_LEAVE_EPOCH if static else LEAVE_EPOCH,
            self._settings.instance_id,
        )

    def _forget(self, *, lost: bool) -> None:
        self.epoch = JOIN_EPOCH
        self._target = None
        self._said = None
        if self._told_of_assigning:
            self.assigned()
        self._assigning = None
        if self.owned:
            self._revoking = self.owned
            self._lost = lost


def as_target(topics: Sequence[tuple[TopicId, Sequence[int]]]) -> Target:
    """A target in the one form that is compared: by id, numbers in order."""
    return tuple(sorted((topic_id, tuple(sorted(numbers))) for topic_id, numbers in topics))
