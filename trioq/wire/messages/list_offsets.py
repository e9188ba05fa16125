"""ListOffsets (key 2): offsets by timestamp.

Special timestamps: -1 latest, -2 earliest, -3 the record of greatest timestamp (7), -4
earliest local (8), -5 latest tiered (9), -6 earliest pending upload (11). 2: isolation
level. 4: leader epochs. 10: how long remote storage may take.
"""

from __future__ import annotations

from trioq.wire.kinds import INT8, INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ListOffsetsRequestPartition(Struct):
    partition_index: int = wire(INT32, default=0)
    current_leader_epoch: int = wire(INT32, default=-1, since=4, ignorable=True)
    timestamp: int = wire(INT64, default=0)


class ListOffsetsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[ListOffsetsRequestPartition] = wire(
        array(ListOffsetsRequestPartition), factory=list
    )


class ListOffsetsRequest(Message, versions=(1, 11), flexible=6, hot=True):
    replica_id: int = wire(INT32, default=0)
    isolation_level: int = wire(INT8, default=0, since=2)
    topics: list[ListOffsetsRequestTopic] = wire(array(ListOffsetsRequestTopic), factory=list)
    timeout_ms: int = wire(INT32, default=0, since=10, ignorable=True)


class ListOffsetsResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    timestamp: int = wire(INT64, default=-1)
    offset: int = wire(INT64, default=-1)
    leader_epoch: int = wire(INT32, default=-1, since=4)


class ListOffsetsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[ListOffsetsResponsePartition] = wire(
        array(ListOffsetsResponsePartition), factory=list
    )


class ListOffsetsResponse(Message, versions=(1, 11), flexible=6, hot=True):
    throttle_time_ms: int = wire(INT32, default=0, since=2, ignorable=True)
    topics: list[ListOffsetsResponseTopic] = wire(array(ListOffsetsResponseTopic), factory=list)
