"""From what is stored of a group to its machine.

What was decoded may still contradict itself, or come from a newer version: that is told here,
before a machine that relies on it meets it in some event.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_requests import GroupSettings
from trioq.coordinator.group_state import GroupState
from trioq.errors import TrioqError
from trioq.metastore.group_layout import ClassicGroup, ConsumerGroup
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.consumer_group_state import ConsumerGroupState
    from trioq.coordinator.consumer_requests import ConsumerGroupSettings
    from trioq.coordinator.subscriptions import TopicPatterns

_PHASES = {phase.value for phase in GroupPhase} - {GroupPhase.DEAD.value}


class Damaged(TrioqError):
    """What is stored of a group makes no sense; the message says what of it."""


def restore_classic(stored: ClassicGroup, settings: GroupSettings, now_s: float) -> GroupState:
    """The machine of a group of the classic protocol; members' sessions begin. Raises Damaged."""
    members = stored.members
    _require(stored.state in _PHASES, f"state {stored.state!r} is unknown")
    _require(stored.generation >= 0, f"generation {stored.generation} is negative")
    _require(
        bool(members) == (stored.state != GroupPhase.EMPTY.value),
        f"it has {len(members)} members in state {stored.state}",
    )
    _check_ids([member.member_id for member in members], [one.instance_id for one in members])
    for member in members:
        _require(bool(member.protocols), f"member {member.member_id!r} supports no protocol")
        _require(
            member.session_timeout_ms >= 0 and member.rebalance_timeout_ms >= 0,
            f"a timeout of member {member.member_id!r} is negative",
        )
    if members:
        supported = Counter(name for one in members for name in {name for name, _ in one.protocols})
        _require(
            max(supported.values()) == len(members),
            "there is no protocol that all members support",
        )
        _require(
            stored.leader in {member.member_id for member in members},
            f"its leader {stored.leader!r} is no member",
        )
        _require(
            stored.protocol is None or supported[stored.protocol] == len(members),
            f"its protocol {stored.protocol!r} is not supported by all of its members",
        )
    return GroupState.restore(stored, settings, now_s)


def restore_consumer(
    stored: ConsumerGroup,
    settings: ConsumerGroupSettings,
    now_s: float,
    patterns: TopicPatterns | None,
) -> ConsumerGroupState:
    """The machine of a group of the consumer protocol; as `restore_classic`. Raises Damaged."""
    from trioq.coordinator.consumer_group_state import (  # noqa: PLC0415  not every broker's
        ConsumerGroupState,
    )
    from trioq.coordinator.consumer_member import MemberPhase  # noqa: PLC0415  likewise

    phases = {phase.value for phase in MemberPhase}
    members = stored.members
    _require(
        0 <= stored.assignment_epoch <= stored.group_epoch,
        f"assignment epoch {stored.assignment_epoch} and group epoch {stored.group_epoch}",
    )
    _check_ids([member.member_id for member in members], [one.instance_id for one in members])
    owned: set[tuple[TopicId, int]] = set()
    for member in members:
        name = f"member {member.member_id!r}"
        _require(member.state in phases, f"state {member.state!r} of {name} is unknown")
        _require(
            member.classic_session_timeout_ms is None or bool(member.classic_protocols),
            f"{name} supports no protocol",
        )
        for assignment in (member.assigned, member.pending_revocation):
            for topic_id, partitions in assignment.items():
                mine = {(topic_id, partition) for partition in partitions}
                _require(not mine & owned, f"{name} owns what another one owns")
                owned |= mine
    return ConsumerGroupState.restore(stored, settings, now_s, patterns=patterns)


def _check_ids(member_ids: list[str], instance_ids: list[str | None]) -> None:
    _require(len(set(member_ids)) == len(member_ids), "a member is there twice")
    static = [one for one in instance_ids if one is not None]
    _require(len(set(static)) == len(static), "two members have the same instance id")


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Damaged(otherwise)
