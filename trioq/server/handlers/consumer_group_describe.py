"""ConsumerGroupDescribe (key 69), versions 0-1 (KIP-848).

Behaviour:
- epochs, assignor and members of groups of the consumer protocol, each group by itself; a
  group that is not there, or speaks the classic protocol, gets GROUP_ID_NOT_FOUND
- a member's assignment is what it owns now, its target what it is to own; partitions of
  topics deleted meanwhile are left out

Version notes: 1 which protocol each member speaks (KIP-1099).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq.errors import KafkaError
from trioq.server.handlers.cluster_view import group_operations
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupDescribeResponseAssignment,
    ConsumerGroupDescribeResponseGroup,
    ConsumerGroupDescribeResponseMember,
    ConsumerGroupDescribeResponseTopicPartitions,
)

if TYPE_CHECKING:
    from trioq.coordinator.consumer_requests import ConsumerGroupDescription
    from trioq.metastore.group_layout import Assignment, ConsumerMember
    from trioq.metastore.image import ClusterImage
    from trioq.server.context import Context, Request

CLASSIC_MEMBER: Final = 0
CONSUMER_MEMBER: Final = 1


def handle_consumer_group_describe(
    ctx: Context, _request: Request, message: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    """Answer from the coordinator's memory."""
    operations = group_operations(message.include_authorized_operations)
    answers = []
    for group_id in message.group_ids:
        answer = ConsumerGroupDescribeResponseGroup(group_id=group_id)
        answers.append(answer)
        try:
            require_group_id(group_id)
            described = ctx.groups.describe_consumer_group(group_id)
        except KafkaError as error:
            described = error
        if isinstance(described, KafkaError):
            answer.error_code = described.code
            answer.error_message = str(described)
        else:
            _describe(ctx.image, answer, described)
            answer.authorized_operations = operations
    return ConsumerGroupDescribeResponse(groups=answers)


def _describe(
    image: ClusterImage,
    answer: ConsumerGroupDescribeResponseGroup,
    described: ConsumerGroupDescription,
) -> None:
    group = described.group
    answer.group_state = described.phase.value
    answer.group_epoch = group.group_epoch
    answer.assignment_epoch = group.assignment_epoch
    answer.assignor_name = group.assignor
    answer.members = [_member(image, member) for member in group.members]


def _member(image: ClusterImage, member: ConsumerMember) -> ConsumerGroupDescribeResponseMember:
    is_classic = member.classic_session_timeout_ms is not None
    return ConsumerGroupDescribeResponseMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.subscribed_names),
        subscribed_topic_regex=member.subscribed_regex,
        assignment=_assignment(image, member.assigned),
        target_assignment=_assignment(image, member.target),
        member_type=CLASSIC_MEMBER if is_classic else CONSUMER_MEMBER,
    )


def _assignment(
    image: ClusterImage, assignment: Assignment
) -> ConsumerGroupDescribeResponseAssignment:
    return ConsumerGroupDescribeResponseAssignment(
        topic_partitions=[
            ConsumerGroupDescribeResponseTopicPartitions(
                topic_id=topic_id, topic_name=topic.name, partitions=sorted(numbers)
            )
            for topic_id, numbers in assignment.items()
            if (topic := image.topics_by_id.get(topic_id)) is not None
        ]
    )
