"""Metadata (key 3): brokers, topics, partitions and who leads them.

`topics` empty means all in version 0; from version 1 null means all and empty none.
4: automatic creation can be declined. 5: offline replicas. 7: leader epochs. 8 to 10
(cluster) and 8 (topic): authorized operations. 10: topic ids. 12: topics by id with a
null name. 13: an error for the whole response (KIP-1102).

librdkafka writes "all topics" from version 9 on as four zero bytes instead of one, so that
its other fields come behind what is the message's end. Kafka never looks there. Its mock broker
ends a response with one byte too many.
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import BOOL, INT16, INT32, STRING, UNKNOWN_OPERATIONS, UUID
from trioq.wire.schema import Message, Struct, array, wire


class MetadataRequestTopic(Struct):
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=10, ignorable=True)
    name: str | None = wire(STRING, default="", nullable=10)


class MetadataRequest(Message, versions=(0, 13), flexible=9, tail_from=9):
    topics: list[MetadataRequestTopic] | None = wire(
        array(MetadataRequestTopic), factory=list, nullable=1
    )
    allow_auto_topic_creation: bool = wire(BOOL, default=True, since=4)
    include_cluster_authorized_operations: bool = wire(BOOL, default=False, since=8, until=10)
    include_topic_authorized_operations: bool = wire(BOOL, default=False, since=8)


class MetadataResponseBroker(Struct):
    node_id: int = wire(INT32, default=0)
    host: str = wire(STRING, default="")
    port: int = wire(INT32, default=0)
    rack: str | None = wire(STRING, default=None, since=1, nullable=0, ignorable=True)


class MetadataResponsePartition(Struct):
    error_code: int = wire(INT16, default=0)
    partition_index: int = wire(INT32, default=0)
    leader_id: int = wire(INT32, default=0)
    leader_epoch: int = wire(INT32, default=-1, since=7, ignorable=True)
    replica_nodes: list[int] = wire(array(INT32), factory=list)
    isr_nodes: list[int] = wire(array(INT32), factory=list)
    offline_replicas: list[int] = wire(array(INT32), factory=list, since=5, ignorable=True)


class MetadataResponseTopic(Struct):
    error_code: int = wire(INT16, default=0)
    name: str | None = wire(STRING, default="", nullable=12)
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=10, ignorable=True)
    is_internal: bool = wire(BOOL, default=False, since=1, ignorable=True)
    partitions: list[MetadataResponsePartition] = wire(
        array(MetadataResponsePartition), factory=list
    )
    topic_authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS, since=8)


class MetadataResponse(Message, versions=(0, 13), flexible=9, tail_from=9):
    throttle_time_ms: int = wire(INT32, default=0, since=3, ignorable=True)
    brokers: list[MetadataResponseBroker] = wire(array(MetadataResponseBroker), factory=list)
    cluster_id: str | None = wire(STRING, default=None, since=2, nullable=0, ignorable=True)
    controller_id: int = wire(INT32, default=-1, since=1, ignorable=True)
    topics: list[MetadataResponseTopic] = wire(array(MetadataResponseTopic), factory=list)
    cluster_authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS, since=8, until=10)
    error_code: int = wire(INT16, default=0, since=13, ignorable=True)
