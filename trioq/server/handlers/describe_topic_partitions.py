"""DescribeTopicPartitions (key 75), version 0 (KIP-966).

Behaviour:
- topics in the order of their names; an empty list of names means all
- at most response_partition_limit partitions, and no more than
  max.request.partition.size.limit; `next_cursor` tells where the next page starts
- a cursor that names a topic which is gone continues with the topic after it
- eligible leader replicas are those of the partition state
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import InvalidRequest, UnknownTopicOrPartition
from trioq.server.handlers.cluster_view import leadership, topic_operations
from trioq.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponseNextCursor,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage, TopicImage
    from trioq.server.context import Context, Request


def handle_describe_topic_partitions(
    ctx: Context, _request: Request, message: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    """Answer one page from the image."""
    cursor = message.cursor
    if cursor is not None and cursor.partition_index < 0:
        return DescribeTopicPartitionsResponse(
            topics=[
                DescribeTopicPartitionsResponseTopic(
                    error_code=InvalidRequest.code, name=topic.name
                )
                for topic in message.topics
            ]
        )
    image = ctx.image
    names = sorted({topic.name for topic in message.topics} or image.topics)
    start = 0
    if cursor is not None:
        names = [name for name in names if name >= cursor.topic_name]
        if names and names[0] == cursor.topic_name:
            start = cursor.partition_index
    limit = min(message.response_partition_limit, ctx.config.max_request_partition_size_limit)
    return _page(image, names, start, max(limit, 1))


def _page(
    image: ClusterImage, names: list[str], start: int, limit: int
) -> DescribeTopicPartitionsResponse:
    """Up to `limit` partitions of the topics `names`, from number `start` of the first on."""
    response = DescribeTopicPartitionsResponse()
    for name in names:
        topic = image.topics.get(name)
        if topic is None:
            response.topics.append(
                DescribeTopicPartitionsResponseTopic(
                    error_code=UnknownTopicOrPartition.code, name=name
                )
            )
            continue
        if limit == 0:
            response.next_cursor = DescribeTopicPartitionsResponseNextCursor(topic_name=name)
            break
        end = min(len(topic.partitions), start + limit)
        answer = _topic(image, topic, start, end)
        response.topics.append(answer)
        if end < len(topic.partitions):
            response.next_cursor = DescribeTopicPartitionsResponseNextCursor(
                topic_name=name, partition_index=end
            )
            break
        limit -= len(answer.partitions)
        start = 0
    return response


def _topic(
    image: ClusterImage, topic: TopicImage, start: int, end: int
) -> DescribeTopicPartitionsResponseTopic:
    """The topic with its partitions start .. end-1."""
    answer = DescribeTopicPartitionsResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        topic_authorized_operations=topic_operations(asked=True),
    )
    for number in range(start, end):
        state = topic.partitions[number]
        error_code, leader_id, offline = leadership(image, state)
        answer.partitions.append(
            DescribeTopicPartitionsResponsePartition(
                error_code=error_code,
                partition_index=number,
                leader_id=leader_id,
                leader_epoch=state.leader_epoch,
                replica_nodes=list(state.replicas),
                isr_nodes=list(state.isr),
                eligible_leader_replicas=list(state.elr),
                last_known_elr=[],
                offline_replicas=offline,
            )
        )
    return answer
