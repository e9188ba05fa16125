"""FindCoordinator (key 10), versions 0-5.

Behaviour:
- a group: the broker that leads the group's coordination slot, at the address of the
  client's own listener; COORDINATOR_NOT_AVAILABLE, for which clients ask again, where
  nobody does or its leader is not live. Every id has a slot, also one that no group can have
- transactional ids: TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal for every client at once
- other key types: INVALID_REQUEST
- librdkafka compresses with lz4 only for a broker that serves FindCoordinator 0

Version notes: 1 key types and error messages; 3 flexible; 4 many keys at once (KIP-699);
5 TRANSACTION_ABORTABLE, never answered here (KIP-890).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import (
    CoordinatorNotAvailable,
    InvalidRequest,
    KafkaError,
    TransactionalIdAuthorizationFailed,
)
from trioq.server.handlers.cluster_view import Endpoint, endpoints
from trioq.wire.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

FIRST_VERSION_WITH_MANY_KEYS = 4
GROUP, TRANSACTION = 0, 1
NOWHERE = Endpoint(-1, "", -1, None)


def handle_find_coordinator(
    ctx: Context, request: Request, message: FindCoordinatorRequest
) -> FindCoordinatorResponse:
    """Answer from the image and from what the coordinator knows of the slots."""
    error = _refusal(message.key_type)
    brokers = {one.broker_id: one for one in endpoints(ctx.image, request.connection.listener_name)}
    if request.api_version < FIRST_VERSION_WITH_MANY_KEYS:
        found = _find(ctx, brokers, message.key, error)
        return FindCoordinatorResponse(
            error_code=found.error_code,
            error_message=found.error_message,
            node_id=found.node_id,
            host=found.host,
            port=found.port,
        )
    return FindCoordinatorResponse(
        coordinators=[_find(ctx, brokers, key, error) for key in message.coordinator_keys]
    )


def _refusal(key_type: int) -> KafkaError | None:
    """What every key of that type is answered with; None for groups."""
    if key_type == TRANSACTION:
        return TransactionalIdAuthorizationFailed(
            "this version of trioq serves idempotent producers, not transactions"
        )
    if key_type != GROUP:
        return InvalidRequest(f"key type {key_type} is not known here")
    return None


def _find(
    ctx: Context, brokers: dict[int, Endpoint], key: str, error: KafkaError | None
) -> FindCoordinatorResponseCoordinator:
    here = NOWHERE
    if error is None:
        leader = ctx.groups.leader_of(key)
        found = None if leader is None else brokers.get(leader)
        if found is None:
            error = CoordinatorNotAvailable("the group's coordination slot has no live leader")
        else:
            here = found
    return FindCoordinatorResponseCoordinator(
        key=key,
        node_id=here.broker_id,
        host=here.host,
        port=here.port,
        error_code=0 if error is None else error.code,
        error_message=None if error is None else str(error),
    )
