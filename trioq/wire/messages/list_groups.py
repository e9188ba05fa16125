"""ListGroups (key 16): the groups that a broker coordinates.

4: their states, and only those in some states (KIP-518). 5: their types, and only those of some
types (KIP-848).
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class ListGroupsRequest(Message, versions=(0, 5), flexible=3):
    states_filter: list[str] = wire(array(STRING), factory=list, since=4)
    types_filter: list[str] = wire(array(STRING), factory=list, since=5)


class ListGroupsResponseGroup(Struct):
    group_id: str = wire(STRING, default="")
    protocol_type: str = wire(STRING, default="")
    group_state: str = wire(STRING, default="", since=4, ignorable=True)
    group_type: str = wire(STRING, default="", since=5, ignorable=True)


class ListGroupsResponse(Message, versions=(0, 5), flexible=3):
    throttle_time_ms: int = wire(INT32, default=0, since=1, ignorable=True)
    error_code: int = wire(INT16, default=0)
    groups: list[ListGroupsResponseGroup] = wire(array(ListGroupsResponseGroup), factory=list)
