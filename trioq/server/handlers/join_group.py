"""JoinGroup (key 11), versions 0-9.

Behaviour:
- the answer waits until every member of the group has joined, or the rebalance timeout has
  passed. Nothing else of the connection is handled before, as in Kafka: what the client
  sends behind its JoinGroup meets the group after the rebalance
- when the broker stops, waiting members are told NOT_COORDINATOR: they look for the
  coordinator again and join anew
- a member's protocols and their metadata have up to 72 KiB together: INVALID_REQUEST
  beyond, with a log line
- sizes and ids are checked here, all else by the group (`trioq.coordinator`)

Version notes: 0 has no rebalance timeout, the session timeout serves; 4 a new member gets
MEMBER_ID_REQUIRED with its id first (KIP-394); 5 group_instance_id (KIP-345); 6 flexible;
7 protocol type in the answer (KIP-559); 8 reason (KIP-800), logged; 9 skip_assignment
(KIP-814).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trioq import logs
from trioq.coordinator.group_requests import JoinRefused, JoinRequest, JoinResult
from trioq.errors import KafkaError, NotCoordinator
from trioq.server.handlers.group_border import (
    MAX_PROTOCOLS_BYTES,
    client_host,
    client_id,
    require_at_most,
    require_group_id,
    require_instance_id,
    text_bytes,
)
from trioq.wire.messages.join_group import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

log = logs.get_logger(__name__)

FIRST_VERSION_WITH_REBALANCE_TIMEOUT = 1
FIRST_VERSION_WITH_REQUIRED_MEMBER_ID = 4
FIRST_VERSION_WITHOUT_PROTOCOL = 7
FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT = 9


def handle_join_group(ctx: Context, request: Request, slot: Slot) -> JoinGroupResponse | None:
    """Hand the member to the coordinator, which answers when its rebalance is through."""
    message = request.decode(JoinGroupRequest)
    try:
        join = _join_request(request, message)
    except KafkaError as error:
        log.warning(
            "join_refused",
            group=message.group_id[:300],
            peer=request.connection.peer,
            reason=str(error),
        )
        return _refusal(request.api_version, error, message.member_id)
    reply = partial(_answer, slot, message.member_id)
    slot.on_drain = partial(reply, NotCoordinator())
    ctx.groups.join_group(join, reply)
    return None


def _join_request(request: Request, message: JoinGroupRequest) -> JoinRequest:
    require_group_id(message.group_id)
    require_instance_id(message.group_instance_id)
    names = text_bytes([message.protocol_type, *(one.name for one in message.protocols)])
    size_bytes = names + sum(len(one.metadata) for one in message.protocols)
    require_at_most("the metadata", size_bytes, MAX_PROTOCOLS_BYTES)
    version = request.api_version
    return JoinRequest(
        group_id=message.group_id,
        member_id=message.member_id,
        instance_id=message.group_instance_id,
        client_id=client_id(request),
        client_host=client_host(request),
        protocol_type=message.protocol_type,
        protocols=tuple((one.name, one.metadata) for one in message.protocols),
        session_timeout_ms=message.session_timeout_ms,
        rebalance_timeout_ms=(
            message.rebalance_timeout_ms
            if version >= FIRST_VERSION_WITH_REBALANCE_TIMEOUT
            else message.session_timeout_ms
        ),
        reason=message.reason,
        requires_known_member_id=version >= FIRST_VERSION_WITH_REQUIRED_MEMBER_ID,
        supports_skip_assignment=version >= FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT,
    )


def _answer(slot: Slot, member_id: str, result: JoinResult | JoinRefused | KafkaError) -> None:
    """Complete the slot, unless its connection has ended or the broker's stop came first."""
    if not slot.is_open:
        return
    if isinstance(result, KafkaError):
        slot.complete(_refusal(slot.api_version, result, member_id))
    elif isinstance(result, JoinRefused):
        slot.complete(_refusal(slot.api_version, result.error, result.member_id))
    else:
        slot.complete(
            JoinGroupResponse(
                generation_id=result.generation,
                protocol_type=result.protocol_type,
                protocol_name=_name(slot.api_version, result.protocol),
                leader=result.leader,
                skip_assignment=result.skip_assignment,
                member_id=result.member_id,
                members=[
                    JoinGroupResponseMember(
                        member_id=member.member_id,
                        group_instance_id=member.instance_id,
                        metadata=member.metadata,
                    )
                    for member in result.members
                ],
            )
        )


def _refusal(version: int, error: KafkaError, member_id: str) -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=error.code, protocol_name=_name(version, None), member_id=member_id
    )


def _name(version: int, protocol: str | None) -> str | None:
    """A protocol's name as the version has it where there is none."""
    return protocol or (None if version >= FIRST_VERSION_WITHOUT_PROTOCOL else "")
