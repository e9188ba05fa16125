"""ListPartitionReassignments (key 46), version 0 (KIP-455).

Only partitions that are being moved are listed; asking for others, or for topics that do not
exist, is no error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.partition_admin import reassignments_in
from trioq.types import TopicPartition
from trioq.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    ListPartitionReassignmentsResponsePartition,
    ListPartitionReassignmentsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_list_partition_reassignments(
    ctx: Context, request: Request
) -> ListPartitionReassignmentsResponse:
    """Answer from the image, which shows what the controller has written."""
    message = request.decode(ListPartitionReassignmentsRequest)
    asked = None
    if message.topics is not None:
        asked = [
            TopicPartition(topic.name, number)
            for topic in message.topics
            for number in topic.partition_indexes
        ]
    topics: dict[str, ListPartitionReassignmentsResponseTopic] = {}
    for partition, state in reassignments_in(ctx.image, asked):
        topic = topics.setdefault(
            partition.topic, ListPartitionReassignmentsResponseTopic(name=partition.topic)
        )
        topic.partitions.append(
            ListPartitionReassignmentsResponsePartition(
                partition_index=partition.partition,
                replicas=list(state.replicas),
                adding_replicas=list(state.adding),
                removing_replicas=list(state.removing),
            )
        )
    return ListPartitionReassignmentsResponse(error_message=None, topics=list(topics.values()))
