"""ElectLeaders (key 43): elect the preferred leader, or any live replica where there is none.

`election_type` 0 is preferred, 1 unclean (KIP-460). `topic_partitions` null is all partitions.
"""

from __future__ import annotations

from trioq.wire.kinds import INT8, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ElectLeadersRequestTopic(Struct):
    topic: str = wire(STRING, default="")
    partitions: list[int] = wire(array(INT32), factory=list)


class ElectLeadersRequest(Message, versions=(0, 2), flexible=2):
    election_type: int = wire(INT8, default=0, since=1)
    topic_partitions: list[ElectLeadersRequestTopic] | None = wire(
        array(ElectLeadersRequestTopic), factory=list, nullable=0
    )
    timeout_ms: int = wire(INT32, default=60_000)


class ElectLeadersResponsePartition(Struct):
    partition_id: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default="", nullable=0)


class ElectLeadersResponseTopic(Struct):
    topic: str = wire(STRING, default="")
    partition_result: list[ElectLeadersResponsePartition] = wire(
        array(ElectLeadersResponsePartition), factory=list
    )


class ElectLeadersResponse(Message, versions=(0, 2), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0, since=1)
    replica_election_results: list[ElectLeadersResponseTopic] = wire(
        array(ElectLeadersResponseTopic), factory=list
    )
