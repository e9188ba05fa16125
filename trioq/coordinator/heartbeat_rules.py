"""What a ConsumerGroupHeartbeat must not say (KIP-848): checks that change nothing."""

from __future__ import annotations

from trioq.coordinator.consumer_member import Member, is_part_of
from trioq.coordinator.consumer_requests import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    LEAVE_STATIC_EPOCH,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
)
from trioq.coordinator.subscriptions import TopicPatterns
from trioq.errors import (
    FencedInstanceId,
    FencedMemberEpoch,
    InvalidRequest,
    UnknownMemberId,
    UnreleasedInstanceId,
    UnsupportedAssignor,
)


def check_request(
    request: ConsumerHeartbeat, settings: ConsumerGroupSettings, patterns: TopicPatterns
) -> None:
    """What can be said without knowing the group.

    Raises InvalidRequest, UnsupportedAssignor, InvalidRegularExpression.
    """
    if request.instance_id == "":
        raise InvalidRequest("InstanceId must not be empty; leave it out for a dynamic member")
    if request.rack_id == "":
        raise InvalidRequest("RackId must not be empty; leave it out where there is none")
    epoch = request.member_epoch
    if request.member_id == "" and (request.requires_member_id or epoch != JOIN_EPOCH):
        raise InvalidRequest("MemberId must not be empty")
    if epoch < LEAVE_STATIC_EPOCH:
        raise InvalidRequest(f"MemberEpoch {epoch} is not valid: it must be -2 or greater")
    if epoch == JOIN_EPOCH:
        _check_join(request)
    elif epoch == LEAVE_STATIC_EPOCH and request.instance_id is None:
        raise InvalidRequest("InstanceId must be given with MemberEpoch -2")
    if request.server_assignor is not None and request.server_assignor not in settings.assignors:
        raise UnsupportedAssignor(
            f"ServerAssignor {request.server_assignor!r} is not supported; supported are "
            + ", ".join(settings.assignors)
        )
    if request.subscribed_regex:
        patterns.check(request.subscribed_regex)


def _check_join(request: ConsumerHeartbeat) -> None:
    if request.rebalance_timeout_ms < 0:
        raise InvalidRequest("RebalanceTimeoutMs must be given by a member that joins")
    if request.owned is None or request.owned:
        raise InvalidRequest("TopicPartitions must be given, and empty, by a member that joins")
    if request.subscribed_names is None and request.subscribed_regex is None:
        raise InvalidRequest(
            "SubscribedTopicNames or SubscribedTopicRegex must be given by a member that joins"
        )


def check_epoch(member: Member, request: ConsumerHeartbeat) -> None:
    """The epoch of an existing member. Raises FencedMemberEpoch.

    Epoch 0 is always right: a member that was fenced begins anew. The epoch before is right if
    the member has nothing that it was not given: the answer with the newer one was lost.
    """
    epoch = request.member_epoch
    if epoch in {JOIN_EPOCH, member.epoch}:
        return
    if epoch > member.epoch:
        relation = "greater"
    elif epoch == member.previous_epoch and is_part_of(request.owned, member.assigned):
        return
    else:
        relation = "smaller"
    raise FencedMemberEpoch(
        f"member {member.member_id} of group {request.group_id} sent epoch {epoch}, which is "
        f"{relation} than its epoch {member.epoch}; it must give up all partitions and join again"
    )


def check_instance(
    group_id: str, member_id: str, instance_id: str, holder: Member | None
) -> Member:
    """The member that holds the instance id, if that is `member_id`.

    Raises UnknownMemberId if nobody holds it, FencedInstanceId if another member does.
    """
    if holder is None:
        raise UnknownMemberId(f"group {group_id} has no member with instance id {instance_id}")
    if holder.member_id != member_id:
        raise FencedInstanceId(
            f"member {member_id} of group {group_id} was replaced: instance id {instance_id} "
            f"belongs to member {holder.member_id} now"
        )
    return holder


def check_released(group_id: str, member_id: str, holder: Member) -> None:
    """Whether `member_id` may take the instance id of `holder`.

    Members of the consumer protocol leave (-2) before; those of the classic one just restart.
    Raises UnreleasedInstanceId.
    """
    if holder.epoch != LEAVE_STATIC_EPOCH and not holder.is_classic:
        raise UnreleasedInstanceId(
            f"member {member_id} cannot join group {group_id}: instance id {holder.instance_id} "
            f"still belongs to member {holder.member_id}, which neither left nor timed out"
        )


def is_leaving(request: ConsumerHeartbeat) -> bool:
    return request.member_epoch in {LEAVE_EPOCH, LEAVE_STATIC_EPOCH}


def is_full(request: ConsumerHeartbeat) -> bool:
    """It says everything, as members do that join or had no answer: they need the assignment."""
    return request.member_epoch == JOIN_EPOCH or (
        request.rebalance_timeout_ms != -1
        and request.owned is not None
        and not (request.subscribed_names is None and request.subscribed_regex is None)
    )
