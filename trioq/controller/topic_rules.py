"""What a request about topics may ask for: names, numbers of partitions and replicas."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from trioq.config import BrokerConfig, Source, validate_topic_overrides
from trioq.controller.placement import (
    Replicas,
    check_assignments,
    check_replica_lists,
    check_replication_factor,
)
from trioq.errors import (
    ConfigError,
    InvalidConfig,
    InvalidPartitions,
    InvalidReplicaAssignment,
    InvalidReplicationFactor,
    InvalidRequest,
    InvalidTopicException,
    PolicyViolation,
)
from trioq.metastore import layout

MAX_NAME_LENGTH: Final = 249

MAX_NEW_PARTITIONS: Final = 10_000
"""Partitions that one request may create (Kafka's own limit)."""

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")

MIN_INSYNC: Final = "min.insync.replicas"

REPLICATED_MIN_INSYNC: Final = 2
"""min.insync.replicas of topics with three replicas or more, where nobody says (SAFETY rule 9)."""


class NewTopic(NamedTuple):
    """A topic to create; -1 asks for the broker's default.

    `assignments` gives the replicas of each partition, and then both numbers must be -1.
    A config value of None is refused.
    """

    name: str
    partitions: int = -1
    replication_factor: int = -1
    assignments: Mapping[int, Sequence[int]] | None = None
    configs: Mapping[str, str | None] = layout.NO_CONFIG


class NewPartitions(NamedTuple):
    """A topic is to have `partitions` in all; `assignments` are the new ones' replicas."""

    name: str
    partitions: int
    assignments: Sequence[Sequence[int]] | None = None


class Shape(NamedTuple):
    """How many partitions with how many replicas, or exactly which replicas."""

    partitions: int
    replication_factor: int
    replicas: list[Replicas] | None


class PartitionBudget:
    """How many partitions the rest of a request may still create."""

    def __init__(self) -> None:
        self._left = MAX_NEW_PARTITIONS

    def take(self, partitions: int) -> None:
        """Count new partitions. Raises PolicyViolation when there are too many."""
        if partitions > self._left:
            raise PolicyViolation(
                f"The request would create more than {MAX_NEW_PARTITIONS} partitions; make"
                " several requests of it."
            )
        self._left -= partitions


def check_name(name: str) -> None:
    """Raise InvalidTopicException, saying what is wrong, unless the name is legal."""
    if not name:
        raise InvalidTopicException("The topic name is empty.")
    if name in {".", ".."}:
        raise InvalidTopicException("The topic name cannot be '.' or '..'.")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidTopicException(
            f"The topic name has {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed."
        )
    if not _NAME.fullmatch(name):
        raise InvalidTopicException(
            f"The topic name {name!r} contains characters other than ASCII letters and"
            " digits, '.', '_' and '-'."
        )


def shape_of(topic: NewTopic, config: BrokerConfig, live_brokers: set[int]) -> Shape:
    """The shape that a new topic is to have.

    Raises InvalidPartitions, InvalidReplicationFactor, InvalidReplicaAssignment,
    InvalidRequest.
    """
    if topic.assignments:
        if topic.partitions != -1 or topic.replication_factor != -1:
            raise InvalidRequest(
                "With a replica assignment, the number of partitions and the replication"
                " factor must be -1."
            )
        _check_partitions(len(topic.assignments), config)
        replicas = check_assignments(topic.assignments, live_brokers)
        return Shape(len(replicas), len(replicas[0]), replicas)
    partitions = config.num_partitions if topic.partitions == -1 else topic.partitions
    if partitions < 1:
        raise InvalidPartitions("The number of partitions must be greater than 0, or -1.")
    _check_partitions(partitions, config)
    replication_factor = topic.replication_factor
    if replication_factor == -1:
        replication_factor = config.default_replication_factor
    if replication_factor < 1:
        raise InvalidReplicationFactor("The replication factor must be greater than 0, or -1.")
    check_replication_factor(replication_factor, len(live_brokers))
    return Shape(partitions, replication_factor, None)


def growth_of(
    request: NewPartitions,
    current: Sequence[layout.PartitionState],
    config: BrokerConfig,
    live_brokers: set[int],
) -> Shape:
    """The shape of the partitions to add.

    Raises InvalidPartitions, InvalidReplicaAssignment, InvalidReplicationFactor.
    """
    added = request.partitions - len(current)
    if added < 1:
        raise InvalidPartitions(
            f"The topic has {len(current)} partitions; {request.partitions} is no increase."
        )
    _check_partitions(request.partitions, config)
    replication_factor = len(current[0].replicas)
    if request.assignments is None:
        check_replication_factor(replication_factor, len(live_brokers))
        return Shape(added, replication_factor, None)
    if len(request.assignments) != added:
        raise InvalidReplicaAssignment(
            f"{added} partitions are to be added, but {len(request.assignments)} were assigned."
        )
    check_replica_lists(request.assignments, replication_factor, live_brokers)
    return Shape(added, replication_factor, [tuple(ids) for ids in request.assignments])


def topic_overrides(configs: Mapping[str, str | None]) -> dict[str, str]:
    """A topic's own configs as they are kept. Raises InvalidConfig."""
    try:
        return validate_topic_overrides(configs)
    except ConfigError as error:
        raise InvalidConfig(str(error)) from error


def is_min_insync_raised(
    replication_factor: int, overrides: Mapping[str, str], config: BrokerConfig
) -> bool:
    """Whether a new topic gets REPLICATED_MIN_INSYNC as its own value."""
    return (
        replication_factor > REPLICATED_MIN_INSYNC
        and MIN_INSYNC not in overrides
        and config.source_of(MIN_INSYNC) is Source.DEFAULT
    )


def _check_partitions(partitions: int, config: BrokerConfig) -> None:
    most = min(config.max_partitions_per_topic, layout.MAX_CHILDREN)
    if partitions > most:
        raise InvalidPartitions(
            f"{partitions} partitions are more than max.partitions.per.topic, {most}."
        )
