"""DescribeProducers (key 61): the idempotent and transactional producers of partitions."""

from __future__ import annotations

from trioq.wire.kinds import INT16, INT32, INT64, STRING
from trioq.wire.schema import Message, Struct, array, wire


class DescribeProducersRequestTopic(Struct):
    name: str = wire(STRING, default="")
    partition_indexes: list[int] = wire(array(INT32), factory=list)


class DescribeProducersRequest(Message, versions=(0, 0), flexible=0):
    topics: list[DescribeProducersRequestTopic] = wire(
        array(DescribeProducersRequestTopic), factory=list
    )


class DescribeProducersResponseProducer(Struct):
    producer_id: int = wire(INT64, default=0)
    producer_epoch: int = wire(INT32, default=0)
    last_sequence: int = wire(INT32, default=-1)
    last_timestamp: int = wire(INT64, default=-1)
    coordinator_epoch: int = wire(INT32, default=0)
    current_txn_start_offset: int = wire(INT64, default=-1)


class DescribeProducersResponsePartition(Struct):
    partition_index: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    active_producers: list[DescribeProducersResponseProducer] = wire(
        array(DescribeProducersResponseProducer), factory=list
    )


class DescribeProducersResponseTopic(Struct):
    name: str = wire(STRING, default="")
    partitions: list[DescribeProducersResponsePartition] = wire(
        array(DescribeProducersResponsePartition), factory=list
    )


class DescribeProducersResponse(Message, versions=(0, 0), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[DescribeProducersResponseTopic] = wire(
        array(DescribeProducersResponseTopic), factory=list
    )
