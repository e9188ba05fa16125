"""ConsumerGroupHeartbeat (key 68), versions 0-1 (KIP-848).

Behaviour:
- a member joins (epoch 0), stays, leaves (-1), or leaves for now as a static member (-2); it
  says what it subscribes to and owns where that changed, and is told its assignment where
  that changed
- answered at once where nothing has to be kept, else when it is durable
- ids and sizes are checked here, all else by the group (`trioq.coordinator`); what no member
  could say is INVALID_REQUEST, with a message that names the field

Version notes: 1 subscription by regular expression, and member ids made by the client
(KIP-1082).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from trioq.coordinator.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatResult
from trioq.errors import InvalidRequest, KafkaError
from trioq.metastore.group_layout import MAX_GROUP_ID_BYTES
from trioq.server.handlers.group_border import (
    MAX_SUBSCRIPTION_BYTES,
    client_host,
    client_id,
    is_group_id,
    require_at_most,
    require_group_id,
    require_instance_id,
    text_bytes,
)
from trioq.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupHeartbeatResponseAssignment,
    ConsumerGroupHeartbeatResponseTopicPartitions,
)

if TYPE_CHECKING:
    from trioq.metastore.group_layout import Assignment
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot
    from trioq.types import TopicId

FIRST_VERSION_WITH_CLIENT_MADE_IDS = 1


def handle_consumer_group_heartbeat(
    ctx: Context, request: Request, slot: Slot
) -> ConsumerGroupHeartbeatResponse | None:
    """Hand what the member says to the coordinator."""
    message = request.decode(ConsumerGroupHeartbeatRequest)
    try:
        _check(message)
    except KafkaError as error:
        return _refusal(error)
    names = message.subscribed_topic_names
    ctx.groups.consumer_heartbeat(
        ConsumerHeartbeat(
            group_id=message.group_id,
            member_id=message.member_id,
            member_epoch=message.member_epoch,
            instance_id=message.instance_id,
            rack_id=message.rack_id,
            client_id=client_id(request),
            client_host=client_host(request),
            rebalance_timeout_ms=message.rebalance_timeout_ms,
            subscribed_names=None if names is None else frozenset(names),
            subscribed_regex=message.subscribed_topic_regex,
            server_assignor=message.server_assignor,
            owned=_owned(message),
            requires_member_id=request.api_version >= FIRST_VERSION_WITH_CLIENT_MADE_IDS,
        ),
        partial(_answer, slot),
    )
    return None


def _check(message: ConsumerGroupHeartbeatRequest) -> None:
    """Ids and sizes of what would be kept; all else is the group's business."""
    require_group_id(message.group_id)
    if message.instance_id:
        require_instance_id(message.instance_id)
    if message.member_id and not is_group_id(message.member_id):
        raise InvalidRequest(f"a member id has up to {MAX_GROUP_ID_BYTES} bytes")
    if message.subscribed_topic_names or message.subscribed_topic_regex or message.rack_id:
        size_bytes = text_bytes(
            [
                *(message.subscribed_topic_names or ()),
                message.subscribed_topic_regex or "",
                message.rack_id or "",
            ]
        )
        require_at_most("the subscription", size_bytes, MAX_SUBSCRIPTION_BYTES)


def _owned(message: ConsumerGroupHeartbeatRequest) -> Assignment | None:
    """What the member says it owns; None: as before."""
    if message.topic_partitions is None:
        return None
    owned: dict[TopicId, frozenset[int]] = {}
    for one in message.topic_partitions:
        if one.partitions:
            owned[one.topic_id] = owned.get(one.topic_id, frozenset()).union(one.partitions)
    return owned


def _answer(slot: Slot, result: ConsumerHeartbeatResult | KafkaError) -> None:
    if not slot.is_open:
        return
    if isinstance(result, KafkaError):
        slot.complete(_refusal(result))
        return
    slot.complete(
        ConsumerGroupHeartbeatResponse(
            member_id=result.member_id,
            member_epoch=result.member_epoch,
            heartbeat_interval_ms=result.heartbeat_interval_ms,
            assignment=None if result.assignment is None else _assignment(result.assignment),
        )
    )


def _assignment(assignment: Assignment) -> ConsumerGroupHeartbeatResponseAssignment:
    return ConsumerGroupHeartbeatResponseAssignment(
        topic_partitions=[
            ConsumerGroupHeartbeatResponseTopicPartitions(
                topic_id=topic_id, partitions=sorted(numbers)
            )
            for topic_id, numbers in assignment.items()
        ]
    )


def _refusal(error: KafkaError) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=error.code, error_message=str(error))
