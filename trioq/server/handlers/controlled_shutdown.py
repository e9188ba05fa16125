"""ControlledShutdown (key 7), versions 0-3: between brokers, not advertised.

Behaviour:
- the controller gives the leaderships of the broker, and its coordination slots, to others, and
  takes it out of the ISRs; the answer names the partitions of several replicas that it leads still
- the broker asks again until there are none, or it has waited long enough
- of another epoch than the registered one: STALE_BROKER_EPOCH; at any other broker than the
  controller: NOT_CONTROLLER
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError, NotController
from trioq.wire.messages.controlled_shutdown import (
    ControlledShutdownRequest,
    ControlledShutdownResponse,
    ControlledShutdownResponsePartition,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_controlled_shutdown(ctx: Context, request: Request) -> ControlledShutdownResponse:
    """Hand over what the broker leads. Cancelled: some of it may be handed over."""
    message = request.decode(ControlledShutdownRequest)
    if ctx.controller is None:
        return ControlledShutdownResponse(error_code=NotController.code)
    try:
        remaining = await ctx.controller.hand_over(message.broker_id, message.broker_epoch)
    except KafkaError as error:
        return ControlledShutdownResponse(error_code=error.code)
    return ControlledShutdownResponse(
        remaining_partitions=[
            ControlledShutdownResponsePartition(topic_name=topic, partition_index=partition)
            for topic, partition in remaining
        ]
    )
