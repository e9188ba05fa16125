"""ConsumerGroupDescribe (key 69): groups of the consumer protocol with their members (KIP-848).

1: which protocol each member speaks (KIP-1099).
"""

from __future__ import annotations

from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.kinds import BOOL, INT8, INT16, INT32, STRING, UNKNOWN_OPERATIONS, UUID
from trioq.wire.schema import Message, Struct, array, wire


class ConsumerGroupDescribeRequest(Message, versions=(0, 1), flexible=0):
    group_ids: list[str] = wire(array(STRING), factory=list)
    include_authorized_operations: bool = wire(BOOL, default=False)


class ConsumerGroupDescribeResponseTopicPartitions(Struct):
    topic_id: TopicId = wire(UUID, default=ZERO_TOPIC_ID)
    topic_name: str = wire(STRING, default="")
    partitions: list[int] = wire(array(INT32), factory=list)


class ConsumerGroupDescribeResponseAssignment(Struct):
    topic_partitions: list[ConsumerGroupDescribeResponseTopicPartitions] = wire(
        array(ConsumerGroupDescribeResponseTopicPartitions), factory=list
    )


class ConsumerGroupDescribeResponseMember(Struct):
    member_id: str = wire(STRING, default="")
    instance_id: str | None = wire(STRING, default=None, nullable=0)
    rack_id: str | None = wire(STRING, default=None, nullable=0)
    member_epoch: int = wire(INT32, default=0)
    client_id: str = wire(STRING, default="")
    client_host: str = wire(STRING, default="")
    subscribed_topic_names: list[str] = wire(array(STRING), factory=list)
    subscribed_topic_regex: str | None = wire(STRING, default=None, nullable=0)
    assignment: ConsumerGroupDescribeResponseAssignment = wire(
        ConsumerGroupDescribeResponseAssignment, factory=ConsumerGroupDescribeResponseAssignment
    )
    target_assignment: ConsumerGroupDescribeResponseAssignment = wire(
        ConsumerGroupDescribeResponseAssignment, factory=ConsumerGroupDescribeResponseAssignment
    )
    member_type: int = wire(INT8, default=-1, since=1, ignorable=True)


class ConsumerGroupDescribeResponseGroup(Struct):
    error_code: int = wire(INT16, default=0)
    error_message: str | None = wire(STRING, default=None, nullable=0)
    group_id: str = wire(STRING, default="")
    group_state: str = wire(STRING, default="")
    group_epoch: int = wire(INT32, default=0)
    assignment_epoch: int = wire(INT32, default=0)
    assignor_name: str = wire(STRING, default="")
    members: list[ConsumerGroupDescribeResponseMember] = wire(
        array(ConsumerGroupDescribeResponseMember), factory=list
    )
    authorized_operations: int = wire(INT32, default=UNKNOWN_OPERATIONS)


class ConsumerGroupDescribeResponse(Message, versions=(0, 1), flexible=0):
    throttle_time_ms: int = wire(INT32, default=0)
    groups: list[ConsumerGroupDescribeResponseGroup] = wire(
        array(ConsumerGroupDescribeResponseGroup), factory=list
    )
