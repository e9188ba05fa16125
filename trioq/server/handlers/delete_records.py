"""DeleteRecords (key 21), versions 0-2 (KIP-107).

Behaviour:
- the log start offset is raised to the offset given, or to the high watermark for -1;
  an offset at or below the log start changes nothing
- OFFSET_OUT_OF_RANGE above the high watermark
- segments that lie wholly below the new log start are removed at once
- answered when the new log starts are on stable storage here, and every in-sync follower has
  said that its log begins there: after a crash, or with another leader, no deleted record is back
- REQUEST_TIMED_OUT where followers take longer than timeout_ms; the records are deleted here, and
  followers go on to do so

Version notes: 2 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioq.errors import KafkaError, KafkaStorageError, RequestTimedOut
from trioq.server.handlers.partition_lookup import require_partition
from trioq.storage.log_services import store_checkpoints
from trioq.wire.messages.delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsRequestPartition,
    DeleteRecordsResponse,
    DeleteRecordsResponsePartition,
    DeleteRecordsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.replication.partition import Partition
    from trioq.server.context import Context, Request

UNKNOWN_OFFSET = -1
LOOK_S = 0.02
"""How often followers' log starts are looked at while they are waited for."""


async def handle_delete_records(ctx: Context, request: Request) -> DeleteRecordsResponse:
    """Raise each partition's log start, then store them. Cancelled: some may have been raised."""
    message = request.decode(DeleteRecordsRequest)
    raised: list[tuple[Partition, DeleteRecordsResponsePartition]] = []
    response = DeleteRecordsResponse(
        topics=[
            DeleteRecordsResponseTopic(
                name=topic.name,
                partitions=[_delete(ctx, topic.name, asked, raised) for asked in topic.partitions],
            )
            for topic in message.topics
        ]
    )
    for log_dir in dict.fromkeys(partition.log.log_dir for partition, _ in raised):
        await store_checkpoints(log_dir)
    for partition, answer in raised:
        if partition.log.log_dir.error is not None:
            answer.low_watermark = UNKNOWN_OFFSET
            answer.error_code = KafkaStorageError.code
    behind = _behind(raised)
    with trio.move_on_after(message.timeout_ms / 1000):
        while behind:
            await trio.sleep(LOOK_S)
            behind = _behind(raised)
    for answer in behind:
        answer.low_watermark = UNKNOWN_OFFSET
        answer.error_code = RequestTimedOut.code
    return response


def _behind(
    raised: list[tuple[Partition, DeleteRecordsResponsePartition]],
) -> list[DeleteRecordsResponsePartition]:
    """The answers for whose partitions followers have to be waited for; failures are noted."""
    behind = []
    for partition, answer in raised:
        if answer.error_code:
            continue
        try:
            if not partition.is_deleted_below(answer.low_watermark):
                behind.append(answer)
        except KafkaError as error:
            answer.low_watermark = UNKNOWN_OFFSET
            answer.error_code = error.code
    return behind


def _delete(
    ctx: Context,
    topic: str,
    asked: DeleteRecordsRequestPartition,
    raised: list[tuple[Partition, DeleteRecordsResponsePartition]],
) -> DeleteRecordsResponsePartition:
    answer = DeleteRecordsResponsePartition(
        partition_index=asked.partition_index, low_watermark=UNKNOWN_OFFSET
    )
    try:
        partition = require_partition(ctx, topic, asked.partition_index)
        answer.low_watermark = partition.delete_records(asked.offset)
        raised.append((partition, answer))
    except KafkaError as error:
        answer.error_code = error.code
    return answer
