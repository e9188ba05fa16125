"""DescribeProducers (key 61), version 0 (KIP-664).

Behaviour: for each partition led here, the producers whose sequences it remembers, with
their epoch, last sequence and last timestamp; no transaction is ever open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError, NotLeaderOrFollower
from trioq.server.handlers.partition_lookup import require_partition
from trioq.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    DescribeProducersResponsePartition,
    DescribeProducersResponseProducer,
    DescribeProducersResponseTopic,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request


def handle_describe_producers(
    ctx: Context, _request: Request, message: DescribeProducersRequest
) -> DescribeProducersResponse:
    """Answer from the producer states, in memory."""
    return DescribeProducersResponse(
        topics=[
            DescribeProducersResponseTopic(
                name=topic.name,
                partitions=[_describe(ctx, topic.name, n) for n in topic.partition_indexes],
            )
            for topic in message.topics
        ]
    )


def _describe(ctx: Context, topic: str, number: int) -> DescribeProducersResponsePartition:
    answer = DescribeProducersResponsePartition(partition_index=number)
    try:
        partition = require_partition(ctx, topic, number)
        if not partition.is_leader:
            raise NotLeaderOrFollower
        producers = partition.log.producers.active_producers()
    except KafkaError as error:
        answer.error_code, answer.error_message = error.code, str(error)
        return answer
    answer.active_producers = [
        DescribeProducersResponseProducer(
            producer_id=producer.producer_id,
            producer_epoch=producer.producer_epoch,
            last_sequence=producer.last_sequence,
            last_timestamp=producer.last_timestamp_ms,
            coordinator_epoch=producer.coordinator_epoch,
            current_txn_start_offset=producer.current_txn_first_offset,
        )
        for producer in producers
    ]
    return answer
