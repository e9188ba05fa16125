"""What `trioq group` asks and does: lag for each partition, offsets to reset, groups to delete."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from trioq.cli.start_position import StartKind, StartPosition
from trioq.client.admin import Admin
from trioq.client.admin_groups import GroupDescription, MemberDescription
from trioq.errors import (
    ClientUsageError,
    GroupIdNotFound,
    KafkaError,
    NonEmptyGroup,
    UnknownMemberId,
    UnknownTopicOrPartition,
)
from trioq.types import TopicPartition


class PartitionView(NamedTuple):
    """How far a group is in a partition; None for what is not known."""

    partition: TopicPartition
    committed: int | None
    end: int | None
    member: MemberDescription | None
    """Who reads it."""

    @property
    def lag(self) -> int | None:
        """Records from the committed offset to the end."""
        if self.committed is None or self.end is None:
            return None
        return max(self.end - self.committed, 0)


class GroupView(NamedTuple):
    """A group with every partition that it has committed to or that a member reads."""

    description: GroupDescription
    partitions: list[PartitionView]

    @property
    def lag(self) -> int:
        """Of all partitions where it is known."""
        return sum(one.lag or 0 for one in self.partitions)


class OffsetReset(NamedTuple):
    """An offset that was, or would be, set; `before` is None where none was committed."""

    partition: TopicPartition
    before: int | None
    after: int


async def views(admin: Admin, names: Sequence[str]) -> list[GroupView]:
    """The groups of these names; raises GroupIdNotFound."""
    return [await _view(admin, name) for name in names]


async def _view(admin: Admin, name: str) -> GroupView:
    try:
        description = await admin.describe_group(name)
    except GroupIdNotFound as error:
        raise _no_group(name) from error
    lags = await admin.group_lag(name)
    committed: dict[TopicPartition, int | None] = {
        partition: one.committed.offset for partition, one in lags.items()
    }
    ends = {partition: one.end_offset for partition, one in lags.items()}
    readers = {
        partition: member for member in description.members for partition in member.assignment
    }
    uncommitted = readers.keys() - committed.keys()
    if uncommitted:
        ends.update(await _ends(admin, uncommitted))
    return GroupView(
        description,
        [
            PartitionView(
                partition, committed.get(partition), ends.get(partition), readers.get(partition)
            )
            for partition in sorted(committed.keys() | uncommitted)
        ],
    )


async def _ends(admin: Admin, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """End offsets, without those of topics that were deleted under a member."""
    try:
        return await admin.end_offsets(partitions)
    except (UnknownTopicOrPartition, ClientUsageError):
        return {}


async def reset(
    admin: Admin,
    name: str,
    position: StartPosition,
    *,
    topics: Collection[str],
    partitions: Collection[int],
    dry_run: bool,
) -> list[OffsetReset]:
    """Set the group's offsets to `position`; what was set, by partition.

    Of `topics`, or of what the group has committed; of those the `partitions`, or all.
    Raises GroupIdNotFound, NonEmptyGroup, UnknownTopicOrPartition.
    """
    committed = {
        partition: one.offset for partition, one in (await admin.group_offsets(name)).items()
    }
    if topics:
        asked = [
            TopicPartition(topic, info.partition)
            for topic in dict.fromkeys(topics)
            for info in (await admin.describe_topic(topic)).partitions
        ]
    elif committed:
        asked = sorted(committed)
    else:
        raise GroupIdNotFound(
            f"group {name!r} has committed nothing: check its name, or name topics with --topic"
        )
    wanted = [one for one in asked if not partitions or one.partition in partitions]
    missing = set(partitions) - {one.partition for one in wanted}
    if missing:
        raise UnknownTopicOrPartition(f"there is no partition {min(missing)} to reset")
    beginnings, ends = await admin.beginning_offsets(wanted), await admin.end_offsets(wanted)
    at = {}
    if position.kind is StartKind.TIMESTAMP:
        at = await admin.offsets_at(dict.fromkeys(wanted, position.number))
    found = []
    for one in wanted:
        first_then = at[one].offset if one in at and at[one].offset >= 0 else None
        after = position.offset(beginnings[one], ends[one], first_then)
        found.append(OffsetReset(one, committed.get(one), after))
    if not dry_run:
        try:
            await admin.alter_group_offsets(name, {one.partition: one.after for one in found})
        except (UnknownMemberId, NonEmptyGroup) as error:
            raise _has_members(name) from error
    return found


async def delete_all(admin: Admin, names: Sequence[str], *, if_exists: bool) -> None:
    """Delete groups one after the other; raises GroupIdNotFound, NonEmptyGroup."""
    for name in names:
        try:
            await admin.delete_group(name)
        except GroupIdNotFound as error:
            if not if_exists:
                raise _no_group(name) from error
        except NonEmptyGroup as error:
            raise _has_members(name) from error


def _no_group(name: str) -> KafkaError:
    return GroupIdNotFound(f"there is no group {name!r}; `trioq group list` shows those there are")


def _has_members(name: str) -> KafkaError:
    return NonEmptyGroup(
        f"group {name!r} has members: stop its consumers first (static members count until their "
        "sessions end)"
    )
