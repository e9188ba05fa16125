"""Who reads what in a classic group: the assignors that a group's leader runs.

Pure functions under the names that Java's client uses, with its user data, so that members of
any client can share a group: range, roundrobin, sticky (eager) and cooperative-sticky (KIP-429).
Members come in the order that Java gives them: static ones (by instance id) before dynamic ones
(by member id).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from trioq.client.sticky_assignment import Claim, assign_sticky
from trioq.client.sticky_user_data import (
    decode_cooperative,
    decode_sticky,
    encode_cooperative,
    encode_sticky,
)
from trioq.errors import ConfigError
from trioq.types import TopicPartition

NO_GENERATION: Final = -1


class MemberSubscription(NamedTuple):
    """What one member asks for; what it says it owns, and since which generation."""

    topics: frozenset[str]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = NO_GENERATION
    user_data: bytes | None = None
    instance_id: str | None = None
    rack: str | None = None


Members = Mapping[str, MemberSubscription]
Assignment = dict[str, list[TopicPartition]]
"""The partitions of each member, by member id; every member has an entry."""


class Assignor(Protocol):
    """One way to share partitions out.

    `cooperative`: members may keep what they own while they rejoin (KIP-429).
    """

    @property
    def name(self) -> str: ...

    @property
    def cooperative(self) -> bool: ...

    def user_data(self, owned: Collection[TopicPartition], generation: int) -> bytes | None:
        """What a member that owned `owned` in `generation` sends with its subscription."""
        ...

    def assign(self, partition_counts: Mapping[str, int], members: Members) -> Assignment:
        """Share the partitions of the topics in `partition_counts` out among `members`.

        Topics that nobody subscribes to are passed over, as are subscribed ones without a
        count (they do not exist yet). Each partition goes to at most one member, and only to
        one that subscribes to its topic.
        """
        ...


def ordered(members: Members) -> list[str]:
    """Member ids in the order that range and roundrobin serve them."""
    return sorted(
        members,
        key=lambda member_id: (
            members[member_id].instance_id is None,
            members[member_id].instance_id or member_id,
        ),
    )


def subscribers(
    partition_counts: Mapping[str, int], members: Members
) -> list[tuple[str, list[str]]]:
    """(topic, its members in order) of each topic that exists and is subscribed to, by name."""
    by_topic: dict[str, list[str]] = defaultdict(list)
    for member_id in ordered(members):
        for topic in members[member_id].topics:
            by_topic[topic].append(member_id)
    return [(topic, by_topic[topic]) for topic in sorted(by_topic) if topic in partition_counts]


class RangeAssignor:
    """Of each topic, every member gets one range of partitions; the first get one more."""

    name = "range"
    cooperative = False

    def user_data(self, owned: Collection[TopicPartition], generation: int) -> bytes | None:  # noqa: ARG002
        return None

    def assign(self, partition_counts: Mapping[str, int], members: Members) -> Assignment:
        assignment: Assignment = {member_id: [] for member_id in members}
        for topic, member_ids in subscribers(partition_counts, members):
            share, longer = divmod(partition_counts[topic], len(member_ids))
            start = 0
            for index, member_id in enumerate(member_ids):
                end = start + share + (1 if index < longer else 0)
                assignment[member_id] += _partitions(topic, range(start, end))
                start = end
        return assignment


class RoundRobinAssignor:
    """All partitions, one after the other, to the members in turn that subscribe to them."""

    name = "roundrobin"
    cooperative = False

    def user_data(self, owned: Collection[TopicPartition], generation: int) -> bytes | None:  # noqa: ARG002
        return None

    def assign(self, partition_counts: Mapping[str, int], members: Members) -> Assignment:
        assignment: Assignment = {member_id: [] for member_id in members}
        turns = ordered(members)
        turn = 0
        for topic, _ in subscribers(partition_counts, members):
            for partition in _partitions(topic, range(partition_counts[topic])):
                while topic not in members[turns[turn]].topics:
                    turn = (turn + 1) % len(turns)
                assignment[turns[turn]].append(partition)
                turn = (turn + 1) % len(turns)
        return assignment


class StickyAssignor:
    """As balanced as can be, and then with as few moves as can be; members give all up first."""

    name = "sticky"
    cooperative = False

    def user_data(self, owned: Collection[TopicPartition], generation: int) -> bytes | None:
        return encode_sticky(owned, generation)

    def assign(self, partition_counts: Mapping[str, int], members: Members) -> Assignment:
        claims = {
            member_id: Claim(*decode_sticky(member.user_data))
            for member_id, member in members.items()
        }
        return assign_sticky(partition_counts, _topics(members), claims, ordered(members))


class CooperativeStickyAssignor:
    """As sticky, but members keep what they own: what moves is given up first, then given out.

    The partitions that move are in nobody's assignment at first; whoever gave them up rejoins,
    and the rebalance that follows gives them to their new owner.
    """

    name = "cooperative-sticky"
    cooperative = True

    def user_data(self, owned: Collection[TopicPartition], generation: int) -> bytes | None:  # noqa: ARG002
        return encode_cooperative(generation)

    def assign(self, partition_counts: Mapping[str, int], members: Members) -> Assignment:
        claims = {
            member_id: Claim(
                member.owned,
                member.generation
                if member.generation != NO_GENERATION
                else decode_cooperative(member.user_data),
            )
            for member_id, member in members.items()
        }
        target = assign_sticky(partition_counts, _topics(members), claims, ordered(members))
        owners: dict[TopicPartition, set[str]] = defaultdict(set)
        for member_id, member in members.items():
            for partition in member.owned:
                owners[partition].add(member_id)
        return {
            member_id: [
                partition for partition in partitions if owners.get(partition, set()) <= {member_id}
            ]
            for member_id, partitions in target.items()
        }


ASSIGNORS: Final[Mapping[str, Assignor]] = {
    assignor.name: assignor
    for assignor in (
        RangeAssignor(),
        RoundRobinAssignor(),
        StickyAssignor(),
        CooperativeStickyAssignor(),
    )
}
"""The assignors by their names in the protocol."""


def assignors_named(names: Iterable[str | Assignor]) -> tuple[Assignor, ...]:
    """The assignors that a user listed, in order of preference; own ones pass as they are.

    Raises ConfigError for an unknown name, for none and for one listed twice.
    """
    found: list[Assignor] = []
    for name in names:
        assignor = ASSIGNORS.get(name) if isinstance(name, str) else name
        if assignor is None:
            raise ConfigError(f"assignor {name!r} is not one of {', '.join(ASSIGNORS)}")
        if any(assignor.name == other.name for other in found):
            raise ConfigError(f"assignor {assignor.name!r} is listed twice")
        found.append(assignor)
    if not found:
        raise ConfigError(f"no assignor is listed; name at least one of {', '.join(ASSIGNORS)}")
    return tuple(found)


def _partitions(topic: str, numbers: Sequence[int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in numbers]


def _topics(members: Members) -> dict[str, frozenset[str]]:
    return {member_id: member.topics for member_id, member in members.items()}
