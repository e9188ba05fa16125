"""AlterPartitionReassignments (key 45), version 0 (KIP-455).

Behaviour:
- the answer comes when the move has begun; ListPartitionReassignments tells when it is over
- a target replaces one that is under way; null cancels it (NO_REASSIGNMENT_IN_PROGRESS if none is)
- INVALID_REPLICA_ASSIGNMENT for no replicas, one twice, and brokers that are not alive
- a partition twice in one request: INVALID_REQUEST for it
- NOT_CONTROLLER on top where no broker is the controller
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.partition_admin import Reassignment
from trioq.errors import KafkaError
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.types import TopicPartition
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    AlterPartitionReassignmentsResponsePartition,
    AlterPartitionReassignmentsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_alter_partition_reassignments(
    ctx: Context, request: Request
) -> AlterPartitionReassignmentsResponse:
    """Begin or cancel moves. Cancelled: each of them was begun or not."""
    message = request.decode(AlterPartitionReassignmentsRequest)
    asked = [
        Reassignment(
            TopicPartition(topic.name, one.partition_index),
            None if one.replicas is None else tuple(one.replicas),
        )
        for topic in message.topics
        for one in topic.partitions
    ]
    try:
        altered = await ctx.topic_admin.alter_reassignments(
            asked, timeout_s=timeout_s(message.timeout_ms)
        )
    except KafkaError as refused:
        return AlterPartitionReassignmentsResponse(
            error_code=refused.code, error_message=str(refused)
        )
    topics: dict[str, AlterPartitionReassignmentsResponseTopic] = {}
    for partition, error in altered:
        topic = topics.setdefault(
            partition.topic, AlterPartitionReassignmentsResponseTopic(name=partition.topic)
        )
        topic.partitions.append(
            AlterPartitionReassignmentsResponsePartition(
                partition_index=partition.partition,
                error_code=0 if error is None else error.code,
                error_message=None if error is None else str(error),
            )
        )
    return AlterPartitionReassignmentsResponse(error_message=None, responses=list(topics.values()))
