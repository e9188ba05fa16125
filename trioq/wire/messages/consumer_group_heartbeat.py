"""ConsumerGroupHeartbeat (key 68): all that a member of the consumer protocol says (KIP-848).

1: subscription by regular expression, and member ids that the client makes (KIP-1082).
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import INT16, INT32, STRING, UUID
from trioq.wire.schema import Message, Struct, array, wire


class ConsumerGroupHeartbeatRequestTopicPartitions(Struct):
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)
    partitions: list[int] = wire(array(INT32), factory=list)


class ConsumerGroupHeartbeatRequest(Message, versions=(0, 1), flexible=0, hot=True):
    group_id: str = wire(STRING, default="")
    member_id: str = wire(STRING, default="")
    member_epoch: int = wire(INT32, default=0)
    instance_id: str | None = wire(STRING, default=None, nullable=0)
    rack_id: str | None = wire(STRING, default=None, nullable=0)
    rebalance_timeout_ms: int = wire(INT32, default=-1)
    subscribed_topic_names: list[str] | None = wire(array(STRING), default=None, nullable=0)
    subscribed_topic_regex: str | None = wire(STRING, default=None, since=1, nullable=1)
    server_assignor: str | None = wire(STRING, default=None, nullable=0)
    topic_partitions: list[ConsumerGroupHeartbeatRequestTopicPartitions] | None = wire(
        array(ConsumerGroupHeartbeatRequestTopicPartitions), default=None, nullable=0
    )


class ConsumerGroupHeartbeatResponseTopicPartitions(Struct):
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)
    partitions: list[int] = wire(array(INT32), factory=list)


class ConsumerGroupHeartbeatResponseAssignment(Struct):
    topic_partitions: list[ConsumerGroupHeartbeatResponseTopicPartitions] = wire(
        array(ConsumerGroupHeartbeatResponseTopicPartitions), factory=list
    )


class ConsumerGroupHeartbeatResponse(Message, versions=(0, 1), flexible=0, hot=True):
    throttle_time_ms: int = wire(INT32, default=0)
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    member_id: str | None = wire(STRING, default=None, nullable=0)
    member_epoch: int = wire(INT32, default=0)
    heartbeat_interval_ms: int = wire(INT32, default=0)
    assignment: ConsumerGroupHeartbeatResponseAssignment | None = wire(
        ConsumerGroupHeartbeatResponseAssignment, default=None, nullable=0
    )
