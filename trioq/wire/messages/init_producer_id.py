"""InitProducerId (key 22): a producer id and epoch, for idempotence or transactions.

3: a producer may ask for the next epoch of the id it has (KIP-360). 4: PRODUCER_FENCED
may be answered. 5: TRANSACTION_ABORTABLE may be answered.
"""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, wire


class InitProducerIdRequest(Message, versions=(0, 5), flexible=2):
    transactional_id: str | None = wire(STRING, default=None, nullable=0)
    transaction_timeout_ms: int = wire(INT32, default=0)
    producer_id: int = wire(INT64, default=-1, since=3)
    producer_epoch: int = wire(INT16, default=-1, since=3)


class InitProducerIdResponse(Message, versions=(0, 5), flexible=2):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    producer_id: int = wire(INT64, default=-1)
    producer_epoch: int = wire(INT16, default=0)
