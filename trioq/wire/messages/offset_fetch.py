"""OffsetFetch (key 9): how far groups have come.

2: null for all topics, an error for the whole group. 5: leader epochs (KIP-320). 7: whether to
wait for open transactions (KIP-447). 8: many groups at once (KIP-709). 9: groups of the consumer
protocol, with who asks (KIP-848).
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class OffsetFetchRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partition_indexes: list[int] = wire(array(INT32), factory=list)


class OffsetFetchRequestGroup(Struct):
    group_id: str = wire(STRING, default="")
    member_id: str | None = wire(STRING, default=None, since=9, nullable=9, ignorable=True)
    member_epoch: int = wire(INT32, default=-1, since=9, ignorable=True)
    topics: list[OffsetFetchRequestTopic] | None = wire(
        array(OffsetFetchRequestTopic), factory=list, nullable=8
    )


class OffsetFetchRequest(Message, versions=(1, 9), flexible=6, hot=True):
    group_id: str = wire(STRING, default="", until=7)
    topics: list[OffsetFetchRequestTopic] | None = wire(
        array(OffsetFetchRequestTopic), factory=list, until=7, nullable=2
    )
    groups: list[OffsetFetchRequestGroup] = wire(
        array(OffsetFetchRequestGroup), factory=list, since=8
    )
    require_stable: bool = wire(BOOL, default=False, since=7)


class OffsetFetchResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    committed_offset: int = wire(INT64, default=0)
    committed_leader_epoch: int = wire(INT32, default=-1, since=5, ignorable=True)
    metadata: str | None = wire(STRING, default="", nullable=0)
    error_code: int = wire(INT16, default=0)


class OffsetFetchResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[OffsetFetchResponsePartition] = wire(
        array(OffsetFetchResponsePartition), factory=list
    )


class OffsetFetchResponseGroup(Struct):
    group_id: str = wire(STRING, default="")
    topics: list[OffsetFetchResponseTopic] = wire(array(OffsetFetchResponseTopic), factory=list)
    error_code: int = wire(INT16, default=0)


class OffsetFetchResponse(Message, versions=(1, 9), flexible=6, hot=True):
    throttle_time_ms: int = wire(INT32, default=0, since=3, ignorable=True)
    topics: list[OffsetFetchResponseTopic] = wire(
        array(OffsetFetchResponseTopic), factory=list, until=7
    )
    error_code: int = wire(INT16, default=0, since=2, until=7, ignorable=True)
    groups: list[OffsetFetchResponseGroup] = wire(
        array(OffsetFetchResponseGroup), factory=list, since=8
    )
