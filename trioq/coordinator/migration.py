"""A group that goes from one protocol to the other while its members work (KIP-848).

Upgrade: when the first member of the consumer protocol joins, the classic members stay, each with
what the last plan gave it. Downgrade: when only classic members are left, they rebalance as a
classic group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trioq.coordinator.consumer_group_core import new_member_id
from trioq.coordinator.consumer_group_state import ConsumerGroupState
from trioq.coordinator.consumer_member import MemberPhase
from trioq.coordinator.consumer_protocol_metadata import read_assignment, read_subscription
from trioq.coordinator.consumer_requests import (
    JOIN_EPOCH,
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    Topics,
)
from trioq.coordinator.effects import Effect, Persist, Waiter, refusal
from trioq.coordinator.group_requests import CONSUMER_PROTOCOL_TYPE
from trioq.coordinator.subscriptions import TopicPatterns
from trioq.errors import GroupIdNotFound, ProtocolViolation, RebalanceInProgress, UnknownMemberId
from trioq.metastore.group_layout import (
    Assignment,
    ClassicGroup,
    ClassicMember,
    ConsumerGroup,
    ConsumerMember,
)
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.group_state import GroupState


def upgrade(
    classic: GroupState,
    request: ConsumerHeartbeat,
    waiter: Waiter,
    topics: Topics,
    settings: ConsumerGroupSettings,
    now_s: float,
    now_ms: int,
    *,
    patterns: TopicPatterns | None = None,
    make_member_id: Callable[[], str] = new_member_id,
) -> tuple[ConsumerGroupState | None, list[Effect]]:
    """A ConsumerGroupHeartbeat to a group of the classic protocol.

    Gives the machine that takes the group over, with the effects to carry out with it in place;
    None where the request is refused and the group stays what it is. Who waited for the classic
    machine is told REBALANCE_IN_PROGRESS and joins the new one.
    """
    if request.member_epoch != JOIN_EPOCH:
        return None, refusal(
            waiter,
            UnknownMemberId(f"group {classic.group_id} has no member {request.member_id!r}"),
        )
    kept = classic.snapshot()
    try:
        group = as_consumer_group(kept, topics, settings)
    except GroupIdNotFound as error:
        return None, refusal(waiter, error)
    state = ConsumerGroupState.restore(
        group, settings, now_s, patterns=patterns, make_member_id=make_member_id
    )
    effects = state.heartbeat(request, waiter, topics, now_s, now_ms)
    if Persist() not in effects:
        return None, effects
    return state, [*classic.abandon(RebalanceInProgress(), now_s), *effects]


def as_consumer_group(
    group: ClassicGroup, topics: Topics, settings: ConsumerGroupSettings
) -> ConsumerGroup:
    """The group with its members as the last plan left them, at the epoch of its generation.

    Raises GroupIdNotFound, which clients are told, where it cannot be.
    """
    if group.members:
        _check_upgrade(group, settings)
    taken: set[tuple[TopicId, int]] = set()
    try:
        members = tuple(
            _as_consumer_member(member, group, topics, taken) for member in group.members
        )
    except ProtocolViolation as error:
        raise GroupIdNotFound(
            f"group {group.group_id} uses the classic protocol and cannot be upgraded: the "
            f"metadata of a member is not a consumer's ({error})"
        ) from error
    return ConsumerGroup(
        group_id=group.group_id,
        group_epoch=group.generation,
        assignment_epoch=group.generation,
        assignor=settings.assignors[0],
        state_since_ms=group.state_since_ms,
        members=members,
    )


def _check_upgrade(group: ClassicGroup, settings: ConsumerGroupSettings) -> None:
    if not settings.migration_policy.upgrades:
        reason = (
            "group.consumer.migration.policy="
            f"{settings.migration_policy.value} does not allow that it is upgraded"
        )
    elif group.protocol_type != CONSUMER_PROTOCOL_TYPE:
        reason = f"its members are not consumers but of type {group.protocol_type!r}"
    elif len(group.members) > settings.max_size:
        reason = f"it has {len(group.members)} members, more than group.consumer.max.size allows"
    else:
        return
    raise GroupIdNotFound(f"group {group.group_id} uses the classic protocol: {reason}")


def _as_consumer_member(
    member: ClassicMember, group: ClassicGroup, topics: Topics, taken: set[tuple[TopicId, int]]
) -> ConsumerMember:
    metadata = dict(member.protocols).get(group.protocol or "", member.protocols[0][1])
    subscription = read_subscription(metadata, topics)
    assigned = _without_taken(read_assignment(member.assignment, topics), taken)
    return ConsumerMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=subscription.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        member_epoch=group.generation,
        previous_member_epoch=group.generation,
        state=MemberPhase.STABLE.value,
        subscribed_names=subscription.names,
        assigned=assigned,
        target=assigned,
        classic_session_timeout_ms=member.session_timeout_ms,
        classic_protocols=member.protocols,
    )


def _without_taken(assigned: Assignment, taken: set[tuple[TopicId, int]]) -> Assignment:
    """A plan of clients may give a partition to several members: here the first one has it."""
    kept: dict[TopicId, frozenset[int]] = {}
    for topic_id, numbers in assigned.items():
        free = frozenset(p for p in numbers if (topic_id, p) not in taken)
        if free:
            kept[topic_id] = free
            taken.update((topic_id, p) for p in free)
    return kept
