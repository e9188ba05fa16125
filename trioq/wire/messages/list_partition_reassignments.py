"""ListPartitionReassignments (key 46): which partitions are being moved, and where to (KIP-455).

`topics` null asks for all.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ListPartitionReassignmentsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partition_indexes: list[int] = wire(array(INT32), factory=list)


class ListPartitionReassignmentsRequest(Message, versions=(0, 0), flexible=0):
    timeout_ms: int = wire(INT32, default=60_000)
    topics: list[ListPartitionReassignmentsRequestTopic] | None = wire(
        array(ListPartitionReassignmentsRequestTopic), default=None, nullable=0
    )


class ListPartitionReassignmentsResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    replicas: list[int] = wire(array(INT32), factory=list)
    adding_replicas: list[int] = wire(array(INT32), factory=list)
    removing_replicas: list[int] = wire(array(INT32), factory=list)


class ListPartitionReassignmentsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[ListPartitionReassignmentsResponsePartition] = wire(
        array(ListPartitionReassignmentsResponsePartition), factory=list
    )


class ListPartitionReassignmentsResponse(Message, versions=(0, 0), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default="", nullable=0)
    topics: list[ListPartitionReassignmentsResponseTopic] = wire(
        array(ListPartitionReassignmentsResponseTopic), factory=list
    )
