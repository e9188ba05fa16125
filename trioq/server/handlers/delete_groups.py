"""DeleteGroups (key 42), versions 0-2.

Behaviour:
- each group is deleted with its offsets, or refused by itself: NON_EMPTY_GROUP while it has
  members, GROUP_ID_NOT_FOUND where there is none
- answered when it is durable

Version notes: 2 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import InvalidGroupId
from trioq.server.handlers.group_border import is_group_id
from trioq.wire.messages.delete_groups import (
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DeleteGroupsResponseResult,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_delete_groups(ctx: Context, request: Request) -> DeleteGroupsResponse:
    """Delete the groups. Cancelled: each is deleted or not."""
    message = request.decode(DeleteGroupsRequest)
    names = list(dict.fromkeys(message.groups_names))
    deleted = await ctx.groups.delete_groups([name for name in names if is_group_id(name)])
    results = []
    for name in names:
        error = deleted[name] if name in deleted else InvalidGroupId()
        results.append(
            DeleteGroupsResponseResult(group_id=name, error_code=0 if error is None else error.code)
        )
    return DeleteGroupsResponse(results=results)
