"""LeaveGroup (key 13), versions 0-5.

Behaviour:
- each member leaves or is refused by itself; those that stay rebalance at once. An admin
  removes static members by their instance ids alone (KIP-345)
- answered when the group without them is kept

Version notes: 0 to 2 one member, whose error is that of the answer; 3 many members, by member
or instance id (KIP-345); 4 flexible; 5 reasons (KIP-800), logged.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trioq.coordinator.group_requests import LeaveResult, LeavingMember
from trioq.errors import KafkaError
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    LeaveGroupResponseMember,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

FIRST_VERSION_WITH_MANY_MEMBERS = 3


def handle_leave_group(ctx: Context, request: Request, slot: Slot) -> LeaveGroupResponse | None:
    """Take the members out of their group."""
    message = request.decode(LeaveGroupRequest)
    try:
        require_group_id(message.group_id)
    except KafkaError as error:
        return LeaveGroupResponse(error_code=error.code)
    if request.api_version >= FIRST_VERSION_WITH_MANY_MEMBERS:
        leaving = [
            LeavingMember(one.member_id, one.group_instance_id, one.reason)
            for one in message.members
        ]
    else:
        leaving = [LeavingMember(message.member_id)]
    ctx.groups.leave_group(message.group_id, leaving, partial(_answer, slot))
    return None


def _answer(slot: Slot, result: Sequence[LeaveResult] | KafkaError) -> None:
    if not slot.is_open:
        return
    if isinstance(result, KafkaError):
        slot.complete(LeaveGroupResponse(error_code=result.code))
    elif slot.api_version >= FIRST_VERSION_WITH_MANY_MEMBERS:
        slot.complete(
            LeaveGroupResponse(
                members=[
                    LeaveGroupResponseMember(
                        member_id=one.member_id,
                        group_instance_id=one.instance_id,
                        error_code=0 if one.error is None else one.error.code,
                    )
                    for one in result
                ]
            )
        )
    else:
        error = result[0].error
        slot.complete(LeaveGroupResponse(error_code=0 if error is None else error.code))
