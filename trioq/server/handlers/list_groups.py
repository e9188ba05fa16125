"""ListGroups (key 16), versions 0-5.

Behaviour:
- every group that this broker coordinates, also those that only have committed offsets
- filters name states and types in any case; what is not a state or type matches nothing

Version notes: 3 flexible; 4 states and their filter (KIP-518); 5 types and their filter
(KIP-848).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError
from trioq.wire.messages.list_groups import (
    ListGroupsRequest,
    ListGroupsResponse,
    ListGroupsResponseGroup,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


def handle_list_groups(
    ctx: Context, _request: Request, message: ListGroupsRequest
) -> ListGroupsResponse:
    """Answer from the coordinator's memory."""
    groups = ctx.groups.list_groups()
    if isinstance(groups, KafkaError):
        return ListGroupsResponse(error_code=groups.code)
    states = {state.lower() for state in message.states_filter}
    types = {one.lower() for one in message.types_filter}
    return ListGroupsResponse(
        groups=[
            ListGroupsResponseGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type,
                group_state=group.state,
                group_type=group.group_type,
            )
            for group in groups
            if (not states or group.state.lower() in states)
            and (not types or group.group_type.lower() in types)
        ]
    )
