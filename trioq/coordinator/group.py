"""One group: its state machine, and what carries out the machine's effects.

Answers that tell of a change are given when it is durable; refusals at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from trioq.clock import Clock
from trioq.coordinator.effects import Answer, Convert, Effect, Persist
from trioq.coordinator.group_requests import JoinRefused
from trioq.coordinator.group_state import GroupState
from trioq.coordinator.offsets import OffsetTable
from trioq.coordinator.slot_writer import Deadline, Deadlines, SlotWriter
from trioq.coordinator.slots import LedSlot, LedSlots
from trioq.coordinator.stored_group import StoredNodes
from trioq.coordinator.write_batch import Change, Done, GroupChange, Removal
from trioq.errors import KafkaError, UnknownServerError
from trioq.metastore.group_layout import StoredGroup, group_path

if TYPE_CHECKING:
    from trioq.coordinator.consumer_group_state import ConsumerGroupState

    Machine = GroupState | ConsumerGroupState

_LEASE_PAUSE_S: Final = 0.1
"""How soon to look again whether time may pass in a group, while the lease has ended."""

_TOO_LARGE = UnknownServerError("The group is too large for the metastore.")


class GroupHome:
    """What all groups of a broker share.

    `forget` drops a group of which nothing is left; `restore` makes the machine of a stored one.
    """

    __slots__ = ("clock", "deadlines", "forget", "restore", "slots", "timeout_s")

    def __init__(
        self,
        clock: Clock,
        deadlines: Deadlines,
        slots: LedSlots,
        forget: Callable[[Group], None],
        restore: Callable[[StoredGroup], Machine],
        timeout_s: float,
    ) -> None:
        self.clock = clock
        self.deadlines = deadlines
        self.slots = slots
        self.forget = forget
        self.restore = restore
        self.timeout_s = timeout_s


class Group:
    """A group of either protocol. Owned by the coordinator; plain calls on the loop's thread.

    `machine` is None while the group is nothing but a name: new, or being removed. `damage`
    tells why what is stored of it cannot be read; such a group is refused, and can be deleted.
    """

    __slots__ = (
        "_change",
        "_deadline",
        "_deadline_s",
        "_home",
        "_unsettled",
        "damage",
        "group_id",
        "machine",
        "nodes",
        "offsets",
        "slot",
        "writer",
    )

    def __init__(self, group_id: str, slot: LedSlot, writer: SlotWriter, home: GroupHome) -> None:
        self.group_id = group_id
        self.slot = slot
        self.writer = writer
        self.nodes = StoredNodes(group_path(slot.number, group_id))
        self.offsets = OffsetTable()
        self.machine: Machine | None = None
        self.damage: KafkaError | None = None
        self._home = home
        self._change: Change | None = None
        self._unsettled = 0
        self._deadline: Deadline | None = None
        self._deadline_s = math.inf

    @property
    def is_idle(self) -> bool:
        """True if it has no members, nor anyone who is about to be one."""
        machine = self.machine
        if machine is None:
            return True
        return machine.is_idle if isinstance(machine, GroupState) else machine.is_empty

    @property
    def is_blank(self) -> bool:
        """True if nothing would be lost with it."""
        return not self.nodes.existing and not self._unsettled and self.is_idle

    @property
    def is_changing(self) -> bool:
        """True while something of it waits to be written."""
        return self._unsettled > 0

    # ---- effects

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Do what the machine asks for, in order, and be there when its time comes."""
        for effect in effects:
            if isinstance(effect, Answer):
                self.answer(effect.waiter, effect.result)
            elif isinstance(effect, Persist):
                self._persist()
            elif isinstance(effect, Convert):
                self._convert(effect)
            else:
                self.remove()
        machine = self.machine
        if (
            machine is not None
            and self.slot.is_led
            and machine.next_deadline_s() < self._deadline_s
        ):
            self._set_deadline(machine.next_deadline_s())
        if self.is_blank:
            self._home.forget(self)

    def _convert(self, effect: Convert) -> None:
        """Go on with a machine of the classic protocol."""
        self.stop()
        self.machine = machine = self._home.restore(effect.group)
        if effect.join is not None:
            assert isinstance(machine, GroupState)
            request, waiter = effect.join
            clock = self._home.clock
            self.carry_out(machine.join(request, waiter, clock.monotonic_s(), clock.now_ms()))

    def answer(self, waiter: Callable[[Any], None], result: object) -> None:
        """Give a refusal at once, a result when all that was changed before is durable."""
        if isinstance(result, KafkaError | JoinRefused):
            waiter(self._home.slots.lease_refusal() or result)
            return
        change = self._change
        if change is None:
            waiter(self._home.slots.lease_refusal() or result)
        elif change.is_failed:
            waiter(_TOO_LARGE)
        else:
            self.writer.wait_for(
                change,
                lambda error: waiter(result if error is None else error),
                self._home.timeout_s,
            )

    def _persist(self) -> None:
        change = self._change
        if change is None or change.is_taken or isinstance(change, Removal):
            self._change = change = GroupChange(self)
            self.submit(change)

    def remove(self, waiter: Done | None = None) -> None:
        """Remove the group from the metastore, with its offsets."""
        self.stop()
        self.machine = None
        self.damage = None
        self._change = change = Removal(self)
        self.submit(change, waiter)

    def submit(self, change: Change, waiter: Done | None = None) -> None:
        """Have a change of this group written; `waiter` is told when it is durable, or why not."""
        self._unsettled += 1
        self.writer.submit(change, waiter, timeout_s=self._home.timeout_s)

    # ---- time

    def _set_deadline(self, when_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_s = when_s
        self._deadline = self._home.deadlines.add(when_s, self._time_has_come)

    def _time_has_come(self) -> None:
        self._deadline = None
        self._deadline_s = math.inf
        if self.machine is None:
            return
        clock = self._home.clock
        if self._home.slots.present_refusal() is not None:
            # Members are not heard at present: nobody is expelled for that.
            self._set_deadline(clock.monotonic_s() + _LEASE_PAUSE_S)
            return
        self.carry_out(self.machine.on_time(clock.monotonic_s(), clock.now_ms()))

    def stop(self) -> None:
        """Time passes no longer: the group is removed, or coordinated elsewhere."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._deadline_s = math.inf

    # ---- for the writer

    def snapshot(self) -> StoredGroup | None:
        return None if self.machine is None else self.machine.snapshot()

    def settled(self, change: Change) -> None:
        self._unsettled -= 1
        if self._change is change and not change.is_failed:
            self._change = None
        if self.is_blank:
            self._home.forget(self)
