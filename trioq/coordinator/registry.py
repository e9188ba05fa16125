"""The groups that are coordinated here, by id, with the writers of their slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import trio

from trioq.clock import Clock
from trioq.coordinator.group import Group, GroupHome
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.slot_writer import Deadlines, SlotWriter, WriterParts
from trioq.coordinator.slots import LedSlot, LedSlots
from trioq.coordinator.stored_groups import ReadGroup
from trioq.errors import CoordinatorNotAvailable, KafkaError, UnknownServerError
from trioq.metastore.group_layout import StoredGroup

if TYPE_CHECKING:
    from trioq.coordinator.group import Machine

MAX_GROUPS_PER_SLOT: Final = 10_000

_FULL = CoordinatorNotAvailable(
    f"The slot of this group has {MAX_GROUPS_PER_SLOT} groups already, as many as it may."
)


def damage_error(damage: Exception) -> KafkaError:
    """What is answered for a group that cannot be read: trying again does not help."""
    return UnknownServerError(f"What is stored of the group is damaged: {damage}")


class GroupRegistry:
    """Finds, makes and forgets groups; owns their writers.

    One id is one Group for as long as anything of it is stored or on its way to the store.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        slots: LedSlots,
        clock: Clock,
        deadlines: Deadlines,
        restore: Callable[[StoredGroup], Machine],
        timeout_s: float,
    ) -> None:
        self.slots = slots
        self._groups: dict[str, Group] = {}
        self._parts = WriterParts(nursery, slots, clock, deadlines)
        self._home = GroupHome(clock, deadlines, slots, self._forget, restore, timeout_s)
        self._writers: dict[int, SlotWriter] = {}
        self._counts: Counter[int] = Counter()

    def __iter__(self) -> Iterator[Group]:
        """All that are known here, as they are now; some may be names only."""
        return iter(list(self._groups.values()))

    def find(self, group_id: str) -> Group | KafkaError | None:
        """The group, why it is refused, or None if there is none."""
        group = self._groups.get(group_id)
        if group is None:
            slot = self.slots.of(group_id)
            return slot if isinstance(slot, KafkaError) else None
        return group.slot.refusal or self.slots.lease_refusal() or group.damage or group

    def find_or_make(self, group_id: str) -> Group | KafkaError:
        """The group, if need be without a machine, or why it is refused."""
        found = self.find(group_id)
        if found is not None:
            return found
        slot = self.slots.of(group_id)
        if isinstance(slot, KafkaError):
            return slot
        if self._counts[slot.number] >= MAX_GROUPS_PER_SLOT:
            return _FULL
        return self._make(group_id, slot)

    def damaged(self, group_id: str) -> Group | None:
        """The group, if it is one that cannot be read but that may be deleted."""
        group = self._groups.get(group_id)
        return group if group is not None and group.damage is not None else None

    def load(self, slot: LedSlot, stored: ReadGroup) -> Group:
        """Take a group that was read; one that was being removed is removed now.

        Its machine is for the caller to set.
        """
        group = self._make(stored.group_id, slot)
        group.nodes = stored.nodes
        group.offsets = stored.offsets
        if stored.damage is not None:
            group.damage = UnknownServerError(
                f"What is stored of the group is damaged: {stored.damage}"
            )
        elif stored.group is None:
            group.remove()
        return group

    async def wait_written(self) -> None:
        """Wait until nothing waits to be written."""
        await self._parts.wait_idle()

    def _make(self, group_id: str, slot: LedSlot) -> Group:
        group = Group(group_id, slot, self._writer_of(slot), self._home)
        self._groups[group_id] = group
        self._counts[slot.number] += 1
        return group

    def _writer_of(self, slot: LedSlot) -> SlotWriter:
        """The writer of this term of the slot; the one of a term before went with its demotion."""
        writer = self._writers.get(slot.number)
        if writer is None:
            writer = self._writers[slot.number] = SlotWriter(slot, self._parts)
            slot.on_demotion = self._demoted
        return writer

    def _forget(self, group: Group) -> None:
        """Nothing is left of the group."""
        if self._groups.get(group.group_id) is group:
            del self._groups[group.group_id]
            self._counts[group.slot.number] -= 1
        group.stop()

    def abandon(self, error: KafkaError, now_s: float) -> None:
        """Answer every waiting member `error`: the broker is about to stop."""
        for group in self:
            self._abandon(group, error, now_s)

    def _abandon(self, group: Group, error: KafkaError, now_s: float) -> None:
        if isinstance(group.machine, GroupState):
            group.carry_out(group.machine.abandon(error, now_s))

    def _demoted(self, slot: LedSlot) -> None:
        """The slot is led elsewhere: answer all who wait, and know nothing of its groups."""
        error = slot.refusal
        assert error is not None
        for group in self:
            if group.slot is slot:
                self._abandon(group, error, self._home.clock.monotonic_s())
                group.stop()
                del self._groups[group.group_id]
        self._counts[slot.number] = 0
        self._writers.pop(slot.number).abandon(error)
