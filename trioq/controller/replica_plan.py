"""Where replicas should be instead: draining a broker, evening out a cluster. No I/O here.

First come racks: a partition is spread over as many as it can be. Then every broker has as many
replicas as any other, with as few moves as that takes; then as many preferred leaderships, which
costs no data but an election.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from trioq.controller.placement import BrokerPlace, Replicas
from trioq.errors import InvalidReplicationFactor
from trioq.types import TopicPartition

Placement = Mapping[TopicPartition, Replicas]


def plan_drain(
    brokers: Sequence[BrokerPlace], placement: Placement, leaving: int
) -> dict[TopicPartition, Replicas]:
    """The new replicas of every partition that `leaving` has a replica of.

    `brokers` are those that may hold replicas, alive or about to be; `leaving` may be among them
    or not. Its place in a partition goes to the broker with the fewest replicas of those that
    leave the partition in as many racks as can be. Where it was preferred to lead, the one of the
    others that is preferred in the fewest partitions takes that over.

    Raises InvalidReplicationFactor, naming a partition that has a replica on every broker.
    """
    plan = _Plan([one for one in brokers if one.broker_id != leaving], placement)
    changed: dict[TopicPartition, Replicas] = {}
    for partition, replicas in placement.items():
        if leaving not in replicas:
            continue
        target = plan.best_target(partition, leaving)
        if target is None:
            raise InvalidReplicationFactor(
                f"{partition} has {len(replicas)} replicas, and without broker {leaving} there are"
                f" {len(plan.rack_of)} brokers: add one first, or give the topic fewer replicas"
            )
        plan.replace(partition, leaving, target)
        if replicas[0] == leaving:
            plan.let_lead(partition, plan.least_leading(replicas[1:] or (target,)))
        changed[partition] = plan.placement[partition]
    return changed


def plan_rebalance(
    brokers: Sequence[BrokerPlace],
    placement: Placement,
    *,
    fixed: Collection[TopicPartition] = (),
) -> dict[TopicPartition, Replicas]:
    """The new replicas of the partitions that have to move for the cluster to be even.

    Replicas on brokers that are not in `brokers` stay there: those may come back. So do
    partitions that are `fixed`, but they count.
    """
    plan = _Plan(brokers, placement, fixed)
    for partition in placement:
        if partition not in plan.fixed:
            plan.spread_over_racks(partition)
    while plan.move_one():
        pass
    while plan.hand_on_one_leadership():
        pass
    return {
        partition: replicas
        for partition, replicas in plan.placement.items()
        if replicas != placement[partition]
    }


class _Plan:
    """A placement that is being changed, with the loads that follow from it."""

    def __init__(
        self,
        brokers: Iterable[BrokerPlace],
        placement: Placement,
        fixed: Collection[TopicPartition] = (),
    ) -> None:
        self.placement = dict(placement)
        self.fixed = frozenset(fixed)
        self.rack_of = dict(brokers)
        self.loads = dict.fromkeys(self.rack_of, 0)
        self.leads = dict.fromkeys(self.rack_of, 0)
        self._held: dict[int, dict[TopicPartition, None]] = {one: {} for one in self.rack_of}
        self._racks = len(set(self.rack_of.values()))
        for partition, replicas in placement.items():
            for broker in replicas:
                if broker in self.rack_of:
                    self.loads[broker] += 1
                    self._held[broker][partition] = None
            if replicas and replicas[0] in self.rack_of:
                self.leads[replicas[0]] += 1

    # ---- changes

    def replace(self, partition: TopicPartition, old: int, new: int) -> None:
        """Give the place of one replica to another broker."""
        replicas = self.placement[partition]
        self._lead(replicas[0], -1)
        self.placement[partition] = tuple(new if one == old else one for one in replicas)
        self._lead(self.placement[partition][0], 1)
        if old in self.rack_of:
            self.loads[old] -= 1
            del self._held[old][partition]
        self.loads[new] += 1
        self._held[new][partition] = None

    def let_lead(self, partition: TopicPartition, leader: int) -> None:
        """Prefer that replica."""
        replicas = self.placement[partition]
        self._lead(replicas[0], -1)
        self._lead(leader, 1)
        self.placement[partition] = (leader, *(one for one in replicas if one != leader))

    def _lead(self, broker: int, change: int) -> None:
        if broker in self.leads:
            self.leads[broker] += change

    # ---- replicas

    def best_target(self, partition: TopicPartition, old: int) -> int | None:
        """Who should have the replica of `old`; None if everybody has one already."""
        replicas = self.placement[partition]
        racks = self._racks_but(partition, old)
        free = [broker for broker in self.rack_of if broker not in replicas]
        return min(
            free,
            key=lambda one: (self.rack_of[one] in racks, self.loads[one], self.leads[one], one),
            default=None,
        )

    def spread_over_racks(self, partition: TopicPartition) -> None:
        """Move replicas that share a rack to racks without one, while there are such."""
        while True:
            replicas = self.placement[partition]
            counts = Counter(self.rack_of[one] for one in replicas if one in self.rack_of)
            crowded = [
                one for one in replicas if one in self.rack_of and counts[self.rack_of[one]] > 1
            ]
            if len(counts) == self._racks or not crowded:
                return
            old = max(crowded, key=lambda one: (self.loads[one], one))
            target = self.best_target(partition, old)
            if target is None or self.rack_of[target] in counts:
                return
            self.replace(partition, old, target)

    def move_one(self) -> bool:
        """Move one replica to a broker that has at least two fewer, if any can be moved so."""
        by_load = sorted(self.rack_of, key=lambda one: (self.loads[one], one))
        for source in reversed(by_load):
            for target in by_load:
                if self.loads[source] - self.loads[target] < 2:
                    break
                partition = self._movable(source, target)
                if partition is not None:
                    self.replace(partition, source, target)
                    return True
        return False

    def _movable(self, source: int, target: int) -> TopicPartition | None:
        """A partition whose replica may go from one to the other; rather one not led there."""
        found = None
        for partition in self._held[source]:
            replicas = self.placement[partition]
            if target in replicas or partition in self.fixed:
                continue
            if not self._keeps_racks(partition, source, target):
                continue
            if replicas[0] != source:
                return partition
            found = found or partition
        return found

    def _keeps_racks(self, partition: TopicPartition, source: int, target: int) -> bool:
        racks = self._racks_but(partition, source)
        return self.rack_of[target] not in racks or self.rack_of[source] in racks

    def _racks_but(self, partition: TopicPartition, left_out: int) -> set[str | None]:
        return {
            self.rack_of[one]
            for one in self.placement[partition]
            if one != left_out and one in self.rack_of
        }

    # ---- leaders

    def least_leading(self, brokers: Iterable[int]) -> int:
        """The one that is preferred in the fewest partitions; those that are known first."""
        return min(brokers, key=lambda one: (one not in self.leads, self.leads.get(one, 0), one))

    def hand_on_one_leadership(self) -> bool:
        """Shift one leadership, over others if need be, to who has at least two fewer."""
        for source in sorted(self.leads, key=lambda one: (-self.leads[one], one)):
            path = self._path_from(source)
            if path:
                for partition, leader in path:
                    self.let_lead(partition, leader)
                return True
        return False

    def _path_from(self, source: int) -> list[tuple[TopicPartition, int]]:
        """Whom to let lead what, so that `source` leads one fewer and another one more."""
        reached: dict[int, tuple[int, TopicPartition]] = {}
        queue = [source]
        for broker in queue:
            for partition, follower in self._could_lead_instead(broker):
                if follower == source or follower in reached:
                    continue
                reached[follower] = broker, partition
                if self.leads[source] - self.leads[follower] >= 2:
                    return self._traced(reached, source, follower)
                queue.append(follower)
        return []

    def _could_lead_instead(self, broker: int) -> Iterator[tuple[TopicPartition, int]]:
        for partition in self._held[broker]:
            replicas = self.placement[partition]
            if replicas[0] == broker and partition not in self.fixed:
                for follower in replicas[1:]:
                    if follower in self.leads:
                        yield partition, follower

    def _traced(
        self, reached: Mapping[int, tuple[int, TopicPartition]], source: int, end: int
    ) -> list[tuple[TopicPartition, int]]:
        path: list[tuple[TopicPartition, int]] = []
        while end != source:
            before, partition = reached[end]
            path.append((partition, end))
            end = before
        return path
