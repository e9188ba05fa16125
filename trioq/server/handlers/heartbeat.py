"""Heartbeat (key 12), versions 0-4.

Behaviour:
- a sign of life: the member's session starts again. REBALANCE_IN_PROGRESS tells it to join
  again; UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION and FENCED_INSTANCE_ID that it is not what it
  takes itself for
- no error while the group's slot is being read, as in Kafka: nobody expects one here
- answered at once and from memory; the answer without error is copied, not encoded

Version notes: 3 group_instance_id (KIP-345); 4 flexible.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, cast

from trioq.errors import InvalidGroupId
from trioq.server.handlers.group_border import is_group_id
from trioq.wire.framing import response_frame
from trioq.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

_CORRELATION_START: Final = 4
_CORRELATION_END: Final = 8


def handle_heartbeat(ctx: Context, request: Request, slot: Slot) -> HeartbeatResponse | None:
    """Answer from the group in memory."""
    message = request.decode(HeartbeatRequest)
    error = ctx.groups.heartbeat(
        message.group_id, message.generation_id, message.member_id, message.group_instance_id
    )
    if error is None:
        before, behind = _frame_without_error(request.api_key, request.api_version)
        slot.complete_frame(before + request.correlation_id.to_bytes(4, signed=True) + behind)
        return None
    if not is_group_id(message.group_id):
        return HeartbeatResponse(error_code=InvalidGroupId.code)
    return HeartbeatResponse(error_code=error.code)


@functools.cache
def _frame_without_error(api_key: int, api_version: int) -> tuple[bytes, bytes]:
    """What stands before and behind the correlation id."""
    parts = response_frame(api_key, api_version, 0, HeartbeatResponse())
    frame = b"".join(cast("list[bytes]", parts))
    return frame[:_CORRELATION_START], frame[_CORRELATION_END:]
