"""How data handlers find a partition, and what they answer where it is not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import (
    KafkaError,
    KafkaStorageError,
    NotLeaderOrFollower,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.metastore.image import TopicImage
    from trioq.replication.partition import Partition
    from trioq.server.context import Context


def require_partition(ctx: Context, topic: str, number: int) -> Partition:
    """The hosted partition.

    Raises:
        UnknownTopicOrPartition, NotLeaderOrFollower, KafkaStorageError: see `_absent`.
    """
    partition = ctx.partitions.find(topic, number)
    if partition is None:
        raise _absent(ctx, ctx.image.topics.get(topic), number, UnknownTopicOrPartition)
    return partition


def require_partition_by_id(ctx: Context, topic_id: TopicId, number: int) -> Partition:
    """Like `require_partition`, by topic id; an unknown id raises UnknownTopicId."""
    partition = ctx.partitions.find_by_id(topic_id, number)
    if partition is None:
        raise _absent(ctx, ctx.image.topics_by_id.get(topic_id), number, UnknownTopicId)
    return partition


def _absent(
    ctx: Context, topic: TopicImage | None, number: int, unknown_topic: type[KafkaError]
) -> KafkaError:
    if topic is None:
        return unknown_topic()
    if not 0 <= number < len(topic.partitions):
        return UnknownTopicOrPartition()
    if ctx.config.node_id in topic.partitions[number].replicas:
        return KafkaStorageError(f"the log directory of {topic.name}-{number} is offline")
    return NotLeaderOrFollower()
