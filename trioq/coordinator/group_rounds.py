"""How a group of the classic protocol goes from generation to generation, and what ends by time.

Requests are answered in group_joining.py and group_state.py, on top of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from trioq.coordinator.effects import Answer, Effect, Persist
from trioq.coordinator.group_member import GroupMember
from trioq.coordinator.group_members import UNKNOWN_MEMBER, GroupMembers
from trioq.coordinator.group_phases import TRANSITIONS, GroupPhase
from trioq.coordinator.group_requests import GroupSettings, JoinResult, SyncResult
from trioq.coordinator.group_sessions import Sessions
from trioq.errors import BrokerBug, KafkaError, RebalanceInProgress

REBALANCING: Final = RebalanceInProgress()
"""What requests are refused with during a rebalance: a value, never raised."""

_EMPTY: Final = GroupPhase.EMPTY
_PREPARING: Final = GroupPhase.PREPARING_REBALANCE
_COMPLETING: Final = GroupPhase.COMPLETING_REBALANCE
_STABLE: Final = GroupPhase.STABLE


class GroupRounds:
    """A group's members and phases, without the requests that move them.

    `now_s` is monotonic time, `now_ms` wall-clock time, kept as `state_since_ms` only.
    `generation` grows by one with each rebalance that ends. `rebalance_reason` says for the log
    why the last one began.
    """

    __slots__ = (
        "_initial_end_s",
        "_is_initial",
        "_joined_since_delay",
        "_members",
        "_pending_join",
        "_pending_sync",
        "_phase_end_s",
        "_sessions",
        "_settings",
        "_subscribed_topics",
        "generation",
        "group_id",
        "phase",
        "protocol",
        "protocol_type",
        "rebalance_reason",
        "state_since_ms",
    )

    def __init__(self, group_id: str, settings: GroupSettings, now_ms: int) -> None:
        """An empty group that was never in use."""
        self.group_id = group_id
        self.phase = _EMPTY
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.rebalance_reason = ""
        self.state_since_ms = now_ms
        self._settings = settings
        self._members = GroupMembers()
        self._sessions = Sessions()
        # Ids that were given out and not joined with yet, with when they are forgotten.
        self._pending_join: dict[str, float] = {}
        # Members of this generation that have not asked for their part of the plan.
        self._pending_sync: set[str] = set()
        # When the phase ends by itself: the time for joining or for syncing is up.
        self._phase_end_s = math.inf
        # The first rebalance of an empty group: its delay begins again while members come.
        self._is_initial = False
        self._initial_end_s = math.inf
        self._joined_since_delay = False
        self._subscribed_topics: frozenset[str] | None = None

    # Time.

    def next_deadline_s(self) -> float:
        """When `on_time` may have something to do; infinite if never. May be early, never late."""
        return min(self._sessions.next_s(), self._phase_end_s)

    def on_time(self, now_s: float, now_ms: int) -> list[Effect]:
        """Time has passed: remove who gave no sign of life, end what has taken too long."""
        effects: list[Effect] = []
        if now_s >= self._sessions.next_s():
            self._expire(now_s, now_ms, effects)
        if now_s >= self._phase_end_s:
            if self.phase is _PREPARING:
                self._end_preparing(now_s, now_ms, effects)
            else:
                self._expire_pending_sync(now_s, now_ms, effects)
        return effects

    def _expire(self, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """Remove whose session has ended, and forget ids that nobody joined with."""
        gone: list[str] = []
        for member_id in self._sessions.pop_due(now_s):
            member = self._members.get(member_id)
            expires_s = self._pending_join[member_id] if member is None else member.expires_s
            if expires_s > now_s:
                self._sessions.watch(member_id, expires_s)
            elif member is None:
                del self._pending_join[member_id]
            else:
                gone.append(member.instance_id or member_id)
                self._remove(member, UNKNOWN_MEMBER, effects)
        self._after_removal(gone, "gave no sign of life", now_s, now_ms, effects)

    def _end_preparing(self, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """The time for joining is up, or one delay of an initial rebalance is (KIP-134)."""
        if self._is_initial and self._joined_since_delay and now_s < self._initial_end_s:
            self._joined_since_delay = False
            delay_s = self._settings.initial_rebalance_delay_ms / 1000
            self._phase_end_s = min(now_s + delay_s, self._initial_end_s)
        else:
            self._complete_join(now_s, now_ms, effects)

    def _expire_pending_sync(self, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """Members that joined and never asked for their part do not hold it any longer."""
        if not self._pending_sync:
            raise BrokerBug(f"group {self.group_id} waits for members to sync, but for none")
        gone: list[str] = []
        for member_id in sorted(self._pending_sync):
            member = self._members.get(member_id)
            if member is None:
                raise BrokerBug(f"{member_id} is to sync but not in group {self.group_id}")
            gone.append(member.instance_id or member_id)
            self._remove(member, UNKNOWN_MEMBER, effects)
        self._after_removal(gone, "did not sync", now_s, now_ms, effects)

    # Phases.

    def _enter(self, phase: GroupPhase, now_ms: int) -> None:
        if phase not in TRANSITIONS[self.phase]:
            raise BrokerBug(
                f"group {self.group_id} cannot go from {self.phase.value} to {phase.value}"
            )
        self.phase = phase
        self.state_since_ms = now_ms

    def _rebalance_or_complete(
        self, reason: str, now_s: float, now_ms: int, effects: list[Effect]
    ) -> None:
        """Somebody has joined: begin a rebalance, or end one that waited for nobody else."""
        if self.phase is _PREPARING:
            self._maybe_complete_join(now_s, now_ms, effects)
        else:
            self._prepare(reason, now_s, now_ms, effects)

    def _after_removal(
        self, gone: Sequence[str], what: str, now_s: float, now_ms: int, effects: list[Effect]
    ) -> None:
        """Members (or pending ids, unnamed) are gone: the others rebalance, or wait for fewer."""
        if self.phase is _PREPARING:
            self._maybe_complete_join(now_s, now_ms, effects)
        elif gone:
            shown = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
            self._prepare(f"{shown} {what}", now_s, now_ms, effects)

    def _prepare(self, reason: str, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """Begin a rebalance: all members have to join again."""
        self.rebalance_reason = reason
        if self.phase is _COMPLETING:
            for member in self._members:
                self._answer_sync(member, REBALANCING, now_s, effects)
        self._pending_sync.clear()
        self._is_initial = self.phase is _EMPTY
        self._enter(_PREPARING, now_ms)
        timeout_s = self._members.rebalance_timeout_ms() / 1000
        if not self._is_initial:
            self._phase_end_s = now_s + timeout_s
            self._maybe_complete_join(now_s, now_ms, effects)
            return
        delay_s = self._settings.initial_rebalance_delay_ms / 1000
        self._initial_end_s = now_s + max(timeout_s, delay_s)
        self._phase_end_s = now_s + delay_s
        self._joined_since_delay = False
        if delay_s == 0:
            self._complete_join(now_s, now_ms, effects)

    def _maybe_complete_join(self, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """End the preparation if it waits for nobody any more."""
        members = self._members
        if not (self._is_initial or self._pending_join) and members.awaiting_join == len(members):
            self._complete_join(now_s, now_ms, effects)

    def _complete_join(self, now_s: float, now_ms: int, effects: list[Effect]) -> None:
        """Begin the next generation with who has joined, and static members who have not."""
        members = self._members
        self._is_initial = False
        for member in [each for each in members if each.join_waiter is None]:
            if member.instance_id is None:
                self._remove(member, UNKNOWN_MEMBER, effects)
        timeout_s = members.rebalance_timeout_ms() / 1000
        if len(members) and not members.elect_joined_leader():
            # Only static members, and none came: they have until their sessions end.
            self._phase_end_s = now_s + max(timeout_s, 1.0)
            return
        self._subscribed_topics = None
        self.generation += 1
        effects.append(Persist())
        if not len(members):
            self.protocol = None
            self._phase_end_s = math.inf
            self._enter(_EMPTY, now_ms)
            return
        self.protocol = members.choose_protocol()
        self._enter(_COMPLETING, now_ms)
        self._phase_end_s = now_s + timeout_s
        for member in members:
            member.assignment = b""
            if member.join_waiter is not None:
                self._pending_sync.add(member.member_id)
                member.is_new = False
                self._answer_join(member, self._join_result(member), effects)
                self._start_session(member, now_s)
        if members.leader not in self._pending_sync or members.awaiting_join:
            raise BrokerBug(f"group {self.group_id} begins a generation without its leader")

    # Members and their waiters.

    def _remove(self, member: GroupMember, error: KafkaError, effects: list[Effect]) -> None:
        """Take a member out; who still waits for it is told `error`. `_after_removal` follows."""
        self._answer_join(member, error, effects)
        self._answer_sync(member, error, None, effects)
        self._sessions.forget(member.member_id)
        self._members.remove(member)

    def _start_session(self, member: GroupMember, now_s: float) -> None:
        member.expires_s = now_s + member.session_timeout_ms / 1000
        self._sessions.watch(member.member_id, member.expires_s)

    def _sign_of_life(self, member: GroupMember, now_s: float) -> None:
        """A session only grows by it: whoever watches it needs not know."""
        if member.join_waiter is None and member.sync_waiter is None:
            member.expires_s = now_s + member.session_timeout_ms / 1000

    def _answer_join(self, member: GroupMember, result: object, effects: list[Effect]) -> None:
        if member.join_waiter is not None:
            effects.append(Answer(member.join_waiter, result))
            member.join_waiter = None
            self._members.awaiting_join -= 1

    def _answer_sync(
        self, member: GroupMember, result: object, now_s: float | None, effects: list[Effect]
    ) -> None:
        """Answer a parked SyncGroup; the member's session begins at `now_s` where it stays."""
        if member.sync_waiter is not None:
            effects.append(Answer(member.sync_waiter, result))
            member.sync_waiter = None
            if now_s is not None:
                self._start_session(member, now_s)

    def _join_result(self, member: GroupMember) -> JoinResult:
        leader, protocol = self._members.leader, self.protocol
        if leader is None or protocol is None:
            raise BrokerBug(f"group {self.group_id} has a generation without leader or protocol")
        return JoinResult(
            self.generation,
            self.protocol_type,
            protocol,
            leader,
            skip_assignment=False,
            member_id=member.member_id,
            members=self._members.joined(protocol) if leader == member.member_id else (),
        )

    def _sync_result(self, member: GroupMember) -> SyncResult:
        return SyncResult(self.protocol_type, self.protocol, member.assignment)
