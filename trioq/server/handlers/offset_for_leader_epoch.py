"""OffsetForLeaderEpoch (key 23), versions 2-4.

Behaviour: the greatest leader epoch at or below the one asked for, and where it ended in
this leader's log (KIP-101, KIP-279); (-1, -1) where none is known. Clients use it to find
out whether the log they read was truncated (KIP-320). Any replica answers for its own log where
replica_id is -2, leader or not, and the greatest possible epoch asks for the end of its log: so
a controller learns which of several replicas reaches furthest.

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


FIRST_VERSION_WITH_REPLICA = 3
ANY_REPLICA = -2
END_OF_LOG = 2**31 - 1


def handle_offset_for_leader_epoch(
    ctx: Context, request: Request, message: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    """Answer from the epoch caches, in memory."""
    asks_replica = (
        message.replica_id == ANY_REPLICA and request.api_version >= FIRST_VERSION_WITH_REPLICA
    )
    look_up = _look_up_replica if asks_replica else _look_up
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderEpochResponseTopic(
                topic=topic.topic,
                partitions=[look_up(ctx, topic.topic, asked) for asked in topic.partitions],
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
        answer.leader_epoch, answer.end_offset = partition.log.epoch_end_offset(asked.leader_epoch)
    except KafkaError as error:
        answer.error_code = error.code
    return answer


def _look_up_replica(
    ctx: Context, topic: str, asked: OffsetForLeaderEpochRequestPartition
) -> OffsetForLeaderEpochResponsePartition:
    answer = OffsetForLeaderEpochResponsePartition(partition=asked.partition)
    try:
        log = require_partition(ctx, topic, asked.partition).log
        if log.failed:
            raise log.offline_error()
        if asked.leader_epoch == END_OF_LOG:
            answer.leader_epoch, answer.end_offset = log.epochs.latest_epoch, log.written_end_offset
        else:
            answer.leader_epoch, answer.end_offset = log.epoch_end_offset(asked.leader_epoch)
    except KafkaError as error:
        answer.error_code = error.code
    return answer
