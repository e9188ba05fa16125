"""Heartbeat (key 12): a member of a group of the classic protocol is alive.

3: static members (KIP-345).
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, wire


class HeartbeatRequest(Message, versions=(0, 4), flexible=4, hot=True):
    group_id: str = wire(STRING, default="")
    generation_id: int = wire(INT32, default=0)
    member_id: str = wire(STRING, default="")
    group_instance_id: str | None = wire(STRING, default=None, since=3, nullable=3)


class HeartbeatResponse(Message, versions=(0, 4), flexible=4, hot=True):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    error_code: int = wire(INT16, default=0)
