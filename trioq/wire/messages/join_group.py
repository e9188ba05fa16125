"""JoinGroup (key 11): become a member of a group of the classic protocol, or stay one.

1: a rebalance timeout beside the session timeout. 4: a new member is first told its id
(KIP-394). 5: static members (KIP-345). 7: the protocol type in the response (KIP-559). 8: why
the member joins (KIP-800). 9: a leader may be told to leave the assignment as it is (KIP-814).
"""

from __future__ import annotations

from trioq.wire.kinds import BOOL, BYTES, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class JoinGroupRequestProtocol(Struct):
    name: str = wire(STRING, default="")
    metadata: bytes = wire(BYTES, default=b"")


class JoinGroupRequest(Message, versions=(0, 9), flexible=6):
    group_id: str = wire(STRING, default="")
    session_timeout_ms: int = wire(INT32, default=0)
    rebalance_timeout_ms: int = wire(INT32, default=-1, since=1, ignorable=True)
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=5, nullable=5)
    protocol_type: str = wire(STRING, default="")
    protocols: list[JoinGroupRequestProtocol] = wire(array(JoinGroupRequestProtocol), factory=list)
    reason: str | None = wire(STRING, default=None, since=8, nullable=8, ignorable=True)


class JoinGroupResponseMember(Struct):
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=5, nullable=5, ignorable=True)
    metadata: bytes = wire(BYTES, default=b"")


class JoinGroupResponse(Message, versions=(0, 9), flexible=6):
    throttle_time_ms: int = wire(INT32, default=0, since=2, ignorable=True)
    error_code: int = wire(INT16, default=0)
    generation_id: int = wire(INT32, default=-1)
    protocol_type: str | None = wire(STRING, default=None, since=7, nullable=7, ignorable=True)
    protocol_name: str | None = wire(STRING, default="", nullable=7)
    leader: str = wire(STRING, default="")
    skip_assignment: bool = wire(BOOL, default=False, since=9)
    member_id: str = wire(STRING, default="")
    members: list[JoinGroupResponseMember] = wire(array(JoinGroupResponseMember), factory=list)
