"""What becomes of groups as time passes and topics go: offsets expire, empty groups are removed.

Runs beside everything else, a few groups at a time. What it finds out of date is changed only if
it still is what it was (OffsetChange.expected), so a commit that comes meanwhile is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.coordinator.group import Group
from trioq.coordinator.group_phases import GroupPhase
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.offsets import Expiry, OffsetChanges
from trioq.coordinator.write_batch import OffsetChange
from trioq.types import TopicId

if TYPE_CHECKING:
    from trioq.coordinator.coordinator import GroupCoordinator

_log = logs.get_logger(__name__)

_GROUPS_PER_CHECKPOINT: Final = 20
_MS_PER_MINUTE: Final = 60_000


class Upkeep:
    """The service that looks after the groups of one coordinator."""

    def __init__(
        self, coordinator: GroupCoordinator, *, retention_minutes: int, interval_ms: int
    ) -> None:
        self._coordinator = coordinator
        self._retention_ms = retention_minutes * _MS_PER_MINUTE
        self._interval_s = interval_ms / 1000
        self._topics_changed = trio.Event()

    def topics_changed(self) -> None:
        """Topics came, went or grew."""
        self._topics_changed.set()

    async def run(self) -> None:
        """Look after the groups until cancelled."""
        next_s = trio.current_time() + self._interval_s
        while True:
            with trio.move_on_at(next_s):
                await self._topics_changed.wait()
            if self._topics_changed.is_set():
                self._topics_changed = trio.Event()
                await self.follow_topics()
            if trio.current_time() >= next_s:
                next_s = trio.current_time() + self._interval_s
                await self.expire()

    async def follow_topics(self) -> None:
        """Tell the groups of changed topics; forget the offsets of deleted ones."""
        forgotten = 0
        for number, group in enumerate(self._coordinator.groups, 1):
            self._coordinator.topics_changed(group)
            forgotten += self._forget_deleted(group)
            if number % _GROUPS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        if forgotten:
            _log.info("offsets of deleted topics are forgotten", offsets=forgotten)

    async def expire(self) -> None:
        """Forget the offsets whose time has passed; remove groups of which nothing is left."""
        expired = removed = 0
        for number, group in enumerate(self._coordinator.groups, 1):
            if self._is_over(group):
                removed += 1
            else:
                self._forget_deleted(group)
                expired += self._expire(group)
            if number % _GROUPS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
        if expired or removed:
            _log.info("offsets of groups expired", offsets=expired, groups_removed=removed)

    def _forget_deleted(self, group: Group) -> int:
        topics = self._coordinator.topics
        changes = group.offsets.without_topics(lambda one: topics.name_of(one) is not None)
        return _submit(group, changes)

    def _expire(self, group: Group) -> int:
        if not group.offsets or group.machine is None:
            return 0
        expired = group.offsets.expired(self._expiry(group))
        count = sum(map(len, expired.values()))
        if count == group.offsets.count() and self._is_removable(group):
            self._remove(group)
            return count
        return _submit(group, expired)

    def _expiry(self, group: Group) -> Expiry:
        """Which of the group's offsets are out of date now (KIP-211)."""
        coordinator, machine = self._coordinator, group.machine
        now_ms = coordinator.clock.now_ms()
        since_ms: int | None = 0
        subscribed: frozenset[str] | None = None
        if isinstance(machine, GroupState):
            if machine.phase is GroupPhase.EMPTY:
                since_ms = machine.state_since_ms if machine.protocol_type is not None else 0
            elif machine.phase is GroupPhase.STABLE:
                subscribed = machine.subscribed_topics()
            if machine.phase is not GroupPhase.EMPTY and subscribed is None:
                since_ms = None
        elif machine is not None:
            subscribed = machine.subscribed_topics(coordinator.topics)
            if machine.is_empty:
                since_ms = machine.state_since_ms
        kept = frozenset[TopicId]()
        if subscribed:
            ids = map(coordinator.topics.id_of, subscribed)
            kept = frozenset(one for one in ids if one is not None)
        return Expiry(now_ms, self._retention_ms, since_ms, kept)

    def _is_over(self, group: Group) -> bool:
        """Remove a group that has neither members nor offsets."""
        if group.offsets or not self._is_removable(group):
            return False
        self._remove(group)
        return True

    def _is_removable(self, group: Group) -> bool:
        return (
            group.damage is None
            and group.machine is not None
            and group.is_idle
            and not group.is_changing
            and group.slot.refusal is None
        )

    def _remove(self, group: Group) -> None:
        if isinstance(group.machine, GroupState):
            group.carry_out(group.machine.delete(self._coordinator.clock.now_ms())[1])
        else:
            group.remove()


def _submit(group: Group, changes: OffsetChanges) -> int:
    """Make `changes` to offsets, of those that are not changed by then; how many."""
    if not changes or group.slot.refusal is not None:
        return 0
    count = sum(map(len, changes.values()))
    group.submit(OffsetChange(group, changes, group.offsets.entries_at(changes)))
    return count
