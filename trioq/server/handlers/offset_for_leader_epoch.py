"""OffsetForLeaderEpoch (key 23), versions 2-4.

Behaviour: the greatest leader epoch at or below the one asked for, and where it ended in
this leader's log (KIP-101, KIP-279); (-1, -1) where none is known. Clients use it to find
out whether the log they read was truncated (KIP-320).

Version notes: 2 current_leader_epoch; 3 replica_id; 4 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError
from trioq.server.handlers.partition_lookup import require_partition
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


def handle_offset_for_leader_epoch(
    ctx: Context, request: Request, message: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    """Answer from the epoch caches, in memory."""
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderEpochResponseTopic(
                topic=topic.topic,
                partitions=[_look_up(ctx, topic.topic, asked) for asked in topic.partitions],
            )
            for topic in message.topics
        ]
    )


def _look_up(
    ctx: Context, topic: str, asked: OffsetForLeaderEpochRequestPartition
) -> OffsetForLeaderEpochResponsePartition:
    answer = OffsetForLeaderEpochResponsePartition(partition=asked.partition)
    try:
        partition = require_partition(ctx, topic, asked.partition)
        partition.check_epoch(asked.current_leader_epoch)
    except KafkaError as error:
        answer.error_code = error.code
    else:
        answer.leader_epoch, answer.end_offset = partition.log.epoch_end_offset(asked.leader_epoch)
    return answer
