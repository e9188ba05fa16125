"""CreateTopics (key 19).

4: -1 partitions or replicas mean the broker's default. 5: the response describes the
topic. 7: and gives its id.
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING, UUID
from trioq.wire.schema import Message, Struct, array, wire


class CreateTopicsRequestAssignment(Struct):
    partition_index: int = wire(INT32, default=0)
    broker_ids: list[int] = wire(array(INT32), factory=list)


class CreateTopicsRequestConfig(Struct):
    name: str = wire(STRING, default="")
    value: str | None = wire(STRING, default=None, nullable=0)


class CreateTopicsRequestTopic(Struct):
    name: str = wire(STRING, default="")
    num_partitions: int = wire(INT32, default=0)
    replication_factor: int = wire(INT16, default=0)
    assignments: list[CreateTopicsRequestAssignment] = wire(
        array(CreateTopicsRequestAssignment), factory=list
    )
    configs: list[CreateTopicsRequestConfig] = wire(array(CreateTopicsRequestConfig), factory=list)


class CreateTopicsRequest(Message, versions=(2, 7), flexible=5):
    topics: list[CreateTopicsRequestTopic] = wire(array(CreateTopicsRequestTopic), factory=list)
    timeout_ms: int = wire(INT32, default=60000)
    validate_only: bool = wire(BOOL, default=False)


class CreateTopicsResponseConfig(Struct):
    name: str = wire(STRING, default="")
    value: str | None = wire(STRING, default=None, nullable=0)
    read_only: bool = wire(BOOL, default=False)
    config_source: int = wire(INT8, default=-1)
    is_sensitive: bool = wire(BOOL, default=False)


class CreateTopicsResponseTopic(Struct):
    name: str = wire(STRING, default="")
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID, since=7, ignorable=True)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    topic_config_error_code: int = wire(INT16, default=0, since=5, tag=0, ignorable=True)
    num_partitions: int = wire(INT32, default=-1, since=5, ignorable=True)
    replication_factor: int = wire(INT16, default=-1, since=5, ignorable=True)
    configs: list[CreateTopicsResponseConfig] | None = wire(
        array(CreateTopicsResponseConfig), factory=list, since=5, nullable=0, ignorable=True
    )


class CreateTopicsResponse(Message, versions=(2, 7), flexible=5):
    throttle_time_ms: int = wire(INT32, default=0)
    topics: list[CreateTopicsResponseTopic] = wire(array(CreateTopicsResponseTopic), factory=list)
