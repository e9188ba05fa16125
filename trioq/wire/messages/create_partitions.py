"""CreatePartitions (key 37): raise the number of a topic's partitions.

`count` is the new total; `assignments`, if not null, the replicas of the new ones. 3:
the answer may be THROTTLING_QUOTA_EXCEEDED.
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class CreatePartitionsRequestAssignment(Struct):
    broker_ids: list[int] = wire(array(INT32), factory=list)


class CreatePartitionsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    count: int = wire(INT32, default=0)
    assignments: list[CreatePartitionsRequestAssignment] | None = wire(
        array(CreatePartitionsRequestAssignment), factory=list, nullable=0
    )


class CreatePartitionsRequest(Message, versions=(0, 3), flexible=2):
    topics: list[CreatePartitionsRequestTopic] = wire(
        array(CreatePartitionsRequestTopic), factory=list
    )
    timeout_ms: int = wire(INT32, default=0)
    validate_only: bool = wire(BOOL, default=False)


class CreatePartitionsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)


class CreatePartitionsResponse(Message, versions=(0, 3), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    results: list[CreatePartitionsResponseTopic] = wire(
        array(CreatePartitionsResponseTopic), factory=list
    )
