"""CreatePartitions (key 37), versions 0-3 (KIP-195).

Behaviour: `count` is the new total; each topic grows or is refused by itself, and the
answer comes when this broker serves the new partitions. validate_only changes nothing.

Version notes: 2 flexible; 3 THROTTLING_QUOTA_EXCEEDED (KIP-599), never answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.controller.topic_rules import NewPartitions
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


async def handle_create_partitions(ctx: Context, request: Request) -> CreatePartitionsResponse:
    """Add the partitions. Cancelled: each topic has grown or not."""
    message = request.decode(CreatePartitionsRequest)
    grown = await ctx.topic_admin.create_partitions(
        [
            NewPartitions(
                topic.name,
                topic.count,
                None
                if topic.assignments is None
                else [assignment.broker_ids for assignment in topic.assignments],
            )
            for topic in message.topics
        ],
        validate_only=message.validate_only,
        timeout_s=timeout_s(message.timeout_ms),
    )
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsResponseTopic(name=one.name)
            if one.error is None
            else CreatePartitionsResponseTopic(
                name=one.name, error_code=one.error.code, error_message=str(one.error)
            )
            for one in grown
        ]
    )
