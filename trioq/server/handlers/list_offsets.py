"""ListOffsets (key 2), versions 1-8.

Behaviour:
- a time (>= 0): the first record at or after it, with its own timestamp, also inside a
  (compressed) batch; offset -1 when there is none
- -1 latest: the high watermark, or the last stable offset for read_committed
- -2 earliest and -4 earliest local: the log start offset (nothing is tiered)
- for followers (replica_id) -1 is the log's end; with replica_id -2 any replica answers so
- -3: the record with the greatest timestamp (KIP-734, version 7)

Version notes: 2 isolation_level; 4 current_leader_epoch and the answer's leader_epoch
(KIP-320); 5 OFFSET_NOT_AVAILABLE (KIP-207), older ones get LEADER_NOT_AVAILABLE; 6 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import (
    InvalidRequest,
    KafkaError,
    LeaderNotAvailable,
    OffsetNotAvailable,
    UnsupportedVersion,
)
from trioq.server.handlers.partition_lookup import require_partition
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.replication.partition import Partition
    from trioq.server.context import Context, Request

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
CONSUMER = -1
ANY_REPLICA = -2
FIRST_VERSION_WITH_LEADER_EPOCH = 4
FIRST_VERSION_WITH_MAX_TIMESTAMP = 7
FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE = 5
FIRST_VERSION_WITH_EARLIEST_LOCAL = 8


def handle_list_offsets(
    ctx: Context, request: Request, message: ListOffsetsRequest
) -> ListOffsetsResponse:
    """Answer at once: every lookup reads an index and at most a few batches."""
    version = request.api_version
    read_committed = message.isolation_level == 1
    replica_id = message.replica_id
    return ListOffsetsResponse(
        topics=[
            ListOffsetsResponseTopic(
                name=topic.name,
                partitions=[
                    _look_up(
                        ctx,
                        version,
                        topic.name,
                        asked,
                        read_committed=read_committed,
                        replica_id=replica_id,
                    )
                    for asked in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


def _look_up(
    ctx: Context,
    version: int,
    topic: str,
    asked: ListOffsetsRequestPartition,
    *,
    read_committed: bool,
    replica_id: int,
) -> ListOffsetsResponsePartition:
    answer = ListOffsetsResponsePartition(partition_index=asked.partition_index)
    try:
        partition = require_partition(ctx, topic, asked.partition_index)
        if replica_id != ANY_REPLICA:
            partition.check_epoch(asked.current_leader_epoch)
        found: tuple[int, int, int] | None
        if replica_id != CONSUMER and asked.timestamp == LATEST:
            found = partition.log.written_end_offset, -1, partition.leader_epoch
        else:
            found = _find(partition, asked.timestamp, version, read_committed=read_committed)
    except OffsetNotAvailable as error:
        known = version >= FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE
        answer.error_code = error.code if known else LeaderNotAvailable.code
    except KafkaError as error:
        answer.error_code = error.code
    else:
        if found is not None:
            answer.offset, answer.timestamp, leader_epoch = found
            if version >= FIRST_VERSION_WITH_LEADER_EPOCH:
                answer.leader_epoch = leader_epoch
    return answer


def _find(
    partition: Partition, timestamp: int, version: int, *, read_committed: bool
) -> tuple[int, int, int] | None:
    log = partition.log
    if timestamp == LATEST:
        return partition.latest_offset(read_committed=read_committed), -1, partition.leader_epoch
    if timestamp == EARLIEST or (
        timestamp == EARLIEST_LOCAL and version >= FIRST_VERSION_WITH_EARLIEST_LOCAL
    ):
        start = log.log_start_offset
        epoch = log.epochs.epoch_for_offset(start)
        return start, -1, partition.leader_epoch if epoch < 0 else epoch
    end = partition.latest_offset(read_committed=read_committed)
    if timestamp == MAX_TIMESTAMP and version >= FIRST_VERSION_WITH_MAX_TIMESTAMP:
        found = log.max_timestamp(end)
    elif timestamp >= 0:
        found = log.offset_for_timestamp(timestamp, end)
    elif timestamp >= EARLIEST_LOCAL:
        raise UnsupportedVersion
    else:
        raise InvalidRequest
    return found
