"""What members of a classic group tell each other, as bytes: subscriptions and assignments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from trioq.client.assignors import MemberSubscription
from trioq.types import TopicPartition
from trioq.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    ConsumerProtocolTopicPartition,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)

SUBSCRIPTION_VERSION: Final = 3
ASSIGNMENT_VERSION: Final = 0
"""All versions look the same, and every client reads the first."""


def member_metadata(subscription: MemberSubscription) -> bytes:
    """What a member sends with JoinGroup; its instance id goes in the request itself."""
    return encode_subscription(
        ConsumerProtocolSubscription(
            topics=sorted(subscription.topics),
            user_data=subscription.user_data,
            owned_partitions=_by_topic(subscription.owned),
            generation_id=subscription.generation,
            rack_id=subscription.rack,
        ),
        SUBSCRIPTION_VERSION,
    )


def read_member_metadata(metadata: bytes) -> MemberSubscription:
    """A member's metadata as its leader reads it; raises ProtocolViolation."""
    _, subscription = decode_subscription(metadata)
    return MemberSubscription(
        topics=frozenset(subscription.topics),
        owned=tuple(_flat(subscription.owned_partitions)),
        generation=subscription.generation_id,
        user_data=subscription.user_data,
        rack=subscription.rack_id,
    )


def member_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    """What the leader sends for one member with SyncGroup."""
    message = ConsumerProtocolAssignment(assigned_partitions=_by_topic(partitions))
    return encode_assignment(message, ASSIGNMENT_VERSION)


def read_member_assignment(data: bytes) -> frozenset[TopicPartition]:
    """A member's assignment (no bytes: nothing); raises ProtocolViolation."""
    if not data:
        return frozenset()
    return frozenset(_flat(decode_assignment(data)[1].assigned_partitions))


def _by_topic(partitions: Iterable[TopicPartition]) -> list[ConsumerProtocolTopicPartition]:
    by_topic: dict[str, list[int]] = defaultdict(list)
    for topic, number in sorted(partitions):
        by_topic[topic].append(number)
    return [
        ConsumerProtocolTopicPartition(topic=topic, partitions=numbers)
        for topic, numbers in by_topic.items()
    ]


def _flat(topics: Sequence[ConsumerProtocolTopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(topic.topic, number) for topic in topics for number in topic.partitions]
