"""OffsetDelete (key 47): forget what a group has committed for partitions (KIP-496)."""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class OffsetDeleteRequestPartition(Struct):
    partition_index: int = wire(INT32, default=0)


class OffsetDeleteRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[OffsetDeleteRequestPartition] = wire(
        array(OffsetDeleteRequestPartition), factory=list
    )


class OffsetDeleteRequest(Message, versions=(0, 0)):
    group_id: str = wire(STRING, default="")
    topics: list[OffsetDeleteRequestTopic] = wire(array(OffsetDeleteRequestTopic), factory=list)


class OffsetDeleteResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)


class OffsetDeleteResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[OffsetDeleteResponsePartition] = wire(
        array(OffsetDeleteResponsePartition), factory=list
    )


class OffsetDeleteResponse(Message, versions=(0, 0)):
    error_code: int = wire(INT16, default=0)
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[OffsetDeleteResponseTopic] = wire(array(OffsetDeleteResponseTopic), factory=list)
