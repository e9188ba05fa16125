"""OffsetCommit (key 8): keep how far a group has come.

2 to 4: how long the offsets are kept. 6: leader epochs (KIP-320). 7: static members (KIP-345).
9: groups of the consumer protocol, with the member epoch for the generation (KIP-848).
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class OffsetCommitRequestPartition(Struct):
    partition_index: int = wire(INT32, default=0)
    committed_offset: int = wire(INT64, default=0)
    committed_leader_epoch: int = wire(INT32, default=-1, since=6, ignorable=True)
    committed_metadata: str | None = wire(STRING, default="", nullable=0)


class OffsetCommitRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[OffsetCommitRequestPartition] = wire(
        array(OffsetCommitRequestPartition), factory=list
    )


class OffsetCommitRequest(Message, versions=(2, 9), flexible=8, hot=True):
    group_id: str = wire(STRING, default="")
    generation_id_or_member_epoch: int = wire(INT32, default=-1)
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=7, nullable=7)
    retention_time_ms: int = wire(INT64, default=-1, until=4, ignorable=True)
    topics: list[OffsetCommitRequestTopic] = wire(array(OffsetCommitRequestTopic), factory=list)


class OffsetCommitResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)


class OffsetCommitResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[OffsetCommitResponsePartition] = wire(
        array(OffsetCommitResponsePartition), factory=list
    )


class OffsetCommitResponse(Message, versions=(2, 9), flexible=8, hot=True):
    throttle_time_ms: int = wire(INT32, default=0, since=3, ignorable=True)
    topics: list[OffsetCommitResponseTopic] = wire(array(OffsetCommitResponseTopic), factory=list)
