"""Sharing partitions out evenly while moving as few of them as can be.

Topics with the same subscribers form a pool: within a pool any member can have any partition.
Members keep what they validly claim; what is left goes to the least loaded subscriber; then
partitions move from a member to one with at least two fewer, until no pool has such a pair. The
result is balanced in this sense, and where all members subscribe to the same topics the numbers
of partitions differ by at most one and no more partitions move than that takes.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trioq.types import TopicPartition


class Claim(NamedTuple):
    """What a member owned, and in which generation it was told so."""

    owned: Sequence[TopicPartition]
    generation: int


def assign_sticky(
    partition_counts: Mapping[str, int],
    topics: Mapping[str, frozenset[str]],
    claims: Mapping[str, Claim],
    members: Sequence[str],
) -> dict[str, list[TopicPartition]]:
    """Assign the partitions of subscribed topics.

    Args:
        partition_counts: number of partitions of each topic that exists.
        topics: what each member subscribes to.
        claims: what each member owned. Of two claims to one partition that of the newer
            generation counts, of the same generation none.
        members: all member ids, in the order that breaks ties.

    Returns:
        The partitions of each member, in order of topic and number.

    """
    previous = _valid_claims(partition_counts, topics, claims)
    pools = _pools(partition_counts, topics, members)
    balance = _Balance(members, previous)
    for pool in pools:
        balance.place(pool)
    while any(balance.level(pool) for pool in pools):
        pass
    return {member: sorted(owned) for member, owned in balance.owned.items()}


class _Pool(NamedTuple):
    """Topics that have the same subscribers, in the order that breaks ties."""

    subscribers: tuple[str, ...]
    partitions: list[TopicPartition]


def _valid_claims(
    partition_counts: Mapping[str, int],
    topics: Mapping[str, frozenset[str]],
    claims: Mapping[str, Claim],
) -> dict[TopicPartition, str]:
    """The one previous owner of each partition that exists and that it still subscribes to."""
    owners: dict[TopicPartition, tuple[int, str | None]] = {}
    for member, claim in claims.items():
        for partition in claim.owned:
            held = owners.get(partition)
            if held is None or claim.generation > held[0]:
                owners[partition] = (claim.generation, member)
            elif claim.generation == held[0] and member != held[1]:
                owners[partition] = (claim.generation, None)
    return {
        partition: member
        for partition, (_, member) in owners.items()
        if member is not None
        and partition.topic in topics[member]
        and 0 <= partition.partition < partition_counts.get(partition.topic, 0)
    }


def _pools(
    partition_counts: Mapping[str, int],
    topics: Mapping[str, frozenset[str]],
    members: Sequence[str],
) -> list[_Pool]:
    """The pools, those with the fewest subscribers first: they have the least choice."""
    by_topic: dict[str, list[str]] = defaultdict(list)
    for member in members:
        for topic in topics[member]:
            by_topic[topic].append(member)
    pooled: dict[tuple[str, ...], list[TopicPartition]] = defaultdict(list)
    for topic in sorted(by_topic):
        pooled[tuple(by_topic[topic])] += [
            TopicPartition(topic, number) for number in range(partition_counts.get(topic, 0))
        ]
    return sorted(
        (_Pool(subscribers, partitions) for subscribers, partitions in pooled.items()),
        key=lambda pool: len(pool.subscribers),
    )


class _Balance:
    """An assignment in the making."""

    def __init__(self, members: Sequence[str], previous: Mapping[TopicPartition, str]) -> None:
        self.owned: dict[str, set[TopicPartition]] = {member: set() for member in members}
        self._rank = {member: rank for rank, member in enumerate(members)}
        self._previous = previous
        for partition, member in previous.items():
            self.owned[member].add(partition)

    def place(self, pool: _Pool) -> None:
        """Give the partitions of `pool` that nobody claimed to the least loaded."""
        heap = [self._load(member) for member in pool.subscribers]
        heapq.heapify(heap)
        for partition in pool.partitions:
            if partition not in self._previous:
                _, _, member = heap[0]
                self.owned[member].add(partition)
                heapq.heapreplace(heap, self._load(member))

    def level(self, pool: _Pool) -> bool:
        """Move partitions of `pool` from members to ones with at least two fewer; False if none."""
        movable = self._movable(pool)
        moved = False
        while True:
            giver = max(
                (member for member in pool.subscribers if movable[member]),
                key=lambda member: (len(self.owned[member]), self._rank[member]),
                default=None,
            )
            if giver is None:
                return moved
            taker = min(pool.subscribers, key=self._load)
            if len(self.owned[giver]) - len(self.owned[taker]) < 2:
                return moved
            partition = self._choose(movable[giver], giver, taker)
            self.owned[giver].remove(partition)
            self.owned[taker].add(partition)
            movable[giver].remove(partition)
            movable[taker].append(partition)
            moved = True

    def _movable(self, pool: _Pool) -> dict[str, list[TopicPartition]]:
        """The partitions of `pool` that each subscriber has."""
        of_pool = set(pool.partitions)
        return {member: sorted(self.owned[member] & of_pool) for member in pool.subscribers}

    def _choose(
        self, partitions: Sequence[TopicPartition], giver: str, taker: str
    ) -> TopicPartition:
        """What to move: best what was the taker's, next what was not the giver's before."""
        return min(
            partitions,
            key=lambda partition: (
                self._previous.get(partition) != taker,
                self._previous.get(partition) == giver,
                (-partition.partition, partition.topic),
            ),
        )

    def _load(self, member: str) -> tuple[int, int, str]:
        return len(self.owned[member]), self._rank[member], member
