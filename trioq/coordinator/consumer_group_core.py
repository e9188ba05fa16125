"""The members of a consumer group, its epochs and its target assignment (KIP-848)."""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Final

from trioq.coordinator.assignors import ASSIGNORS, Subscriber
from trioq.coordinator.consumer_member import (
    NEVER_S,
    Member,
    MemberPhase,
    PartitionOwners,
    earliest_deadline_s,
)
from trioq.coordinator.consumer_requests import (
    JOIN_EPOCH,
    ConsumerGroupDescription,
    ConsumerGroupPhase,
    ConsumerGroupSettings,
    Topics,
)
from trioq.coordinator.reconciliation import reconcile
from trioq.coordinator.subscriptions import Subscriptions, TopicPatterns
from trioq.errors import GroupMaxSizeReached
from trioq.metastore.group_layout import Assignment, ConsumerGroup
from trioq.types import TopicId

MS_PER_S: Final = 1000


def new_member_id() -> str:
    """A random id, in the form of Kafka's."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


class ConsumerGroupCore:
    """What both protocols' events do with a group.

    The group epoch grows with every change of members, subscriptions or topics; the target
    assignment is made anew at the next event of a member, for all changes since at once.
    """

    def __init__(
        self,
        group_id: str,
        settings: ConsumerGroupSettings,
        now_ms: int,
        *,
        patterns: TopicPatterns | None = None,
        make_member_id: Callable[[], str] = new_member_id,
    ) -> None:
        self.group_id = group_id
        self.group_epoch = 0
        self.assignment_epoch = 0
        self.assignor = settings.assignors[0]
        self.state_since_ms = now_ms
        self._settings = settings
        self._session_timeout_s = settings.session_timeout_ms / MS_PER_S
        self._make_member_id = make_member_id
        self._members: dict[str, Member] = {}
        self._by_instance: dict[str, Member] = {}
        self._owners = PartitionOwners()
        self._patterns = TopicPatterns() if patterns is None else patterns
        self._subscriptions = Subscriptions(self._patterns)
        self._generation: int | None = None
        self._covered: dict[TopicId, int] | None = {}
        self._deadline_s = NEVER_S

    def _load(self, group: ConsumerGroup, now_s: float) -> None:
        """Take on what was kept; sessions and revocations begin anew."""
        self.group_epoch = group.group_epoch
        self.assignment_epoch = group.assignment_epoch
        self.assignor = group.assignor
        self.state_since_ms = group.state_since_ms
        self._covered = None
        for record in group.members:
            member = Member.restore(record)
            self._members[member.member_id] = member
            if member.instance_id is not None:
                self._by_instance[member.instance_id] = member
            self._owners.take(member, member.assigned)
            self._owners.take(member, member.pending_revocation)
            self._extend_session(member, now_s)
            if member.phase is MemberPhase.UNREVOKED:
                member.revoke_by_s = now_s + member.rebalance_timeout_ms / MS_PER_S
            self._watch(member)

    def snapshot(self) -> ConsumerGroup:
        """What is kept; a member that did not change is the same object as in the last one."""
        return ConsumerGroup(
            group_id=self.group_id,
            group_epoch=self.group_epoch,
            assignment_epoch=self.assignment_epoch,
            assignor=self.assignor,
            state_since_ms=self.state_since_ms,
            members=tuple(member.record() for member in self._members.values()),
        )

    @property
    def phase(self) -> ConsumerGroupPhase:
        if not self._members:
            return ConsumerGroupPhase.EMPTY
        if self.group_epoch > self.assignment_epoch:
            return ConsumerGroupPhase.ASSIGNING
        if all(m.is_reconciled_to(self.assignment_epoch) for m in self._members.values()):
            return ConsumerGroupPhase.STABLE
        return ConsumerGroupPhase.RECONCILING

    @property
    def is_empty(self) -> bool:
        return not self._members

    def describe(self) -> ConsumerGroupDescription:
        return ConsumerGroupDescription(self.phase, self.snapshot())

    def subscribed_topics(self, topics: Topics) -> frozenset[str]:
        """The names that a member is subscribed to, whether or not there are such topics."""
        names: set[str] = set()
        for subscribed, regex in {
            (m.subscribed_names, m.subscribed_regex) for m in self._members.values()
        }:
            names |= subscribed
            if regex:
                names |= self._patterns.matching(regex, topics)
        return frozenset(names)

    def next_deadline_s(self) -> float:
        """When `on_time` has something to do, or earlier."""
        return self._deadline_s

    def _watch(self, member: Member) -> None:
        self._deadline_s = min(self._deadline_s, member.deadline_s())

    def _watch_all(self) -> None:
        self._deadline_s = earliest_deadline_s(self._members.values())

    def _extend_session(self, member: Member, now_s: float) -> None:
        classic_ms = member.classic_session_timeout_ms
        timeout_s = self._session_timeout_s if classic_ms is None else classic_ms / MS_PER_S
        member.expires_s = now_s + timeout_s

    def _check_room(self, member: Member | None) -> None:
        """Raises GroupMaxSizeReached where the group is full and this is none of its members."""
        if member is None and len(self._members) >= self._settings.max_size:
            raise GroupMaxSizeReached(
                f"group {self.group_id} has {len(self._members)} members, as many as"
                " group.consumer.max.size allows"
            )

    def _add(self, member_id: str, instance_id: str | None, now_ms: int) -> Member:
        member = self._members[member_id] = Member(member_id)
        self._set_instance(member, instance_id)
        if len(self._members) == 1:
            self.state_since_ms = now_ms
        return member

    def _set_instance(self, member: Member, instance_id: str | None) -> None:
        if instance_id == member.instance_id:
            return
        if member.instance_id is not None:
            del self._by_instance[member.instance_id]
        member.instance_id = instance_id
        if instance_id is not None:
            self._by_instance[instance_id] = member
        member.touch()

    def _remove(self, member: Member, now_ms: int) -> None:
        """Set all its partitions free; the others get them with the next target."""
        del self._members[member.member_id]
        if member.instance_id is not None:
            del self._by_instance[member.instance_id]
        self._owners.release(member, member.assigned)
        self._owners.release(member, member.pending_revocation)
        self.group_epoch += 1
        if not self._members:
            self.state_since_ms = now_ms

    def _rename(self, member: Member, member_id: str, now_ms: int) -> None:
        """Another process took the member's instance id: it goes on with the same partitions."""
        other = self._members.get(member_id)
        if other is not None:  # joined without the instance id before, and begins anew
            self._remove(other, now_ms)
        del self._members[member.member_id]
        member.member_id = member_id
        self._members[member_id] = member
        self._restart(member)

    def _restart(self, member: Member) -> None:
        """Whoever joins as this member again holds nothing that it must be asked to give up."""
        self._owners.release(member, member.pending_revocation)
        member.pending_revocation = {}
        member.phase = MemberPhase.STABLE
        member.epoch = member.previous_epoch = JOIN_EPOCH
        member.revoke_by_s = NEVER_S
        member.touch()

    def _subscribe(self, member: Member, names: frozenset[str], regex: str | None) -> bool:
        """Whether this is another subscription than before."""
        if names == member.subscribed_names and regex == member.subscribed_regex:
            return False
        member.subscribed_names = names
        member.subscribed_regex = regex
        member.touch()
        return True

    def _advance(
        self, member: Member, topics: Topics, owned: Assignment | None, now_s: float
    ) -> None:
        """Bring the target up to date and the member nearer to it.

        From when it is told to give something up it has its rebalance timeout to do so.
        """
        self._refresh(topics)
        self._update_target(topics)
        if reconcile(member, self.assignment_epoch, self._owners, owned):
            must_revoke = member.phase is MemberPhase.UNREVOKED
            timeout_s = member.rebalance_timeout_ms / MS_PER_S
            member.revoke_by_s = now_s + timeout_s if must_revoke else NEVER_S

    def _resolve(self, member: Member, topics: Topics) -> None:
        member.topics = self._subscriptions.topic_ids(
            member.subscribed_names, member.subscribed_regex, topics
        )

    def _refresh(self, topics: Topics) -> bool:
        """Look at changed topics; whether the group epoch grew by it."""
        if topics.generation == self._generation:
            return False
        self._generation = topics.generation
        for member in self._members.values():
            self._resolve(member, topics)
        if self.group_epoch > self.assignment_epoch or self._wanted(topics) == self._cover():
            return False
        self.group_epoch += 1
        return True

    def _wanted(self, topics: Topics) -> dict[TopicId, int]:
        """What there is to assign: the partitions of every topic that a member subscribes to."""
        topic_ids = frozenset[TopicId]().union(*{m.topics for m in self._members.values()})
        return {topic_id: topics.partitions_of(topic_id) for topic_id in topic_ids}

    def _cover(self) -> dict[TopicId, int]:
        """What the target assigns; it always assigns all that there was when it was made."""
        if self._covered is None:
            self._covered = dict(
                sum(
                    (
                        Counter({t: len(p) for t, p in m.target.items()})
                        for m in self._members.values()
                    ),
                    Counter(),
                )
            )
        return self._covered

    def _update_target(self, topics: Topics) -> None:
        if self.group_epoch == self.assignment_epoch:
            return
        partitions = self._wanted(topics)
        self.assignor = self._preferred_assignor()
        members = self._members.values()
        plan = ASSIGNORS[self.assignor](
            [Subscriber(m.member_id, m.instance_id, m.topics, m.target) for m in members],
            partitions,
        )
        for member in members:
            target = plan[member.member_id]
            if target is not member.target:
                member.target = target
                member.touch()
        self.assignment_epoch = self.group_epoch
        self._covered = partitions

    def _preferred_assignor(self) -> str:
        """What most members ask for; the earlier of the configured where as many ask for each."""
        votes = Counter(m.server_assignor for m in self._members.values() if m.server_assignor)
        return max(self._settings.assignors, key=votes.__getitem__)
