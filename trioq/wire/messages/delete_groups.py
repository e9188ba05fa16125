"""DeleteGroups (key 42): delete groups that have no members, with their offsets."""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire


class DeleteGroupsRequest(Message, versions=(0, 2), flexible=2):
    groups_names: list[str] = wire(array(STRING), factory=list)


class DeleteGroupsResponseResult(Struct):
    group_id: str = wire(STRING, default="")
    error_code: int = wire(INT16, default=0)


class DeleteGroupsResponse(Message, versions=(0, 2), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    results: list[DeleteGroupsResponseResult] = wire(
        array(DeleteGroupsResponseResult), factory=list
    )
