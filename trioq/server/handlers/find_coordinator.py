"""FindCoordinator (key 10), versions 0-5.

Behaviour:
- this broker, at the address of the client's own listener, for every group: it is alone,
  so it is the one that coordinates. The APIs of groups themselves are not served or
  advertised yet: a client that wants them finds that out from the list of APIs, with an
  error that names what is missing, instead of searching for a coordinator for ever
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
    """Answer from the image."""
    error: KafkaError | None = None
    here = NOWHERE
    if message.key_type == TRANSACTION:
        error = TransactionalIdAuthorizationFailed(
            "this version of trioq serves idempotent producers, not transactions"
        )
    elif message.key_type != GROUP:
        error = InvalidRequest(f"key type {message.key_type} is not known here")
    else:
        try:
            here = _this_broker(ctx, request)
        except CoordinatorNotAvailable as unavailable:
            error = unavailable
    code, text = (0, None) if error is None else (error.code, str(error))
    if request.api_version < FIRST_VERSION_WITH_MANY_KEYS:
        return FindCoordinatorResponse(
            error_code=code,
            error_message=text,
            node_id=here.broker_id,
            host=here.host,
            port=here.port,
        )
    return FindCoordinatorResponse(
        coordinators=[
            FindCoordinatorResponseCoordinator(
                key=key,
                node_id=here.broker_id,
                host=here.host,
                port=here.port,
                error_code=code,
                error_message=text,
            )
            for key in message.coordinator_keys
        ]
    )


def _this_broker(ctx: Context, request: Request) -> Endpoint:
    """Raises CoordinatorNotAvailable while this broker is not registered."""
    for endpoint in endpoints(ctx.image, request.connection.listener_name):
        if endpoint.broker_id == ctx.config.node_id:
            return endpoint
    raise CoordinatorNotAvailable
