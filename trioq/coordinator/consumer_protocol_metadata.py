"""Between what classic consumers write into the group and partitions by topic id."""

from __future__ import annotations

from typing import NamedTuple

from trioq.coordinator.consumer_requests import Topics
from trioq.metastore.group_layout import Assignment
from trioq.types import TopicId
from trioq.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolTopicPartition,
    decode_assignment,
    decode_subscription,
    encode_assignment,
)


class Subscription(NamedTuple):
    """A classic consumer's metadata. `owned` leaves out topics that are gone."""

    version: int
    names: frozenset[str]
    owned: Assignment
    rack_id: str | None


def read_subscription(metadata: bytes, topics: Topics) -> Subscription:
    """Raises ProtocolViolation where `metadata` is no subscription."""
    version, content = decode_subscription(metadata)
    return Subscription(
        version,
        frozenset(content.topics),
        _by_id(content.owned_partitions, topics),
        content.rack_id or None,
    )


def read_assignment(data: bytes, topics: Topics) -> Assignment:
    """What the leader's plan gave; nothing where there was none (no bytes).

    Raises ProtocolViolation where `data` is no assignment.
    """
    return _by_id(decode_assignment(data)[1].assigned_partitions, topics) if data else {}


def write_assignment(assignment: Assignment, metadata: bytes, topics: Topics) -> bytes:
    """The assignment in the version of the member's `metadata`; topics that are gone left out."""
    version = min(decode_subscription(metadata)[0], ConsumerProtocolAssignment.LAST_VERSION)
    named = {topics.name_of(topic_id): numbers for topic_id, numbers in assignment.items()}
    return encode_assignment(
        ConsumerProtocolAssignment(
            assigned_partitions=[
                ConsumerProtocolTopicPartition(topic=name, partitions=sorted(numbers))
                for name, numbers in sorted((n, p) for n, p in named.items() if n is not None)
            ]
        ),
        version,
    )


def _by_id(partitions: list[ConsumerProtocolTopicPartition], topics: Topics) -> Assignment:
    found: dict[TopicId, frozenset[int]] = {}
    for each in partitions:
        topic_id = topics.id_of(each.topic)
        if topic_id is not None and each.partitions:
            found[topic_id] = found.get(topic_id, frozenset()) | frozenset(each.partitions)
    return found
