"""Which brokers hold which partitions of a topic: pure, and the same for the same arguments.

Brokers are put in a row in which racks alternate. Partition p is led by broker start + p
of the row, so leaders are even; its other replicas follow in the row at a distance that
grows each time the leaders have gone round, so that the partitions of one broker do not
all share their followers. While there are racks without a replica of the partition they
come first, then brokers without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from trioq.errors import InvalidPartitions, InvalidReplicaAssignment, InvalidReplicationFactor

Replicas = tuple[int, ...]


class BrokerPlace(NamedTuple):
    """A broker that may hold replicas, and its rack (None: a rack that all such share)."""

    broker_id: int
    rack: str | None = None


def place(
    brokers: Sequence[BrokerPlace],
    partitions: int,
    replication_factor: int,
    *,
    start: int = 0,
    first_partition: int = 0,
) -> list[Replicas]:
    """The replicas, preferred leader first, of `partitions` partitions.

    `start` is any integer; `first_partition` is the number of the first one when a topic
    grows, so that a topic made in steps is placed as one made at once.

    Raises InvalidReplicationFactor when it is not between 1 and the number of brokers,
    InvalidPartitions when there is none to place.
    """
    if partitions < 1:
        raise InvalidPartitions("The number of partitions must be greater than 0.")
    check_replication_factor(replication_factor, len(brokers))
    row = _alternate_racks(brokers)
    racks = [place.rack for place in row]
    distinct_racks = len(set(racks))
    placed = []
    for number in range(first_partition, first_partition + partitions):
        rounds, _ = divmod(start + number, len(row))
        chosen = [(start + number) % len(row)]
        used_racks = {racks[chosen[0]]}
        shift = rounds % max(1, len(row) - 1)
        while len(chosen) < replication_factor:
            for step in range(len(row) - 1):
                candidate = (chosen[0] + 1 + (shift + step) % (len(row) - 1)) % len(row)
                if candidate in chosen:
                    continue
                if racks[candidate] in used_racks and len(used_racks) < distinct_racks:
                    continue
                chosen.append(candidate)
                used_racks.add(racks[candidate])
                break
        placed.append(tuple(row[index].broker_id for index in chosen))
    return placed


def start_led_by(brokers: Sequence[BrokerPlace], broker_id: int) -> int:
    """The `start` with which partition 0 is led by `broker_id`; 0 if it is not there."""
    for index, broker in enumerate(_alternate_racks(brokers)):
        if broker.broker_id == broker_id:
            return index
    return 0


def check_replication_factor(replication_factor: int, live_brokers: int) -> None:
    """Raise InvalidReplicationFactor unless so many replicas can be placed."""
    if replication_factor < 1:
        raise InvalidReplicationFactor("The replication factor must be greater than 0.")
    if replication_factor > live_brokers:
        raise InvalidReplicationFactor(
            f"Replication factor {replication_factor} is larger than the number of"
            f" available brokers, {live_brokers}."
        )


def check_assignments(
    assignments: Mapping[int, Sequence[int]], live_brokers: set[int]
) -> list[Replicas]:
    """A client's own assignment by partition number, as a list.

    Raises InvalidReplicaAssignment: numbers not 0, 1, 2..., no replicas, one twice, a
    broker that is not alive, or partitions with different numbers of replicas.
    """
    if sorted(assignments) != list(range(len(assignments))):
        raise InvalidReplicaAssignment(
            "Partitions must be a consecutive sequence of numbers that begins with 0."
        )
    checked = [tuple(assignments[number]) for number in range(len(assignments))]
    check_replica_lists(checked, len(checked[0]) if checked else 0, live_brokers)
    return checked


def check_replica_lists(
    lists: Sequence[Sequence[int]], replication_factor: int, live_brokers: set[int]
) -> None:
    """Raise InvalidReplicaAssignment unless each list has that many distinct live brokers."""
    for replicas in lists:
        if not replicas:
            raise InvalidReplicaAssignment("A partition was assigned an empty list of replicas.")
        if len(set(replicas)) != len(replicas):
            raise InvalidReplicaAssignment(
                f"The replicas {list(replicas)} name a broker more than once."
            )
        if len(replicas) != replication_factor:
            raise InvalidReplicaAssignment(
                f"The replicas {list(replicas)} are {len(replicas)}, other partitions of the"
                f" topic have {replication_factor}."
            )
        unknown = sorted(set(replicas) - live_brokers)
        if unknown:
            raise InvalidReplicaAssignment(
                f"The replicas {list(replicas)} name brokers that are not available: {unknown}."
            )


def _alternate_racks(brokers: Sequence[BrokerPlace]) -> list[BrokerPlace]:
    """Brokers in an order in which racks take turns."""
    by_rack: dict[str | None, list[BrokerPlace]] = {}
    for broker in sorted(brokers, key=lambda broker: broker.broker_id):
        by_rack.setdefault(broker.rack, []).append(broker)
    racks = [by_rack[rack] for rack in sorted(by_rack, key=lambda rack: (rack is None, rack or ""))]
    return [broker for turn in zip_longest(*racks) for broker in turn if broker is not None]
