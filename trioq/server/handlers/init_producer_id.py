"""InitProducerId (key 22), versions 0-4.

Behaviour:
- without a transactional id: a producer id that nobody had before, with epoch 0. An id and
  epoch in the request (version 3) are not looked at, as in Kafka: only a transactional
  producer has its epoch raised by the broker (KIP-360), an idempotent one that lost track
  starts again under the new id, or raises its epoch by itself
- with one: TRANSACTIONAL_ID_AUTHORIZATION_FAILED. Transactions are not served and their other
  APIs are not advertised; every client takes this code as fatal at once, while librdkafka
  asks again for ever on UNSUPPORTED_VERSION. A log line says what is the matter
- COORDINATOR_NOT_AVAILABLE (clients retry) while the metastore gives no ids

Version notes: 2 flexible; 3 producer_id and producer_epoch (KIP-360); 4 PRODUCER_FENCED
(KIP-588), never answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq import logs
from trioq.errors import (
    CoordinatorNotAvailable,
    InvalidRequest,
    MetastoreError,
    TransactionalIdAuthorizationFailed,
)
from trioq.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

log = logs.get_logger(__name__)

NONE_GIVEN = -1


async def handle_init_producer_id(ctx: Context, request: Request) -> InitProducerIdResponse:
    """Take the next producer id; a new block of ids costs a metastore write.

    Cancelled: at most an id is lost.
    """
    message = request.decode(InitProducerIdRequest)
    if message.transactional_id is not None:
        if not message.transactional_id:
            return _refused(InvalidRequest.code)
        log.warning(
            "transactions_refused",
            transactional_id=message.transactional_id,
            peer=request.connection.peer,
            reason="this version of trioq serves idempotent producers, not transactions",
        )
        return _refused(TransactionalIdAuthorizationFailed.code)
    if (message.producer_id == NONE_GIVEN) != (message.producer_epoch == NONE_GIVEN):
        return _refused(InvalidRequest.code)
    try:
        producer_id = await ctx.producer_ids.next_producer_id()
    except MetastoreError as error:
        log.warning("no_producer_id", reason=str(error))
        return _refused(CoordinatorNotAvailable.code)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _refused(error_code: int) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error_code, producer_id=-1, producer_epoch=-1)
