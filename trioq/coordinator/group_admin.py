"""What tools ask about groups, and what they delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trioq.coordinator.group import Group
from trioq.coordinator.group_requests import CONSUMER_PROTOCOL_TYPE, GroupDescription
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.image_topics import ImageTopics
from trioq.coordinator.offset_requests import GroupOverview, PartitionsByTopic
from trioq.coordinator.offsets import forgetting
from trioq.coordinator.registry import GroupRegistry
from trioq.coordinator.write_batch import OffsetChange
from trioq.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    GroupSubscribedToTopic,
    KafkaError,
    NonEmptyGroup,
)
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.consumer_requests import ConsumerGroupDescription

_NO_LEASE: Final = CoordinatorNotAvailable("This broker has lost touch with the metastore.")
_LEADERLESS: Final = CoordinatorLoadInProgress("Some groups have no coordinator at the moment.")
_NOT_FOUND: Final = GroupIdNotFound("There is no such group.")


def list_groups(groups: GroupRegistry) -> list[GroupOverview] | KafkaError:
    """Every group that is more than a name; an error for which clients ask again while not all
    are known.
    """
    if groups.slots.lease_refusal() is not None:
        return _NO_LEASE
    behind = groups.slots.present_refusal()
    if behind is not None:
        return behind
    if not groups.slots.are_all_led():
        return _LEADERLESS
    for slot in groups.slots:
        if isinstance(slot.refusal, CoordinatorLoadInProgress):
            return slot.refusal
    overviews: list[GroupOverview] = []
    for group in groups:
        machine = group.machine
        if machine is None:
            continue
        if isinstance(machine, GroupState):
            protocol_type, group_type = machine.protocol_type or "", "classic"
        else:
            protocol_type, group_type = CONSUMER_PROTOCOL_TYPE, "consumer"
        overviews.append(
            GroupOverview(group.group_id, protocol_type, machine.phase.value, group_type)
        )
    return overviews


def describe_classic(groups: GroupRegistry, group_id: str) -> GroupDescription | KafkaError:
    """A group of the classic protocol."""
    group = groups.find(group_id)
    if not isinstance(group, Group):
        return group or _NOT_FOUND
    if isinstance(group.machine, GroupState):
        return group.machine.describe()
    return GroupIdNotFound("The group is none of the classic protocol.")


def describe_consumer(
    groups: GroupRegistry, group_id: str
) -> ConsumerGroupDescription | KafkaError:
    """A group of the consumer protocol."""
    group = groups.find(group_id)
    if not isinstance(group, Group):
        return group or _NOT_FOUND
    if group.machine is None or isinstance(group.machine, GroupState):
        return GroupIdNotFound("The group is none of the consumer protocol.")
    return group.machine.describe()


class _Answers:
    """Waits for several changes at once."""

    def __init__(self) -> None:
        self.errors: dict[str, KafkaError | None] = {}
        self._missing = 0
        self._all = trio.Event()

    def expect(self, group_id: str) -> None:
        self._missing += 1
        self.errors[group_id] = None

    def take(self, group_id: str, error: KafkaError | None) -> None:
        self.errors[group_id] = error
        self._missing -= 1
        if not self._missing:
            self._all.set()

    async def wait(self) -> None:
        if self._missing:
            await self._all.wait()


async def delete_groups(
    groups: GroupRegistry, group_ids: Sequence[str], now_ms: int
) -> dict[str, KafkaError | None]:
    """Delete those that have no members; the error of each, by id, when all are durable."""
    answers = _Answers()
    for group_id in dict.fromkeys(group_ids):
        group = groups.damaged(group_id) or groups.find(group_id)
        error: KafkaError | None
        if not isinstance(group, Group):
            error = group or _NOT_FOUND
        else:
            error = _refusal_to_delete(group, now_ms)
        answers.expect(group_id)
        if isinstance(group, Group) and error is None:
            group.remove(partial(answers.take, group_id))
        else:
            answers.take(group_id, error)
    await answers.wait()
    return answers.errors


def _refusal_to_delete(group: Group, now_ms: int) -> KafkaError | None:
    machine = group.machine
    if group.damage is not None:
        return group.slot.refusal
    if machine is None:
        return _NOT_FOUND
    if isinstance(machine, GroupState):
        error, _ = machine.delete(now_ms)  # its Remove is what the caller does
        return error
    if machine.is_empty:
        return None
    return NonEmptyGroup("The group has members: stop them first.")


async def delete_offsets(
    groups: GroupRegistry, topics: ImageTopics, group_id: str, partitions: PartitionsByTopic
) -> Mapping[TopicId, KafkaError]:
    """Forget what is committed for `partitions` (KIP-496).

    Topics that the group is subscribed to keep their offsets, and are returned with
    GROUP_SUBSCRIBED_TO_TOPIC. Raises GroupIdNotFound, NonEmptyGroup where nobody can tell what
    an active group consumes, and what a commit is refused with.
    """
    group = groups.find(group_id)
    if isinstance(group, KafkaError):
        raise group
    if group is None or group.machine is None:
        raise GroupIdNotFound("There is no such group.")
    subscribed = _subscribed_topics(group, topics)
    kept: dict[TopicId, KafkaError] = {
        topic_id: GroupSubscribedToTopic("The group is subscribed to the topic.")
        for topic_id in partitions
        if topics.name_of(topic_id) in subscribed
    }
    changes = forgetting({one: numbers for one, numbers in partitions.items() if one not in kept})
    if changes:
        answers = _Answers()
        answers.expect(group_id)
        group.submit(OffsetChange(group, changes), partial(answers.take, group_id))
        await answers.wait()
        error = answers.errors[group_id]
        if error is not None:
            raise error
    return kept


def _subscribed_topics(group: Group, topics: ImageTopics) -> frozenset[str]:
    """The names of the topics that the group consumes. Raises NonEmptyGroup if unknown."""
    machine = group.machine
    if machine is None or group.is_idle:
        return frozenset()
    if not isinstance(machine, GroupState):
        return machine.subscribed_topics(topics)
    subscribed = machine.subscribed_topics()
    if subscribed is None:
        raise NonEmptyGroup("The group has members, and what they consume cannot be told.")
    return subscribed
