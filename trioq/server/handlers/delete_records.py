"""DeleteRecords (key 21), versions 0-2 (KIP-107).

Behaviour:
- the log start offset is raised to the offset given, or to the high watermark for -1;
  an offset at or below the log start changes nothing
- OFFSET_OUT_OF_RANGE above the high watermark
- segments that lie wholly below the new log start are removed at once
- the log start is written to its checkpoint about a second later: as in Kafka, after a
  crash before that, records that share a segment with kept ones may be back

Version notes: 2 flexible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError
from trioq.server.handlers.partition_lookup import require_partition
from trioq.wire.messages.delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsRequestPartition,
    DeleteRecordsResponse,
    DeleteRecordsResponsePartition,
    DeleteRecordsResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request

UNKNOWN_OFFSET = -1


async def handle_delete_records(ctx: Context, request: Request) -> DeleteRecordsResponse:
    """Raise each partition's log start in turn. Cancelled: some may have been raised."""
    message = request.decode(DeleteRecordsRequest)
    return DeleteRecordsResponse(
        topics=[
            DeleteRecordsResponseTopic(
                name=topic.name,
                partitions=[_delete(ctx, topic.name, asked) for asked in topic.partitions],
            )
            for topic in message.topics
        ]
    )


def _delete(
    ctx: Context, topic: str, asked: DeleteRecordsRequestPartition
) -> DeleteRecordsResponsePartition:
    answer = DeleteRecordsResponsePartition(
        partition_index=asked.partition_index, low_watermark=UNKNOWN_OFFSET
    )
    try:
        partition = require_partition(ctx, topic, asked.partition_index)
        answer.low_watermark = partition.delete_records(asked.offset)
    except KafkaError as error:
        answer.error_code = error.code
    return answer
