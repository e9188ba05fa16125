"""The machine of a group of the consumer protocol (KIP-848).

Every heartbeat of a member is answered at once: with its epoch and, where it changed, what the
member is to own. It says in return what it owns. The group epoch counts changes of members,
subscriptions and topics, the assignment epoch is the group epoch that the target assignment was
made for, and a member's epoch is that of the target that it has reached. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

from trioq.coordinator.consumer_classic_members import ClassicMembers
from trioq.coordinator.consumer_group_core import new_member_id
from trioq.coordinator.consumer_member import NEVER_S, Member, MemberPhase
from trioq.coordinator.consumer_requests import (
    JOIN_EPOCH,
    LEAVE_STATIC_EPOCH,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatResult,
    Topics,
)
from trioq.coordinator.effects import Answer, Effect, Persist, Waiter, refusal
from trioq.coordinator.heartbeat_rules import (
    check_epoch,
    check_instance,
    check_released,
    check_request,
    is_full,
    is_leaving,
)
from trioq.coordinator.subscriptions import TopicPatterns
from trioq.errors import (
    FencedInstanceId,
    IllegalGeneration,
    KafkaError,
    StaleMemberEpoch,
    UnknownMemberId,
)
from trioq.metastore.group_layout import ConsumerGroup


class ConsumerGroupState(ClassicMembers):
    """A group's members, epochs and assignments; events change them and return effects.

    An event that is refused changes nothing. `patterns` may be shared between groups.
    """

    @classmethod
    def restore(
        cls,
        group: ConsumerGroup,
        settings: ConsumerGroupSettings,
        now_s: float,
        *,
        patterns: TopicPatterns | None = None,
        make_member_id: Callable[[], str] = new_member_id,
    ) -> ConsumerGroupState:
        """The group as `snapshot` kept it; every member has a whole session timeout left."""
        state = cls(group.group_id, settings, 0, patterns=patterns, make_member_id=make_member_id)
        state._load(group, now_s)
        return state

    def heartbeat(
        self, request: ConsumerHeartbeat, waiter: Waiter, topics: Topics, now_s: float, now_ms: int
    ) -> list[Effect]:
        """A ConsumerGroupHeartbeat, answered with a ConsumerHeartbeatResult or a KafkaError.

        Costs next to nothing where nothing changes, and then writes nothing either.
        """
        member = self._members.get(request.member_id)
        if member is not None and self._changes_nothing(member, request, topics):
            member.expires_s = now_s + self._session_timeout_s
            return [Answer(waiter, self._result(member))]
        try:
            check_request(request, self._settings, self._patterns)
            if is_leaving(request):
                return self._leave(request, waiter, now_s, now_ms)
            member = self._admit(request)
        except KafkaError as error:
            return refusal(waiter, error)
        return self._take_part(member, request, waiter, topics, now_s, now_ms)

    def topics_changed(self, topics: Topics) -> list[Effect]:
        """Topics were created, deleted or grew.

        Heartbeats notice it by themselves; this makes a group with no heartbeat due show it.
        """
        return [Persist()] if self._refresh(topics) else []

    def on_time(self, now_s: float, now_ms: int) -> list[Effect]:
        """Remove members that were silent for too long, or did not give up partitions in time."""
        if now_s < self._deadline_s:
            return []
        due = [m for m in self._members.values() if m.deadline_s() <= now_s]
        for member in due:
            self._remove(member, now_ms)
        self._watch_all()
        return self._after_removal(due)

    def check_commit(
        self,
        member_id: str,
        instance_id: str | None,
        epoch: int,
        now_s: float,  # noqa: ARG002
        *,
        transactional: bool = False,  # noqa: ARG002
    ) -> KafkaError | None:
        """OffsetCommit: None if the member may commit at this epoch; without members anyone may.

        The signature is that of the classic machine: here a commit is no sign of life, and
        transactions make no difference.
        """
        if epoch < 0 and not self._members:
            return None
        if instance_id is not None:
            holder = self._by_instance.get(instance_id)
            if holder is not None and holder.member_id != member_id:
                return FencedInstanceId(
                    f"instance id {instance_id} belongs to member {holder.member_id} now"
                )
        return self._check_member(member_id, epoch)

    def check_fetch(self, member_id: str | None, epoch: int) -> KafkaError | None:
        """Whether committed offsets may be read: by those who are no members, always."""
        if not member_id and epoch < 0:
            return None
        return self._check_member(member_id or "", epoch)

    def abandon(self, error: KafkaError, now_s: float) -> list[Effect]:  # noqa: ARG002
        """Nobody ever waits for an answer of this machine."""
        return []

    def _changes_nothing(self, member: Member, request: ConsumerHeartbeat, topics: Topics) -> bool:
        """Whether this is a heartbeat that says nothing new of a member that has nowhere to go."""
        if (
            request.member_epoch != member.epoch
            or request.owned is not None
            or request.subscribed_names is not None
            or request.subscribed_regex is not None
            or request.rebalance_timeout_ms != -1
            or request.server_assignor is not None
            or request.rack_id is not None
            or (request.instance_id is not None and request.instance_id != member.instance_id)
            or member.is_classic
            or member.epoch <= JOIN_EPOCH
            or topics.generation != self._generation
            or self.group_epoch != self.assignment_epoch
        ):
            return False
        if member.phase is MemberPhase.UNREVOKED:
            return True
        return member.epoch == self.assignment_epoch and (
            member.phase is MemberPhase.STABLE or member.releases_seen == self._owners.releases
        )

    def _admit(self, request: ConsumerHeartbeat) -> Member | None:
        """The member that this is, perhaps still under its former id; None for a new one."""
        member_id, instance_id = request.member_id, request.instance_id
        joins = request.member_epoch == JOIN_EPOCH
        member = self._members.get(member_id)
        if instance_id is not None:
            holder = self._by_instance.get(instance_id)
            if not joins:
                member = check_instance(self.group_id, member_id, instance_id, holder)
            elif holder is not None:
                if holder is not member:
                    check_released(self.group_id, member_id, holder)
                member = holder
        if member is None:
            if not joins:
                raise UnknownMemberId(f"group {self.group_id} has no member {member_id}")
            self._check_room(None)
            return None
        check_epoch(member, request)
        return member

    def _take_part(
        self,
        member: Member | None,
        request: ConsumerHeartbeat,
        waiter: Waiter,
        topics: Topics,
        now_s: float,
        now_ms: int,
    ) -> list[Effect]:
        """A heartbeat that is in order: join or update the member, and move it on."""
        epochs = self.group_epoch, self.assignment_epoch
        is_new = member is None
        if member is None:
            member_id = request.member_id or self._make_member_id()
            member = self._add(member_id, request.instance_id, now_ms)
        version = member.version
        if not is_new and (
            member.epoch == LEAVE_STATIC_EPOCH or member.member_id != request.member_id
        ):
            self._replace(member, request.member_id or self._make_member_id(), now_ms)
        assigned = member.assigned
        missed_answer = request.member_epoch != member.epoch
        if self._update(member, request) or is_new:
            self._resolve(member, topics)
            self.group_epoch += 1
        self._advance(member, topics, request.owned, now_s)
        self._extend_session(member, now_s)
        self._watch(member)
        tell = is_full(request) or missed_answer or member.assigned is not assigned
        answer = Answer(waiter, self._result(member, tell=tell))
        if member.version == version and epochs == (self.group_epoch, self.assignment_epoch):
            return [answer]
        return [Persist(), answer]

    def _replace(self, member: Member, member_id: str, now_ms: int) -> None:
        if member.member_id == member_id:
            self._restart(member)
        else:
            self._rename(member, member_id, now_ms)

    def _update(self, member: Member, request: ConsumerHeartbeat) -> bool:
        """Take on what the request says of the member; whether a new target is needed."""
        if request.instance_id is not None:
            self._set_instance(member, request.instance_id)
        described = (
            member.rack_id if request.rack_id is None else request.rack_id,
            request.client_id,
            request.client_host,
            member.rebalance_timeout_ms
            if request.rebalance_timeout_ms < 0
            else request.rebalance_timeout_ms,
            request.server_assignor or member.server_assignor,
        )
        if member.is_classic or described != (
            member.rack_id,
            member.client_id,
            member.client_host,
            member.rebalance_timeout_ms,
            member.server_assignor,
        ):
            (
                member.rack_id,
                member.client_id,
                member.client_host,
                member.rebalance_timeout_ms,
                member.server_assignor,
            ) = described
            member.classic_session_timeout_ms = None
            member.classic_protocols = ()
            member.join_by_s = member.sync_by_s = NEVER_S
            member.touch()
        names, regex = request.subscribed_names, request.subscribed_regex
        resubscribed = self._subscribe(
            member,
            member.subscribed_names if names is None else names,
            member.subscribed_regex if regex is None else regex or None,
        )
        return resubscribed or self._preferred_assignor() != self.assignor

    def _leave(
        self, request: ConsumerHeartbeat, waiter: Waiter, now_s: float, now_ms: int
    ) -> list[Effect]:
        if request.instance_id is None:
            found = self._members.get(request.member_id)
            if found is None:
                raise UnknownMemberId(f"group {self.group_id} has no member {request.member_id}")
            member = found
        else:
            holder = self._by_instance.get(request.instance_id)
            member = check_instance(self.group_id, request.member_id, request.instance_id, holder)
        answer = Answer(waiter, ConsumerHeartbeatResult(request.member_id, request.member_epoch))
        if request.member_epoch == LEAVE_STATIC_EPOCH:
            # Its partitions wait for whoever comes with the same instance id, for a session.
            self._restart(member)
            member.epoch = LEAVE_STATIC_EPOCH
            self._extend_session(member, now_s)
            return [Persist(), answer]
        self._remove(member, now_ms)
        return [*self._after_removal([member]), answer]

    def _result(self, member: Member, *, tell: bool = False) -> ConsumerHeartbeatResult:
        return ConsumerHeartbeatResult(
            member.member_id,
            member.epoch,
            self._settings.heartbeat_interval_ms,
            member.assigned if tell else None,
        )

    def _check_member(self, member_id: str, epoch: int) -> KafkaError | None:
        member = self._members.get(member_id)
        if member is None:
            return UnknownMemberId(f"group {self.group_id} has no member {member_id!r}")
        if epoch == member.epoch:
            return None
        if member.is_classic:
            return IllegalGeneration(
                f"generation {epoch} is not that of member {member_id}: {member.epoch}"
            )
        return StaleMemberEpoch(f"epoch {epoch} is not that of member {member_id}: {member.epoch}")
