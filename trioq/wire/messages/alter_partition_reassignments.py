"""AlterPartitionReassignments (key 45): move replicas to other brokers, or cancel that (KIP-455).

`replicas` null cancels what is in progress.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class AlterPartitionReassignmentsRequestPartition(Struct):
    partition_index: int = wire(INT32, default=0)
    replicas: list[int] | None = wire(array(INT32), default=None, nullable=0)


class AlterPartitionReassignmentsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[AlterPartitionReassignmentsRequestPartition] = wire(
        array(AlterPartitionReassignmentsRequestPartition), factory=list
    )


class AlterPartitionReassignmentsRequest(Message, versions=(0, 0), flexible=0):
    timeout_ms: int = wire(INT32, default=60_000)
    topics: list[AlterPartitionReassignmentsRequestTopic] = wire(
        array(AlterPartitionReassignmentsRequestTopic), factory=list
    )


class AlterPartitionReassignmentsResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default="", nullable=0)


class AlterPartitionReassignmentsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[AlterPartitionReassignmentsResponsePartition] = wire(
        array(AlterPartitionReassignmentsResponsePartition), factory=list
    )


class AlterPartitionReassignmentsResponse(Message, versions=(0, 0), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default="", nullable=0)
    responses: list[AlterPartitionReassignmentsResponseTopic] = wire(
        array(AlterPartitionReassignmentsResponseTopic), factory=list
    )
