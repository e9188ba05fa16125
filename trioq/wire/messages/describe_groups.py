"""DescribeGroups (key 15): groups of the classic protocol with their members.

3: authorized operations (KIP-430). 4: static members (KIP-345). 6: error messages (KIP-1043).
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, BYTES, INT16, INT32, STRING, UNKNOWN_OPERATIONS
from trioq.wire.schema import Message, Struct, array, wire


class DescribeGroupsRequest(Message, versions=(0, 6), flexible=5):
    groups: list[str] = wire(array(STRING), factory=list)
    include_authorized_operations: bool = wire(BOOL, default=False, since=3)


class DescribeGroupsResponseMember(Struct):
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=4, nullable=4, ignorable=True)
    client_id: str = wire(STRING, default="")
    client_host: str = wire(STRING, default="")
    member_metadata: bytes = wire(BYTES, default=b"")
    member_assignment: bytes = wire(BYTES, default=b"")


class DescribeGroupsResponseGroup(Struct):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, since=6, nullable=6, ignorable=True)
    group_id: str = wire(STRING, default="")
    group_state: str = wire(STRING, default="")
    protocol_type: str = wire(STRING, default="")
    protocol_data: str = wire(STRING, default="")
    members: list[DescribeGroupsResponseMember] = wire(
        array(DescribeGroupsResponseMember), factory=list
    )
    authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS, since=3)


class DescribeGroupsResponse(Message, versions=(0, 6), flexible=5):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    groups: list[DescribeGroupsResponseGroup] = wire(
        array(DescribeGroupsResponseGroup), factory=list
    )
