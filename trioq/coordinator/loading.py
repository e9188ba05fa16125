"""Reads the groups of slots into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.coordinator.group import Group
from trioq.coordinator.registry import damage_error
from trioq.coordinator.restoring import Damaged
from trioq.coordinator.slots import LedSlot
from trioq.coordinator.stored_groups import ReadGroup, read_groups
from trioq.coordinator.write_batch import OffsetChange
from trioq.metastore import layout, store

if TYPE_CHECKING:
    from trioq.coordinator.coordinator import GroupCoordinator
    from trioq.coordinator.service import LogEnd

_log = logs.get_logger(__name__)

_GROUPS_PER_CHECKPOINT: Final = 20


class SlotLoader:
    """Loads slots into a coordinator; counts what it found."""

    def __init__(self, coordinator: GroupCoordinator, log_end: LogEnd | None) -> None:
        self._coordinator = coordinator
        self._log_end = log_end
        self._groups = self._damaged = self._clamped = 0

    async def load(self, metastore: store.Metastore, slot: LedSlot) -> None:
        """Read the slot's groups; it serves when they are all there.

        Offsets that have to be clamped are so, durably, first. Members' sessions begin now.
        Raises what the metastore raises, and then nothing of the slot is loaded.
        """
        top = layout.slot_groups_path(slot.number)
        tree = await metastore.read_tree(top)
        for number, stored in enumerate(read_groups(top, tree), 1):
            self._take(slot, stored)
            if number % _GROUPS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        if self._log_end is not None:
            await self._coordinator.groups.wait_written()
        slot.loaded()

    def _take(self, slot: LedSlot, stored: ReadGroup) -> None:
        self._groups += 1
        group = self._coordinator.groups.load(slot, stored)
        if stored.group is not None:
            try:
                group.machine = self._coordinator.restored(stored.group)
            except Damaged as error:
                group.damage = damage_error(error)
                _log.error(
                    "stored group makes no sense: its members and commits are refused; restore the "
                    "metastore from a backup, or delete the group",
                    group=group.group_id,
                    reason=str(error),
                )
            else:
                group.carry_out(())
                self._clamp(group)
        self._damaged += group.damage is not None

    def _clamp(self, group: Group) -> None:
        """After a stop that was not clean: no offset is above the end of its log."""
        if self._log_end is None:
            return
        changes = group.offsets.clamped(self._log_end)
        if changes:
            count = sum(map(len, changes.values()))
            self._clamped += count
            _log.warning(
                "committed offsets above the end of their log are set to that end: the records "
                "between were lost when the broker stopped",
                group=group.group_id,
                partitions=count,
            )
            group.submit(OffsetChange(group, changes))

    def log_summary(self) -> None:
        """One line for all that was loaded."""
        _log.info(
            "groups loaded",
            groups=self._groups,
            damaged=self._damaged,
            offsets_clamped=self._clamped,
        )
