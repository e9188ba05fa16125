"""DescribeTopicPartitions (key 75): topics in pages, with eligible leader replicas.

A response that was cut at a limit names in `next_cursor` where the next one starts.
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import BOOL, INT16, INT32, STRING, UNKNOWN_OPERATIONS, UUID
from trioq.wire.schema import Message, Struct, array, wire


class DescribeTopicPartitionsRequestTopic(Struct):
    name: str = wire(STRING, default="")


class DescribeTopicPartitionsRequestCursor(Struct):
    topic_name: str = wire(STRING, default="")
    partition_index: int = wire(INT32, default=0)


class DescribeTopicPartitionsRequest(Message, versions=(0, 0), flexible=0):
    topics: list[DescribeTopicPartitionsRequestTopic] = wire(
        array(DescribeTopicPartitionsRequestTopic), factory=list
    )
    response_partition_limit: int = wire(INT32, default=2000)
    cursor: DescribeTopicPartitionsRequestCursor | None = wire(
        DescribeTopicPartitionsRequestCursor, default=None, nullable=0
    )


class DescribeTopicPartitionsResponsePartition(Struct):
    error_code: int = wire(INT16, default=0)
    partition_index: int = wire(INT32, default=0)
    leader_id: int = wire(INT32, default=0)
    leader_epoch: int = wire(INT32, default=-1)
    replica_nodes: list[int] = wire(array(INT32), factory=list)
    isr_nodes: list[int] = wire(array(INT32), factory=list)
    eligible_leader_replicas: list[int] | None = wire(array(INT32), default=None, nullable=0)
    last_known_elr: list[int] | None = wire(array(INT32), default=None, nullable=0)
    offline_replicas: list[int] = wire(array(INT32), factory=list)


class DescribeTopicPartitionsResponseTopic(Struct):
    error_code: int = wire(INT16, default=0)
    name: str | None = wire(STRING, default="", nullable=0)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)
    is_internal: bool = wire(BOOL, default=False)
    partitions: list[DescribeTopicPartitionsResponsePartition] = wire(
        array(DescribeTopicPartitionsResponsePartition), factory=list
    )
    topic_authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS)


class DescribeTopicPartitionsResponseNextCursor(Struct):
    topic_name: str = wire(STRING, default="")
    partition_index: int = wire(INT32, default=0)


class DescribeTopicPartitionsResponse(Message, versions=(0, 0), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[DescribeTopicPartitionsResponseTopic] = wire(
        array(DescribeTopicPartitionsResponseTopic), factory=list
    )
    next_cursor: DescribeTopicPartitionsResponseNextCursor | None = wire(
        DescribeTopicPartitionsResponseNextCursor, default=None, nullable=0
    )
