"""LeaveGroup (key 13): members leave a group of the classic protocol.

3: many members at once, also by static id (KIP-345). 5: why each leaves (KIP-800).
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class LeaveGroupRequestMember(Struct):
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, nullable=0)
    reason: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)


class LeaveGroupRequest(Message, versions=(0, 5), flexible=4):
    group_id: str = wire(STRING, default="")
    member_id: str = wire(STRING, default="", until=2)
    members: list[LeaveGroupRequestMember] = wire(
        array(LeaveGroupRequestMember), factory=list, since=3
    )


class LeaveGroupResponseMember(Struct):
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, nullable=0)
    error_code: int = wire(INT16, default=0)


class LeaveGroupResponse(Message, versions=(0, 5), flexible=4):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    error_code: int = wire(INT16, default=0)
    members: list[LeaveGroupResponseMember] = wire(
        array(LeaveGroupResponseMember), factory=list, since=3
    )
