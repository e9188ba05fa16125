"""Who is to have which partition: the assignors of the server (KIP-848).

`uniform` gives every member the same number of partitions, as far as subscriptions allow, and
moves as few as that takes. `range` gives each member neighbouring partitions of each topic, the
same ones of all topics that have equally many partitions and the same subscribers, so that
members can join records of those topics.

Pure functions of their arguments: no randomness, and members' order decides every tie.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from trioq.metastore.group_layout import Assignment
from trioq.types import TopicId

_NONE: Final[frozenset[int]] = frozenset()
_MAX_LEVELLING_PASSES: Final = 64
"""Each pass strictly improves the balance; real subscriptions need one or two."""


class Subscriber(NamedTuple):
    """A member as the assignors see it. `target` is its part of the last plan."""

    member_id: str
    instance_id: str | None
    topics: frozenset[TopicId]
    target: Assignment


Partitions = Mapping[TopicId, int]
"""How many partitions each topic has that a member is subscribed to."""

Plan = dict[str, Assignment]
"""By member id; every subscriber is in it. What did not change is the subscriber's own object."""

Assignor = Callable[[Sequence[Subscriber], Partitions], Plan]


def assign_range(subscribers: Sequence[Subscriber], partitions: Partitions) -> Plan:
    """Neighbouring partitions of each topic to its subscribers in order.

    Static members come first, by instance id, so that a restart under another member id changes
    nothing; the first members get one partition more where the number does not divide evenly.
    """
    plan: dict[str, dict[TopicId, frozenset[int]]] = {s.member_id: {} for s in subscribers}
    by_topic: dict[TopicId, list[str]] = {topic_id: [] for topic_id in partitions}
    for subscriber in sorted(subscribers, key=_range_order):
        for topic_id in subscriber.topics:
            by_topic[topic_id].append(subscriber.member_id)
    for topic_id, member_ids in by_topic.items():
        if not member_ids:
            continue
        start = 0
        each, extra = divmod(partitions[topic_id], len(member_ids))
        for index, member_id in enumerate(member_ids):
            end = start + each + (index < extra)
            if start == end:
                break
            plan[member_id][topic_id] = frozenset(range(start, end))
            start = end
    return {s.member_id: _same_if_equal(s.target, plan[s.member_id]) for s in subscribers}


def _range_order(subscriber: Subscriber) -> tuple[bool, str]:
    if subscriber.instance_id is None:
        return True, subscriber.member_id
    return False, subscriber.instance_id


def assign_uniform(subscribers: Sequence[Subscriber], partitions: Partitions) -> Plan:
    """Equally many partitions to each, moving as few as that takes.

    With the same topics for all, members differ by one at most and the number of partitions that
    change hands is the least possible. Otherwise no partition can move from one subscriber of its
    topic to another and bring their numbers closer.
    """
    if not subscribers:
        return {}
    kept, unassigned = _keep(subscribers, partitions)
    first = subscribers[0].topics
    if all(s.topics is first or s.topics == first for s in subscribers):
        _fill_evenly(kept, unassigned, sum(partitions.values()))
    else:
        _Levelling(subscribers, kept).run(unassigned, partitions)
    return {s.member_id: k.assignment(s.target) for s, k in zip(subscribers, kept, strict=True)}


class _Kept:
    """What one member has in the plan being made; copied from its target once that changes."""

    __slots__ = ("_own", "_shared", "size")

    def __init__(self, shared: dict[TopicId, frozenset[int]]) -> None:
        self._shared = shared
        self._own: dict[TopicId, set[int]] = {}
        self.size = sum(map(len, shared.values()))

    def add(self, topic_id: TopicId, partition: int) -> None:
        self._topic(topic_id).add(partition)
        self.size += 1

    def pop_from(self, topic_ids: Iterable[TopicId]) -> tuple[TopicId, int]:
        """Give away the last partition of whichever of the topics it has most of."""
        topic_id = max(topic_ids, key=self.count)
        own = self._topic(topic_id)
        partition = max(own)
        own.remove(partition)
        self.size -= 1
        return topic_id, partition

    def pop(self, number: int) -> Iterator[tuple[TopicId, int]]:
        """Give away `number` partitions, first of the topics it has most of."""
        topic_ids = sorted(self._shared.keys() | self._own.keys(), key=self.count)
        for topic_id in reversed(topic_ids):
            own = self._topic(topic_id)
            for partition in sorted(own, reverse=True):
                if number == 0:
                    return
                own.remove(partition)
                self.size -= 1
                number -= 1
                yield topic_id, partition

    def count(self, topic_id: TopicId) -> int:
        own = self._own.get(topic_id)
        return len(self._shared.get(topic_id, _NONE)) if own is None else len(own)

    def _topic(self, topic_id: TopicId) -> set[int]:
        own = self._own.get(topic_id)
        if own is None:
            own = self._own[topic_id] = set(self._shared.get(topic_id, _NONE))
        return own

    def assignment(self, target: Assignment) -> Assignment:
        """The result; `target` itself if it is the same."""
        if self._own:
            merged = self._shared | {t: frozenset(own) for t, own in self._own.items()}
            return _same_if_equal(target, {t: numbers for t, numbers in merged.items() if numbers})
        return _same_if_equal(target, self._shared)


def _keep(
    subscribers: Sequence[Subscriber], partitions: Partitions
) -> tuple[list[_Kept], list[tuple[TopicId, int]]]:
    """What each may keep of its last target, and what nobody has then, topic by topic in turn."""
    unclaimed = {topic_id: set(range(count)) for topic_id, count in partitions.items()}
    kept = []
    for subscriber in subscribers:
        keeps: dict[TopicId, frozenset[int]] = {}
        for topic_id, numbers in subscriber.target.items():
            if topic_id not in subscriber.topics:
                continue
            free = unclaimed[topic_id]
            keep = numbers if numbers <= free else numbers & free
            if keep:
                keeps[topic_id] = keep
                free -= keep
        kept.append(_Kept(keeps))
    unassigned = [(t, partition) for t, numbers in unclaimed.items() for partition in numbers]
    return kept, unassigned


def _fill_evenly(kept: list[_Kept], unassigned: list[tuple[TopicId, int]], total: int) -> None:
    """Members that have most keep the one more that not all can have; what is over moves."""
    each, extra = divmod(total, len(kept))
    by_size = sorted(kept, key=lambda member: -member.size)
    below = []
    for index, member in enumerate(by_size):
        quota = each + (index < extra)
        if member.size > quota:
            unassigned.extend(member.pop(member.size - quota))
        elif member.size < quota:
            below.append((member, quota - member.size))
    # In turn, so that a topic's partitions spread over the members.
    waiting = iter(unassigned)
    while below:
        for (member, _), (topic_id, partition) in zip(below, waiting, strict=False):
            member.add(topic_id, partition)
        below = [(member, lacks - 1) for member, lacks in below if lacks > 1]


class _Levelling:
    """Balance where members subscribe to different topics.

    Topics with the same subscribers are one pool: what is in it can move among them freely.
    """

    def __init__(self, subscribers: Sequence[Subscriber], kept: list[_Kept]) -> None:
        self._kept = kept
        by_topic: dict[TopicId, list[int]] = {}
        for index, subscriber in enumerate(subscribers):
            for topic_id in subscriber.topics:
                by_topic.setdefault(topic_id, []).append(index)
        pools: dict[tuple[int, ...], list[TopicId]] = {}
        for topic_id, indices in by_topic.items():
            pools.setdefault(tuple(indices), []).append(topic_id)
        self._pools = pools

    def run(self, unassigned: list[tuple[TopicId, int]], partitions: Partitions) -> None:
        """Hand out what nobody has, then move what has to move."""
        by_topic: dict[TopicId, list[int]] = {}
        for topic_id, partition in unassigned:
            by_topic.setdefault(topic_id, []).append(partition)

        def crowding(pool: tuple[tuple[int, ...], list[TopicId]]) -> tuple[float, int]:
            # Few subscribers have little choice, so their partitions are handed out first.
            indices, topic_ids = pool
            return -sum(partitions[t] for t in topic_ids) / len(indices), len(indices)

        pools = sorted(self._pools.items(), key=crowding)
        for indices, topic_ids in pools:
            self._hand_out(indices, [(t, p) for t in topic_ids for p in by_topic.get(t, ())])
        for _ in range(_MAX_LEVELLING_PASSES):
            moves = [self._level(indices, topic_ids) for indices, topic_ids in pools]
            if not any(moves):
                break

    def _hand_out(self, indices: tuple[int, ...], free: list[tuple[TopicId, int]]) -> None:
        if not free:
            return
        sizes = [(self._kept[index].size, index) for index in indices]
        heapq.heapify(sizes)
        for topic_id, partition in free:
            size, index = sizes[0]
            self._kept[index].add(topic_id, partition)
            heapq.heapreplace(sizes, (size + 1, index))

    def _level(self, indices: tuple[int, ...], topic_ids: list[TopicId]) -> int:
        """Move partitions of one pool from who has most to who has least; how many moved."""
        kept = self._kept
        least = [(kept[index].size, index) for index in indices]
        lowest = min(least)[0]
        givers = {
            index: count
            for size, index in least
            if size > lowest + 1 and (count := sum(map(kept[index].count, topic_ids)))
        }
        if not givers:
            return 0
        most = [(-kept[index].size, index) for index in givers]
        heapq.heapify(least)
        heapq.heapify(most)
        moves = 0
        while most:
            size, taker = least[0]
            if size != kept[taker].size:  # it gave something since
                heapq.heapreplace(least, (kept[taker].size, taker))
                continue
            largest, giver = -most[0][0], most[0][1]
            if largest != kept[giver].size:  # it was given something since
                heapq.heapreplace(most, (-kept[giver].size, giver))
                continue
            if largest - size <= 1:
                break
            kept[taker].add(*kept[giver].pop_from(topic_ids))
            moves += 1
            heapq.heapreplace(least, (size + 1, taker))
            givers[giver] -= 1
            if givers[giver]:
                heapq.heapreplace(most, (1 - largest, giver))
            else:
                heapq.heappop(most)
        return moves


def _same_if_equal(target: Assignment, new: Assignment) -> Assignment:
    return target if target == new else new


ASSIGNORS: Final[Mapping[str, Assignor]] = MappingProxyType(
    {"uniform": assign_uniform, "range": assign_range}
)
"""What clients may ask for in group.remote.assignor, by name."""
