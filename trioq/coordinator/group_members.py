"""The members of a group of the classic protocol together: who leads, what all of them support."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trioq.coordinator.group_member import GroupMember
from trioq.coordinator.group_requests import JoinedMember, JoinRequest
from trioq.errors import BrokerBug, FencedInstanceId, KafkaError, UnknownMemberId

# What heartbeats and commits are refused with: made once, given as values, never raised.
UNKNOWN_MEMBER: Final = UnknownMemberId()
FENCED_INSTANCE: Final = FencedInstanceId()

Protocols = tuple[tuple[str, bytes], ...]


class GroupMembers:
    """The members of one group, with counts that make an event's cost independent of their number.

    `awaiting_join` is how many have a parked JoinGroup. `leader` is a member's id, None while
    there are no members. While there are members at least one protocol is supported by all.
    """

    __slots__ = ("_by_id", "_static_ids", "_supporters", "awaiting_join", "leader")

    def __init__(self) -> None:
        self._by_id: dict[str, GroupMember] = {}
        self._static_ids: dict[str, str] = {}
        self._supporters: dict[str, int] = {}
        self.awaiting_join = 0
        self.leader: str | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[GroupMember]:
        return iter(self._by_id.values())

    def get(self, member_id: str) -> GroupMember | None:
        """The member of this id."""
        return self._by_id.get(member_id)

    def static(self, instance_id: str) -> GroupMember | None:
        """The member that holds this instance id."""
        member_id = self._static_ids.get(instance_id)
        return None if member_id is None else self._by_id[member_id]

    def check(self, member_id: str, instance_id: str | None) -> GroupMember | KafkaError:
        """The member that a request comes from, or why it comes from none (KIP-345)."""
        if instance_id is not None:
            holder = self._static_ids.get(instance_id)
            if holder is None:
                return UNKNOWN_MEMBER
            if holder != member_id:
                return FENCED_INSTANCE
        return self._by_id.get(member_id, UNKNOWN_MEMBER)

    def supports(self, protocols: Protocols, besides: GroupMember | None) -> bool:
        """True when every member, `besides` one whose own are to be replaced, has one of these."""
        others = len(self._by_id) - (besides is not None)
        own = () if besides is None else [name for name, _ in besides.protocols]
        return any(self._supporters.get(name, 0) - (name in own) == others for name, _ in protocols)

    def add(self, member: GroupMember) -> None:
        """Take in a member; the first one leads."""
        if member.member_id in self._by_id or member.instance_id in self._static_ids:
            raise BrokerBug(f"member {member.member_id} is added to a group that it is in already")
        self._by_id[member.member_id] = member
        if member.instance_id is not None:
            self._static_ids[member.instance_id] = member.member_id
        self._count_protocols(member, 1)
        if self.leader is None:
            self.leader = member.member_id

    def remove(self, member: GroupMember) -> None:
        """Let go of a member that is not parked; another one leads where it led."""
        if member.is_parked:
            raise BrokerBug(f"member {member.member_id} is removed with a request unanswered")
        del self._by_id[member.member_id]
        if member.instance_id is not None:
            del self._static_ids[member.instance_id]
        self._count_protocols(member, -1)
        if self.leader == member.member_id:
            self.leader = next(iter(self._by_id), None)

    def update(self, member: GroupMember, request: JoinRequest) -> None:
        """A member states its protocols and timeouts anew."""
        self._count_protocols(member, -1)
        member.update(request)
        self._count_protocols(member, 1)

    def rename(self, member: GroupMember, member_id: str) -> None:
        """A static member came back and has another id; nothing else of it changes."""
        if member.is_parked or member.instance_id is None or member_id in self._by_id:
            raise BrokerBug(f"member {member.member_id} cannot become {member_id}")
        del self._by_id[member.member_id]
        if self.leader == member.member_id:
            self.leader = member_id
        self._static_ids[member.instance_id] = member_id
        member.member_id = member_id
        self._by_id[member_id] = member

    def elect_joined_leader(self) -> bool:
        """Let one lead who has joined: the leader if it has; False when nobody has joined."""
        if self.leader is not None and self._by_id[self.leader].join_waiter is not None:
            return True
        for member in self._by_id.values():
            if member.join_waiter is not None:
                self.leader = member.member_id
                return True
        return False

    def choose_protocol(self) -> str:
        """Of the protocols that all support the one that most members prefer.

        Each votes for the first of its own that is a candidate. Between equals the one wins that
        was voted for first, by the order of joining.
        """
        count = len(self._by_id)
        candidates = {name for name, supporters in self._supporters.items() if supporters == count}
        votes: dict[str, int] = {}
        for member in self._by_id.values():
            for name, _ in member.protocols:
                if name in candidates:
                    votes[name] = votes.get(name, 0) + 1
                    break
        if not votes:
            raise BrokerBug("the members of a group support no common protocol")
        return max(votes, key=votes.__getitem__)

    def rebalance_timeout_ms(self) -> int:
        """How long the slowest member may take to rejoin."""
        return max((member.rebalance_timeout_ms for member in self._by_id.values()), default=0)

    def joined(self, protocol: str) -> tuple[JoinedMember, ...]:
        """What the leader is told of all."""
        return tuple(
            JoinedMember(member.member_id, member.instance_id, member.metadata(protocol))
            for member in self._by_id.values()
        )

    def _count_protocols(self, member: GroupMember, change: int) -> None:
        supporters = self._supporters
        for name, _ in member.protocols:
            count = supporters.get(name, 0) + change
            if count:
                supporters[name] = count
            else:
                del supporters[name]
