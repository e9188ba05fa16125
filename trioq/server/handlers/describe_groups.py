"""DescribeGroups (key 15), versions 0-6.

Behaviour:
- state, protocol and members of groups of the classic protocol, each by itself
- a group that is not there, or speaks the consumer protocol, is shown as Dead, as in Kafka:
  with GROUP_ID_NOT_FOUND from version 6 on, before without an error

Version notes: 3 authorized operations (KIP-430): without an authorizer, all; 4
group_instance_id (KIP-345); 5 flexible; 6 GROUP_ID_NOT_FOUND and error messages (KIP-1043).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq.errors import GroupIdNotFound, KafkaError
from trioq.server.handlers.cluster_view import group_operations
from trioq.server.handlers.group_border import require_group_id
from trioq.wire.messages.describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    DescribeGroupsResponseGroup,
    DescribeGroupsResponseMember,
)

if TYPE_CHECKING:
    from trioq.coordinator.group_requests import GroupDescription
    from trioq.server.context import Context, Request

DEAD: Final = "Dead"
FIRST_VERSION_WITH_NOT_FOUND: Final = 6


def handle_describe_groups(
    ctx: Context, request: Request, message: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    """Answer from the coordinator's memory."""
    operations = group_operations(message.include_authorized_operations)
    answers = []
    for group_id in message.groups:
        answer = DescribeGroupsResponseGroup(group_id=group_id)
        answers.append(answer)
        try:
            require_group_id(group_id)
            described = ctx.groups.describe_group(group_id)
        except KafkaError as error:
            described = error
        if isinstance(described, GroupIdNotFound):
            answer.group_state = DEAD
            if request.api_version >= FIRST_VERSION_WITH_NOT_FOUND:
                answer.error_code = described.code
                answer.error_message = str(described)
            answer.authorized_operations = operations
        elif isinstance(described, KafkaError):
            answer.error_code = described.code
            answer.error_message = str(described)
        else:
            _describe(answer, described)
            answer.authorized_operations = operations
    return DescribeGroupsResponse(groups=answers)


def _describe(answer: DescribeGroupsResponseGroup, group: GroupDescription) -> None:
    answer.group_state = group.state
    answer.protocol_type = group.protocol_type
    answer.protocol_data = group.protocol
    answer.members = [
        DescribeGroupsResponseMember(
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.client_host,
            member_metadata=member.metadata,
            member_assignment=member.assignment,
        )
        for member in group.members
    ]
