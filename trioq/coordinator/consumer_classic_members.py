"""Members of the classic protocol in a group of the consumer protocol (KIP-848, migration).

To them the group looks like a classic one that rebalances whenever they have to give something
up or can have more: their generation is their member epoch, JoinGroup says what they own, and
SyncGroup brings what the coordinator, not a leader, decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from trioq.coordinator.consumer_group_core import MS_PER_S, ConsumerGroupCore
from trioq.coordinator.consumer_member import NEVER_S, Member, MemberPhase
from trioq.coordinator.consumer_protocol_metadata import (
    Subscription,
    read_subscription,
    write_assignment,
)
from trioq.coordinator.consumer_requests import Topics
from trioq.coordinator.effects import Answer, Convert, Effect, Persist, Waiter, refusal
from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_requests import (
    CONSUMER_PROTOCOL_TYPE,
    JoinRefused,
    JoinRequest,
    JoinResult,
    LeaveResult,
    LeavingMember,
    SyncRequest,
    SyncResult,
)
from trioq.coordinator.heartbeat_rules import check_instance
from trioq.coordinator.reconciliation import waits_for_release
from trioq.errors import (
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    KafkaError,
    MemberIdRequired,
    ProtocolViolation,
    RebalanceInProgress,
    UnknownMemberId,
)
from trioq.metastore.group_layout import ClassicGroup, ClassicMember

_REBALANCING: Final = RebalanceInProgress()
_NO_LEADER: Final = ""
"""No member makes the plan."""


class ClassicMembers(ConsumerGroupCore):
    """What the APIs of the classic protocol do in a group of the consumer protocol."""

    def classic_join(
        self, request: JoinRequest, waiter: Waiter, topics: Topics, now_s: float, now_ms: int
    ) -> list[Effect]:
        """JoinGroup: answered with JoinResult, JoinRefused (MEMBER_ID_REQUIRED) or a KafkaError.

        A group without members goes back to the classic protocol with it, and so does one whose
        last member of the consumer protocol is replaced by it.
        """
        if not self._members:
            return [Convert(self._as_classic(), (request, waiter))]
        try:
            member = self._admit_classic(request)
            subscription = self._check_classic_join(request, member, topics)
        except KafkaError as error:
            return refusal(waiter, error)
        if _needs_member_id(request):
            return [Answer(waiter, JoinRefused(MemberIdRequired(), self._make_member_id()))]
        if member is not None and not member.is_classic and self._may_downgrade(without=member):
            self._remove(member, now_ms)
            return [Convert(self._as_classic(), (request, waiter)), Persist()]
        return self._take_classic_part(member, request, subscription, waiter, topics, now_s, now_ms)

    def classic_sync(
        self, request: SyncRequest, waiter: Waiter, topics: Topics, now_s: float
    ) -> list[Effect]:
        """SyncGroup: answered at once with SyncResult or a KafkaError."""
        try:
            member = self._classic_member(
                request.member_id, request.instance_id, request.generation
            )
        except KafkaError as error:
            return refusal(waiter, error)
        protocol, metadata = member.classic_protocols[0]
        if request.protocol_type not in {None, CONSUMER_PROTOCOL_TYPE} or (
            request.protocol not in {None, protocol}
        ):
            return refusal(
                waiter,
                InconsistentGroupProtocol(
                    f"member {member.member_id} was told protocol {protocol!r} of type 'consumer',"
                    f" not {request.protocol!r} of type {request.protocol_type!r}"
                ),
            )
        if self.group_epoch > member.epoch and member.phase is not MemberPhase.UNREVOKED:
            self._expect_rejoin(member, now_s)
            return refusal(waiter, _REBALANCING)
        member.sync_by_s = NEVER_S
        self._extend_session(member, now_s)
        assignment = write_assignment(member.assigned, metadata, topics)
        return [Answer(waiter, SyncResult(CONSUMER_PROTOCOL_TYPE, protocol, assignment))]

    def classic_heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, now_s: float
    ) -> KafkaError | None:
        """Heartbeat: REBALANCE_IN_PROGRESS where the member must rejoin to give up or get more."""
        try:
            member = self._classic_member(member_id, instance_id, generation)
        except KafkaError as error:
            return error
        self._extend_session(member, now_s)
        if (
            member.epoch == self.group_epoch
            and member.phase is not MemberPhase.UNREVOKED
            and (member.phase is MemberPhase.STABLE or waits_for_release(member, self._owners))
        ):
            return None
        self._expect_rejoin(member, now_s)
        return _REBALANCING

    def classic_leave(
        self, members: Sequence[LeavingMember], now_ms: int
    ) -> tuple[list[LeaveResult], list[Effect]]:
        """LeaveGroup: what became of each, in their order, and what follows.

        Tools remove members of either protocol with it, static ones by their instance ids alone.
        """
        results: list[LeaveResult] = []
        removed: list[Member] = []
        for leaving in members:
            error: KafkaError | None = None
            try:
                member = self._leaving(leaving)
                self._remove(member, now_ms)
                removed.append(member)
            except KafkaError as refused:
                error = refused
            results.append(LeaveResult(leaving.member_id, leaving.instance_id, error))
        return results, self._after_removal(removed)

    def _after_removal(self, removed: Iterable[Member]) -> list[Effect]:
        """What follows when members are gone: where only classic ones are left, a downgrade."""
        gone = list(removed)
        if any(not member.is_classic for member in gone) and self._may_downgrade():
            return [Convert(self._as_classic()), Persist()]
        return [Persist()] if gone else []

    def _may_downgrade(self, without: Member | None = None) -> bool:
        """Whether all members, besides one that goes, are classic and may be on their own."""
        left = [member for member in self._members.values() if member is not without]
        return (
            self._settings.migration_policy.downgrades
            and len(left) <= self._settings.classic_max_size
            and (bool(left) or without is not None)
            and all(member.is_classic for member in left)
        )

    def _as_classic(self) -> ClassicGroup:
        """The group in the classic protocol: its members have to join again."""
        members = tuple(
            ClassicMember(
                member_id=member.member_id,
                instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout_ms=max(member.rebalance_timeout_ms, 0),
                session_timeout_ms=member.classic_session_timeout_ms or 0,
                protocols=member.classic_protocols,
            )
            for member in self._members.values()
        )
        if not members:
            return ClassicGroup(
                group_id=self.group_id,
                protocol_type=None,
                generation=self.group_epoch,
                protocol=None,
                leader=None,
                state=GroupPhase.EMPTY.value,
                state_since_ms=self.state_since_ms,
            )
        supported = [{name for name, _ in member.protocols} for member in members]
        return ClassicGroup(
            group_id=self.group_id,
            protocol_type=CONSUMER_PROTOCOL_TYPE,
            generation=self.group_epoch,
            protocol=next(n for n, _ in members[0].protocols if all(n in s for s in supported)),
            leader=members[0].member_id,
            state=GroupPhase.PREPARING_REBALANCE.value,
            state_since_ms=self.state_since_ms,
            members=members,
        )

    def _admit_classic(self, request: JoinRequest) -> Member | None:
        """The member that this is, perhaps under its former id; None for a new one."""
        if request.instance_id is None:
            return self._members.get(request.member_id)
        holder = self._by_instance.get(request.instance_id)
        if not request.member_id:
            return holder
        return check_instance(self.group_id, request.member_id, request.instance_id, holder)

    def _check_classic_join(
        self, request: JoinRequest, member: Member | None, topics: Topics
    ) -> Subscription:
        """What the member subscribes to.

        Raises InvalidSessionTimeout, GroupMaxSizeReached, InconsistentGroupProtocol.
        """
        lowest_ms = self._settings.min_session_timeout_ms
        highest_ms = self._settings.max_session_timeout_ms
        if not lowest_ms <= request.session_timeout_ms <= highest_ms:
            raise InvalidSessionTimeout(
                f"session timeout of {request.session_timeout_ms} ms: this broker allows from"
                f" {lowest_ms} (group.min.session.timeout.ms) to {highest_ms}"
                " (group.max.session.timeout.ms)"
            )
        self._check_room(member)
        names = {name for name, _ in request.protocols}
        others = [m for m in self._members.values() if m.is_classic and m is not member]
        common = names.intersection(*({name for name, _ in m.classic_protocols} for m in others))
        if request.protocol_type != CONSUMER_PROTOCOL_TYPE or not common:
            raise InconsistentGroupProtocol(
                f"group {self.group_id} is one of consumers: a member must be of protocol type"
                " 'consumer' and share a protocol with all others of the classic protocol"
            )
        try:
            return read_subscription(request.protocols[0][1], topics)
        except ProtocolViolation as error:
            raise InconsistentGroupProtocol(
                f"metadata for protocol {request.protocols[0][0]!r} is not a consumer's: {error}"
            ) from error

    def _take_classic_part(
        self,
        member: Member | None,
        request: JoinRequest,
        subscription: Subscription,
        waiter: Waiter,
        topics: Topics,
        now_s: float,
        now_ms: int,
    ) -> list[Effect]:
        """A JoinGroup that is in order: add or update the member, and move it on."""
        epochs = self.group_epoch, self.assignment_epoch
        is_new = member is None
        if member is None:
            member_id = request.member_id or self._make_member_id()
            member = self._add(member_id, request.instance_id, now_ms)
        version = member.version
        if member.member_id != request.member_id and not is_new:
            self._rename(member, self._make_member_id(), now_ms)
        if self._describe_classic(member, request, subscription) or is_new:
            self._resolve(member, topics)
            self.group_epoch += 1
        self._advance(member, topics, subscription.owned, now_s)
        member.join_by_s = NEVER_S
        member.sync_by_s = now_s + member.rebalance_timeout_ms / MS_PER_S
        self._extend_session(member, now_s)
        self._watch(member)
        answer = Answer(waiter, _join_result(member))
        if member.version == version and epochs == (self.group_epoch, self.assignment_epoch):
            return [answer]
        return [Persist(), answer]

    def _describe_classic(
        self, member: Member, request: JoinRequest, subscription: Subscription
    ) -> bool:
        """Take on what the request says of the member; whether a new target is needed."""
        described = (
            subscription.rack_id or member.rack_id,
            request.client_id,
            request.client_host,
            max(request.rebalance_timeout_ms, 0),
            request.session_timeout_ms,
            _distinct(request.protocols),
        )
        if described != (
            member.rack_id,
            member.client_id,
            member.client_host,
            member.rebalance_timeout_ms,
            member.classic_session_timeout_ms,
            member.classic_protocols,
        ):
            (
                member.rack_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout_ms,
                member.classic_session_timeout_ms,
                member.classic_protocols,
            ) = described
            member.touch()
        return self._subscribe(member, subscription.names, None)

    def _leaving(self, leaving: LeavingMember) -> Member:
        if leaving.instance_id is None:
            member = self._members.get(leaving.member_id)
        else:
            member = self._by_instance.get(leaving.instance_id)
            if leaving.member_id:
                check_instance(self.group_id, leaving.member_id, leaving.instance_id, member)
        if member is None:
            raise UnknownMemberId(f"group {self.group_id} has no member {leaving.member_id!r}")
        return member

    def _classic_member(self, member_id: str, instance_id: str | None, generation: int) -> Member:
        """The member of the classic protocol that a request comes from.

        Raises UnknownMemberId, FencedInstanceId, IllegalGeneration.
        """
        member = self._members.get(member_id)
        if instance_id is not None:
            holder = self._by_instance.get(instance_id)
            member = check_instance(self.group_id, member_id, instance_id, holder)
        member = self._speaking_classic(member, member_id)
        if generation != member.epoch:
            raise IllegalGeneration(
                f"generation {generation} is not that of member {member_id}: {member.epoch}"
            )
        return member

    def _speaking_classic(self, member: Member | None, member_id: str) -> Member:
        if member is None or not member.is_classic:
            raise UnknownMemberId(
                f"group {self.group_id} has no member {member_id!r} of the classic protocol"
            )
        return member

    def _expect_rejoin(self, member: Member, now_s: float) -> None:
        """From when it is first told, it has its rebalance timeout to join again."""
        if member.join_by_s == NEVER_S:
            member.join_by_s = now_s + member.rebalance_timeout_ms / MS_PER_S
            self._watch(member)


def _needs_member_id(request: JoinRequest) -> bool:
    """A new member is told its id first and joins with it (KIP-394)."""
    return (
        not request.member_id and request.instance_id is None and request.requires_known_member_id
    )


def _distinct(protocols: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
    """Of a protocol that is named twice the first counts."""
    first = dict(reversed(protocols))
    return tuple((name, first[name]) for name in dict.fromkeys(name for name, _ in protocols))


def _join_result(member: Member) -> JoinResult:
    return JoinResult(
        member.epoch,
        CONSUMER_PROTOCOL_TYPE,
        member.classic_protocols[0][0],
        _NO_LEADER,
        skip_assignment=False,
        member_id=member.member_id,
    )
