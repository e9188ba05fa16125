"""OffsetDelete (key 47), version 0 (KIP-496).

Behaviour:
- what a group has committed for partitions is forgotten. A topic that the group consumes now
  keeps its offsets: GROUP_SUBSCRIBED_TO_TOPIC; one that does not exist, or lacks the
  partition, gets UNKNOWN_TOPIC_OR_PARTITION. Where nothing is committed there is nothing to do
- what concerns the group is the error on top: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP where it
  cannot be told what the group consumes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError, UnknownTopicOrPartition
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.server.context import Context, Request
    from trioq.types import TopicId


async def handle_offset_delete(ctx: Context, request: Request) -> OffsetDeleteResponse:
    """Forget the offsets. Cancelled: all of them are forgotten or none."""
    message = request.decode(OffsetDeleteRequest)
    image = ctx.image
    asked: dict[TopicId, list[int]] = {}
    for topic in message.topics:
        known = image.topics.get(topic.name)
        if known is not None:
            numbers = [one.partition_index for one in topic.partitions]
            asked.setdefault(known.topic_id, []).extend(n for n in numbers if _has(known, n))
    try:
        require_group_id(message.group_id)
        refused = await ctx.groups.delete_offsets(message.group_id, asked)
    except KafkaError as error:
        return OffsetDeleteResponse(error_code=error.code)
    return OffsetDeleteResponse(topics=[_answer(image, topic, refused) for topic in message.topics])


def _answer(
    image: ClusterImage, topic: OffsetDeleteRequestTopic, refused: Mapping[TopicId, KafkaError]
) -> OffsetDeleteResponseTopic:
    known = image.topics.get(topic.name)
    error = None if known is None else refused.get(known.topic_id)
    code = 0 if error is None else error.code
    return OffsetDeleteResponseTopic(
        name=topic.name,
        partitions=[
            OffsetDeleteResponsePartition(
                partition_index=one.partition_index,
                error_code=(
                    code if _has(known, one.partition_index) else UnknownTopicOrPartition.code
                ),
            )
            for one in topic.partitions
        ],
    )


def _has(topic: TopicImage | None, number: int) -> bool:
    return topic is not None and 0 <= number < len(topic.partitions)
