"""FindCoordinator (key 10): which broker coordinates a group or a transactional id.

1: key types (0 group, 1 transaction). 4: many keys in one request (KIP-699).
"""

from __future__ import annotations

from trioq.wire.kinds import INT8, INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class FindCoordinatorRequest(Message, versions=(0, 5), flexible=3):
    key: str = wire(STRING, default="", until=3)
    key_type: int = wire(INT8, default=0, since=1)
    coordinator_keys: list[str] = wire(array(STRING), factory=list, since=4)


class FindCoordinatorResponseCoordinator(Struct):
    key: str = wire(STRING, default="")
    node_id: int = wire(INT32, default=0)
    host: str = wire(STRING, default="")
    port: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=4, ignorable=True)


class FindCoordinatorResponse(Message, versions=(0, 5), flexible=3):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    error_code: int = wire(INT16, default=0, until=3)
    error_message: str | None = wire(
        STRING, default=None, since=1, until=3, nullable=1, ignorable=True
    )
    node_id: int = wire(INT32, default=0, until=3)
    host: str = wire(STRING, default="", until=3)
    port: int = wire(INT32, default=0, until=3)
    coordinators: list[FindCoordinatorResponseCoordinator] = wire(
        array(FindCoordinatorResponseCoordinator), factory=list, since=4
    )
