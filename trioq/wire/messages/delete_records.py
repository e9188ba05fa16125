"""DeleteRecords (key 21): raise the log start offset.

Offset -1 means the high watermark.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class DeleteRecordsRequestPartition(Struct):
    partition_index: int = wire(INT32, default=0)
    offset: int = wire(INT64, default=0)


class DeleteRecordsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[DeleteRecordsRequestPartition] = wire(
        array(DeleteRecordsRequestPartition), factory=list
    )


class DeleteRecordsRequest(Message, versions=(0, 2), flexible=2):
    topics: list[DeleteRecordsRequestTopic] = wire(array(DeleteRecordsRequestTopic), factory=list)
    timeout_ms: int = wire(INT32, default=0)


class DeleteRecordsResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    low_watermark: int = wire(INT64, default=0)
    error_code: int = wire(INT16, default=0)


class DeleteRecordsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[DeleteRecordsResponsePartition] = wire(
        array(DeleteRecordsResponsePartition), factory=list
    )


class DeleteRecordsResponse(Message, versions=(0, 2), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[DeleteRecordsResponseTopic] = wire(array(DeleteRecordsResponseTopic), factory=list)
