"""JoinGroup to a group of the classic protocol."""

from __future__ import annotations

import math
import uuid
from typing import Final

from trioq.coordinator.effects import Answer, Effect, Persist, Waiter, refusal
from trioq.coordinator.group_member import GroupMember
from trioq.coordinator.group_members import FENCED_INSTANCE, UNKNOWN_MEMBER
from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_requests import CONSUMER_PROTOCOL_TYPE, JoinRefused, JoinRequest
from trioq.coordinator.group_rounds import REBALANCING, GroupRounds
from trioq.errors import (
    CoordinatorNotAvailable,
    GroupMaxSizeReached,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    KafkaError,
    MemberIdRequired,
)

DEAD_GROUP: Final = CoordinatorNotAvailable("the group is being deleted: ask again")
"""What requests to a dead group are answered with: a value, never raised."""

_MAX_REASON_CHARACTERS: Final = 255


class GroupJoining(GroupRounds):
    """A group that can be joined."""

    __slots__ = ()

    def join(self, request: JoinRequest, waiter: Waiter, now_s: float, now_ms: int) -> list[Effect]:
        """JoinGroup: answered with JoinResult, JoinRefused (MEMBER_ID_REQUIRED) or a KafkaError.

        A member that rejoins while an earlier request of it is parked takes its place; the
        earlier one is answered REBALANCE_IN_PROGRESS.
        """
        known = self._known(request)
        effects: list[Effect] = []
        if not self._has_room(request, known):
            return self._refuse_for_size(request, known, waiter, now_s, now_ms)
        request = _with_distinct_protocols(request)
        error = self._join_error(request, known)
        if error is not None:
            return refusal(waiter, error)
        if request.member_id:
            self._join_with_id(request, waiter, now_s, now_ms, effects)
        elif known is not None:
            self._replace_static(known, request, waiter, now_s, now_ms, effects)
        elif request.instance_id is None and request.requires_known_member_id:
            member_id = _new_member_id(request)
            expires_s = now_s + request.session_timeout_ms / 1000
            self._pending_join[member_id] = expires_s
            self._sessions.watch(member_id, expires_s)
            effects.append(Answer(waiter, JoinRefused(MemberIdRequired(), member_id)))
        else:
            self._add(_new_member_id(request), request, waiter, now_s, now_ms, effects)
        return effects

    def _known(self, request: JoinRequest) -> GroupMember | None:
        """The member that joins again, or whose place a static member takes."""
        if request.member_id:
            return self._members.get(request.member_id)
        if request.instance_id is not None:
            return self._members.static(request.instance_id)
        return None

    def _has_room(self, request: JoinRequest, known: GroupMember | None) -> bool:
        """True if the member fits into group.max.size.

        While a rebalance is prepared the places go to who joins first, so that a group which is
        too large by now shrinks. Ids that are given out are bounded likewise.
        """
        max_size = self._settings.max_size
        if not request.member_id and known is None and len(self._pending_join) >= max_size:
            return False
        if self.phase is GroupPhase.PREPARING_REBALANCE:
            awaits = known is not None and known.join_waiter is not None
            return awaits or self._members.awaiting_join < max_size
        return known is not None or len(self._members) < max_size

    def _refuse_for_size(
        self,
        request: JoinRequest,
        known: GroupMember | None,
        waiter: Waiter,
        now_s: float,
        now_ms: int,
    ) -> list[Effect]:
        max_size = self._settings.max_size
        effects = refusal(
            waiter,
            GroupMaxSizeReached(
                f"group {self.group_id} has {max_size} members, as many as group.max.size allows"
            ),
        )
        if self._pending_join.pop(request.member_id, None) is not None:
            self._sessions.forget(request.member_id)
        if known is not None:
            self._remove(known, UNKNOWN_MEMBER, effects)
        self._after_removal((), "", now_s, now_ms, effects)
        return effects

    def _join_error(self, request: JoinRequest, known: GroupMember | None) -> KafkaError | None:
        """Why nobody could join like this, whoever it is."""
        if self.phase is GroupPhase.DEAD:
            return DEAD_GROUP
        lowest_ms = self._settings.min_session_timeout_ms
        highest_ms = self._settings.max_session_timeout_ms
        if not lowest_ms <= request.session_timeout_ms <= highest_ms:
            return InvalidSessionTimeout(
                f"session timeout of {request.session_timeout_ms} ms: this broker allows from"
                f" {lowest_ms} (group.min.session.timeout.ms) to {highest_ms}"
                " (group.max.session.timeout.ms)"
            )
        if not request.protocol_type or not request.protocols:
            return InconsistentGroupProtocol("a member states its protocol type and protocols")
        if len(self._members) and (
            self.protocol_type != request.protocol_type
            or not self._members.supports(request.protocols, known)
        ):
            return InconsistentGroupProtocol()
        return None

    def _join_with_id(
        self,
        request: JoinRequest,
        waiter: Waiter,
        now_s: float,
        now_ms: int,
        effects: list[Effect],
    ) -> None:
        """A member that has an id: the second step of a new one, or it rejoins."""
        if request.instance_id is None and request.member_id in self._pending_join:
            del self._pending_join[request.member_id]
            self._add(request.member_id, request, waiter, now_s, now_ms, effects)
            return
        member = self._members.check(request.member_id, request.instance_id)
        if isinstance(member, KafkaError):
            effects.append(Answer(waiter, member))
            return
        unchanged = member.protocols == request.protocols
        leads = member.member_id == self._members.leader
        if unchanged and (
            self.phase is GroupPhase.COMPLETING_REBALANCE
            or (self.phase is GroupPhase.STABLE and not leads)
        ):
            # Its answer was lost, or it asks needlessly: it is in this generation. A leader that
            # rejoins a stable group wants a new plan, for topics or partitions have changed.
            self._sign_of_life(member, now_s)
            effects.append(Answer(waiter, self._join_result(member)))
            return
        self._park(member, request, waiter, now_s, effects)
        what = "rejoined" if unchanged else "rejoined with other metadata"
        self._rebalance_or_complete(_because(member, what, request), now_s, now_ms, effects)

    def _add(
        self,
        member_id: str,
        request: JoinRequest,
        waiter: Waiter,
        now_s: float,
        now_ms: int,
        effects: list[Effect],
    ) -> None:
        if not len(self._members):
            self.protocol_type = request.protocol_type
        member = GroupMember.new(member_id, request)
        self._members.add(member)
        self._park(member, request, waiter, now_s, effects)
        self._joined_since_delay = True
        reason = _because(member, "joined", request)
        self._rebalance_or_complete(reason, now_s, now_ms, effects)

    def _park(
        self,
        member: GroupMember,
        request: JoinRequest,
        waiter: Waiter,
        now_s: float,
        effects: list[Effect],
    ) -> None:
        """Let a member wait for the rebalance to end."""
        self._answer_join(member, REBALANCING, effects)
        self._answer_sync(member, REBALANCING, None, effects)
        self._members.update(member, request)
        member.join_waiter = waiter
        self._members.awaiting_join += 1
        member.expires_s = math.inf
        if member.is_new:
            member.expires_s = now_s + self._settings.new_member_join_timeout_ms / 1000
            self._sessions.watch(member.member_id, member.expires_s)

    def _replace_static(
        self,
        member: GroupMember,
        request: JoinRequest,
        waiter: Waiter,
        now_s: float,
        now_ms: int,
        effects: list[Effect],
    ) -> None:
        """A static member came back without its id (KIP-345): it takes its own place.

        In a stable group nothing else happens, unless it changes what the others have agreed on:
        the protocol, or the topics that are shared.
        """
        old_id = member.member_id
        led = old_id == self._members.leader
        self._answer_join(member, FENCED_INSTANCE, effects)
        self._answer_sync(member, FENCED_INSTANCE, None, effects)
        self._sessions.forget(old_id)
        self._members.rename(member, _new_member_id(request))
        if old_id in self._pending_sync:
            self._pending_sync.remove(old_id)
            self._pending_sync.add(member.member_id)
        old_topics = member.subscribed_topics(self.protocol)
        self._members.update(member, request)
        if (
            self.phase is not GroupPhase.STABLE
            or self._members.choose_protocol() != self.protocol
            or (
                self.protocol_type == CONSUMER_PROTOCOL_TYPE
                and member.subscribed_topics(self.protocol) != old_topics
            )
        ):
            self._park(member, request, waiter, now_s, effects)
            reason = _because(member, "came back", request)
            self._rebalance_or_complete(reason, now_s, now_ms, effects)
            return
        self._start_session(member, now_s)
        result = self._join_result(member)
        if request.supports_skip_assignment:
            result = result._replace(skip_assignment=led)
        elif led:
            # Told of the leader under its old id it takes itself for a follower, and syncs.
            result = result._replace(leader=old_id, members=())
        effects += (Persist(), Answer(waiter, result))


def _new_member_id(request: JoinRequest) -> str:
    return f"{request.instance_id or request.client_id}-{uuid.uuid4()}"


def _with_distinct_protocols(request: JoinRequest) -> JoinRequest:
    """Of a protocol that is named twice the first counts."""
    distinct: dict[str, bytes] = {}
    for name, metadata in request.protocols:
        distinct.setdefault(name, metadata)
    if len(distinct) == len(request.protocols):
        return request
    return request._replace(protocols=tuple(distinct.items()))


def _because(member: GroupMember, what: str, request: JoinRequest) -> str:
    """Why there is a rebalance, with what the client says of it (KIP-800)."""
    stated = f": {request.reason[:_MAX_REASON_CHARACTERS]!r}" if request.reason else ""
    return f"{member.instance_id or member.member_id} {what}{stated}"
