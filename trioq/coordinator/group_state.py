"""The state machine of a group of the classic protocol.

Pure: times are arguments, what is to be done is returned (see effects.py). The rules are Kafka's:

    KIP-62    a rebalance waits for members up to their rebalance timeout; they live by heartbeats
    KIP-134   the first rebalance of an empty group is delayed so that all find it in time
    KIP-345   static members keep their place through a restart, within their session timeout
    KIP-394   a new member is given its id before it counts
    KIP-429   cooperative rebalancing is the clients' affair: two rebalances, one after the other
    KIP-814   a static leader that comes back is told that its plan still holds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from trioq.coordinator.effects import Answer, Effect, Persist, Remove, Waiter, refusal
from trioq.coordinator.group_joining import DEAD_GROUP, GroupJoining
from trioq.coordinator.group_member import GroupMember
from trioq.coordinator.group_members import UNKNOWN_MEMBER
from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_requests import (
    CONSUMER_PROTOCOL_TYPE,
    GroupDescription,
    GroupSettings,
    LeaveResult,
    LeavingMember,
    MemberDescription,
    SyncRequest,
)
from trioq.coordinator.group_rounds import REBALANCING
from trioq.errors import (
    GroupIdNotFound,
    IllegalGeneration,
    InconsistentGroupProtocol,
    KafkaError,
    NonEmptyGroup,
)
from trioq.metastore.group_layout import ClassicGroup

_OLD_GENERATION: Final = IllegalGeneration()

_DEAD: Final = GroupPhase.DEAD
_EMPTY: Final = GroupPhase.EMPTY
_PREPARING: Final = GroupPhase.PREPARING_REBALANCE
_COMPLETING: Final = GroupPhase.COMPLETING_REBALANCE
_STABLE: Final = GroupPhase.STABLE


class GroupState(GroupJoining):
    """One group. Owned by its driver; all calls on the loop's thread.

    Every waiter that is handed in is answered exactly once: by the event itself, by a later one,
    at the latest by `on_time` as time passes, or by `abandon`. A waiter is never None.
    """

    __slots__ = ()

    # What it looks like.

    @property
    def leader(self) -> str | None:
        """The id of the member that makes the plan; None while there are no members."""
        return self._members.leader

    @property
    def member_count(self) -> int:
        """Members, without ids that nobody has joined with."""
        return len(self._members)

    @property
    def is_idle(self) -> bool:
        """True when nobody is in the group or about to be: it may be deleted."""
        return self.phase is _EMPTY and not self._pending_join

    def subscribed_topics(self) -> frozenset[str] | None:
        """The topics of all members; None if unknown: not consumers, or unreadable metadata."""
        if self.protocol_type != CONSUMER_PROTOCOL_TYPE:
            return None
        if self._subscribed_topics is not None:
            return self._subscribed_topics
        topics: set[str] = set()
        for member in self._members:
            subscribed = member.subscribed_topics(self.protocol)
            if subscribed is None:
                return None
            topics |= subscribed
        known = frozenset(topics)
        if self.phase is not _PREPARING:
            self._subscribed_topics = known
        return known

    def describe(self) -> GroupDescription:
        """The group as DescribeGroups shows it."""
        stable = self.phase is _STABLE
        return GroupDescription(
            self.group_id,
            self.phase.value,
            self.protocol_type or "",
            (self.protocol or "") if stable else "",
            tuple(
                MemberDescription(
                    member.member_id,
                    member.instance_id,
                    member.client_id,
                    member.client_host,
                    member.metadata(self.protocol) if stable else b"",
                    member.assignment if stable else b"",
                )
                for member in self._members
            ),
        )

    # What is kept.

    def snapshot(self) -> ClassicGroup:
        """All of it that outlives the broker."""
        return ClassicGroup(
            self.group_id,
            self.protocol_type,
            self.generation,
            self.protocol,
            self._members.leader,
            self.phase.value,
            self.state_since_ms,
            tuple(member.kept() for member in self._members),
        )

    @classmethod
    def restore(cls, kept: ClassicGroup, settings: GroupSettings, now_s: float) -> GroupState:
        """The group as it was written; sessions and timeouts begin now.

        Members that go on heartbeating notice nothing, in whatever phase it was.
        """
        group = cls(kept.group_id, settings, kept.state_since_ms)
        group.phase = GroupPhase(kept.state)
        group.generation = kept.generation
        group.protocol_type = kept.protocol_type
        group.protocol = kept.protocol
        group._restore_members(kept, now_s)
        return group

    def _restore_members(self, kept: ClassicGroup, now_s: float) -> None:
        members = self._members
        for each in kept.members:
            member = GroupMember(each)
            members.add(member)
            self._start_session(member, now_s)
        if kept.leader is not None and members.get(kept.leader) is not None:
            members.leader = kept.leader
        if self.phase in {_PREPARING, _COMPLETING}:
            self._phase_end_s = now_s + members.rebalance_timeout_ms() / 1000
        if self.phase is _COMPLETING:
            self._pending_sync.update(member.member_id for member in members)

    # Requests.

    def sync(self, request: SyncRequest, waiter: Waiter, now_s: float, now_ms: int) -> list[Effect]:
        """SyncGroup: answered with SyncResult, when the leader's has come, or a KafkaError."""
        member = self._member(request.member_id, request.instance_id, request.generation)
        if isinstance(member, KafkaError):
            return refusal(waiter, member)
        if request.protocol_type not in {None, self.protocol_type} or (
            request.protocol not in {None, self.protocol}
        ):
            return refusal(waiter, InconsistentGroupProtocol())
        if self.phase is _PREPARING:
            return refusal(waiter, REBALANCING)
        effects: list[Effect] = []
        self._answer_sync(member, REBALANCING, None, effects)
        self._pending_sync.discard(member.member_id)
        if self.phase is _COMPLETING:
            member.sync_waiter = waiter
            member.expires_s = math.inf
            if member.member_id == self._members.leader:
                self._take_plan(request, now_s, now_ms, effects)
        else:
            self._sign_of_life(member, now_s)
            effects.append(Answer(waiter, self._sync_result(member)))
        if self.phase is _STABLE and not self._pending_sync:
            self._phase_end_s = math.inf
        return effects

    def _take_plan(
        self, request: SyncRequest, now_s: float, now_ms: int, effects: list[Effect]
    ) -> None:
        """The leader's plan is there: everyone gets their part, who is not in it nothing."""
        for member in self._members:
            member.assignment = request.assignments.get(member.member_id, b"")
        self._enter(_STABLE, now_ms)
        effects.append(Persist())
        for member in self._members:
            self._answer_sync(member, self._sync_result(member), now_s, effects)

    def heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, now_s: float
    ) -> KafkaError | None:
        """Heartbeat: the member lives on; why it has to do something else, or None."""
        member = self._member(member_id, instance_id, generation)
        if isinstance(member, KafkaError):
            return member
        self._sign_of_life(member, now_s)
        return REBALANCING if self.phase is _PREPARING else None

    def check_commit(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        now_s: float,
        *,
        transactional: bool = False,
    ) -> KafkaError | None:
        """OffsetCommit: None if the offsets may be committed; a sign of life of a member too.

        A client that is no member (generation < 0) may only while the group is empty. Members may
        in their generation until the next one begins: also while it is being prepared, so that
        they commit what they are about to give up. `transactional` commits (TxnOffsetCommit) do
        not depend on the phase, and old ones name no member.
        """
        if generation < 0 and self.phase is not _DEAD:
            if self.phase is _EMPTY:
                return None
            if not member_id and instance_id is None:
                return None if transactional else UNKNOWN_MEMBER
        member = self._member(member_id, instance_id, generation)
        if isinstance(member, KafkaError):
            return member
        if self.phase is _COMPLETING:
            return None if transactional else REBALANCING
        self._sign_of_life(member, now_s)
        return None

    def leave(
        self, members: Sequence[LeavingMember], now_s: float, now_ms: int
    ) -> tuple[list[LeaveResult], list[Effect]]:
        """LeaveGroup: what became of each, in their order, and what follows for the others."""
        effects: list[Effect] = []
        results: list[LeaveResult] = []
        gone: list[str] = []
        for leaving in members:
            error = None
            if self._pending_join.pop(leaving.member_id, None) is not None:
                self._sessions.forget(leaving.member_id)
            else:
                member = self._leaving(leaving)
                if isinstance(member, KafkaError):
                    error = member
                else:
                    gone.append(member.instance_id or member.member_id)
                    self._remove(member, UNKNOWN_MEMBER, effects)
            results.append(LeaveResult(leaving.member_id, leaving.instance_id, error))
        self._after_removal(gone, "left", now_s, now_ms, effects)
        return results, effects

    def _leaving(self, leaving: LeavingMember) -> GroupMember | KafkaError:
        if self.phase is _DEAD:
            return DEAD_GROUP
        if not leaving.member_id and leaving.instance_id is not None:
            return self._members.static(leaving.instance_id) or UNKNOWN_MEMBER
        return self._members.check(leaving.member_id, leaving.instance_id)

    def _member(
        self, member_id: str, instance_id: str | None, generation: int
    ) -> GroupMember | KafkaError:
        """The member of this generation that a request comes from, or why it comes from none."""
        if self.phase is _DEAD:
            return DEAD_GROUP
        member = self._members.check(member_id, instance_id)
        if generation != self.generation and not isinstance(member, KafkaError):
            return _OLD_GENERATION
        return member

    # The coordinator's own.

    def rebalance(self, reason: str, now_s: float, now_ms: int) -> list[Effect]:
        """Make all members rejoin, as after the change from another group protocol."""
        effects: list[Effect] = []
        if self.phase in {_COMPLETING, _STABLE}:
            self._prepare(reason, now_s, now_ms, effects)
        return effects

    def delete(self, now_ms: int) -> tuple[KafkaError | None, list[Effect]]:
        """DeleteGroups, or nothing is kept for the group any more: it is dead if there is no error.

        Ids that nobody has joined with are forgotten.
        """
        if self.phase is _DEAD:
            return GroupIdNotFound(), []
        if self.phase is not _EMPTY:
            return NonEmptyGroup(f"group {self.group_id} has members: stop them first"), []
        for member_id in self._pending_join:
            self._sessions.forget(member_id)
        self._pending_join.clear()
        self._enter(_DEAD, now_ms)
        return None, [Remove()]

    def abandon(self, error: KafkaError, now_s: float) -> list[Effect]:
        """Answer every waiter with `error`: this broker stops, or coordinates no longer.

        Members stay members, their sessions begin now.
        """
        effects: list[Effect] = []
        for member in self._members:
            if member.is_parked:
                self._answer_join(member, error, effects)
                self._answer_sync(member, error, None, effects)
                self._start_session(member, now_s)
        return effects
