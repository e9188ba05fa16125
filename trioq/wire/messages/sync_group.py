"""SyncGroup (key 14): the leader sends the assignment, every member gets its part.

3: static members (KIP-345). 5: protocol type and name are checked (KIP-559).
"""

from __future__ import annotations

from trioq.wire.kinds import BYTES, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class SyncGroupRequestAssignment(Struct):
    member_id: str = wire(STRING, default="")
    assignment: bytes = wire(BYTES, default=b"")


class SyncGroupRequest(Message, versions=(0, 5), flexible=4):
    group_id: str = wire(STRING, default="")
    generation_id: int = wire(INT32, default=0)
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=3, nullable=3)
    protocol_type: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)
    protocol_name: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)
    assignments: list[SyncGroupRequestAssignment] = wire(
        array(SyncGroupRequestAssignment), factory=list
    )


class SyncGroupResponse(Message, versions=(0, 5), flexible=4):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    error_code: int = wire(INT16, default=0)
    protocol_type: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)
    protocol_name: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)
    assignment: bytes = wire(BYTES, default=b"")
