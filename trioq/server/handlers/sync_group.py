"""SyncGroup (key 14), versions 0-5.

Behaviour:
- the answer waits until the leader's plan has come and is kept; the leader sends it with its
  own SyncGroup. As with JoinGroup, nothing else of the connection is handled before
- when the broker stops, waiting members are told NOT_COORDINATOR
- a member's assignment has up to 42 KiB: INVALID_REQUEST for the leader beyond, with a log
  line

Version notes: 3 group_instance_id (KIP-345); 4 flexible; 5 protocol type and name (KIP-559),
both needed: INCONSISTENT_GROUP_PROTOCOL without.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trioq import logs
from trioq.coordinator.group_requests import SyncRequest, SyncResult
from trioq.errors import InconsistentGroupProtocol, KafkaError, NotCoordinator
from trioq.server.handlers.group_border import (
    MAX_ASSIGNMENT_BYTES,
    require_at_most,
    require_group_id,
    require_instance_id,
)
from trioq.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

log = logs.get_logger(__name__)

FIRST_VERSION_WITH_PROTOCOL = 5


def handle_sync_group(ctx: Context, request: Request, slot: Slot) -> SyncGroupResponse | None:
    """Hand the leader's plan to the coordinator, or wait for it."""
    message = request.decode(SyncGroupRequest)
    try:
        sync = _sync_request(request, message)
    except KafkaError as error:
        log.warning(
            "sync_refused",
            group=message.group_id[:300],
            peer=request.connection.peer,
            reason=str(error),
        )
        return SyncGroupResponse(error_code=error.code)
    reply = partial(_answer, slot)
    slot.on_drain = partial(reply, NotCoordinator())
    ctx.groups.sync_group(message.group_id, sync, reply)
    return None


def _sync_request(request: Request, message: SyncGroupRequest) -> SyncRequest:
    require_group_id(message.group_id)
    require_instance_id(message.group_instance_id)
    if request.api_version >= FIRST_VERSION_WITH_PROTOCOL and not (
        message.protocol_type and message.protocol_name
    ):
        raise InconsistentGroupProtocol("a request of version 5 names the group's protocol")
    largest = max((len(one.assignment) for one in message.assignments), default=0)
    require_at_most("the assignment", largest, MAX_ASSIGNMENT_BYTES)
    return SyncRequest(
        generation=message.generation_id,
        member_id=message.member_id,
        instance_id=message.group_instance_id,
        protocol_type=message.protocol_type,
        protocol=message.protocol_name,
        assignments={one.member_id: one.assignment for one in message.assignments},
    )


def _answer(slot: Slot, result: SyncResult | KafkaError) -> None:
    """Complete the slot, unless its connection has ended or the broker's stop came first."""
    if not slot.is_open:
        return
    if isinstance(result, KafkaError):
        slot.complete(SyncGroupResponse(error_code=result.code))
    else:
        slot.complete(
            SyncGroupResponse(
                protocol_type=result.protocol_type,
                protocol_name=result.protocol,
                assignment=result.assignment,
            )
        )
