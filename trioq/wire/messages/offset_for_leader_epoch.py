"""OffsetForLeaderEpoch (key 23): where a leader epoch ended.

2: the caller's current epoch is checked. 3: who asks (-1 a consumer, -2 an old one).
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class OffsetForLeaderEpochRequestPartition(Struct):
    partition: int = wire(INT32, default=0)
    current_leader_epoch: int = wire(INT32, default=-1)
    leader_epoch: int = wire(INT32, default=0)


class OffsetForLeaderEpochRequestTopic(Struct):
    topic: str = wire(STRING, default="")
    partitions: list[OffsetForLeaderEpochRequestPartition] = wire(
        array(OffsetForLeaderEpochRequestPartition), factory=list
    )


class OffsetForLeaderEpochRequest(Message, versions=(2, 4), flexible=4):
    replica_id: int = wire(INT32, default=-2, since=3, ignorable=True)
    topics: list[OffsetForLeaderEpochRequestTopic] = wire(
        array(OffsetForLeaderEpochRequestTopic), factory=list
    )


class OffsetForLeaderEpochResponsePartition(Struct):
    error_code: int = wire(INT16, default=0)
    partition: int = wire(INT32, default=0)
    leader_epoch: int = wire(INT32, default=-1)
    end_offset: int = wire(INT64, default=-1)


class OffsetForLeaderEpochResponseTopic(Struct):
    topic: str = wire(STRING, default="")
    partitions: list[OffsetForLeaderEpochResponsePartition] = wire(
        array(OffsetForLeaderEpochResponsePartition), factory=list
    )


class OffsetForLeaderEpochResponse(Message, versions=(2, 4), flexible=4):
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[OffsetForLeaderEpochResponseTopic] = wire(
        array(OffsetForLeaderEpochResponseTopic), factory=list
    )
