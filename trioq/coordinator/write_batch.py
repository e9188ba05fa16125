"""What waits to be written of a slot, and what of it makes up the next write: pure.

Changes queue in the order of their arrival. A batch takes as many as one multi holds, so one
write carries every commit that waited, of however many groups; a shard that several of them
touch is encoded once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from trioq.coordinator.offsets import (
    Entries,
    OffsetChanges,
    OffsetTable,
    size_bytes,
    value_bytes,
    value_of,
)
from trioq.coordinator.stored_group import (
    STEP_BYTES,
    STEP_OPERATIONS,
    Plan,
    StoredNodes,
    Write,
)
from trioq.errors import InvalidCommitOffsetSize, KafkaError
from trioq.metastore.group_layout import MAX_SHARD_BYTES, OffsetsKey, StoredGroup

Done = Callable[[KafkaError | None], None]
"""Told once what became of a change: None when it is durable."""

_GROUP_CHANGE_BYTES: Final = 512


class WrittenGroup(Protocol):
    """A group, as its slot's writer sees it."""

    nodes: StoredNodes
    offsets: OffsetTable

    def snapshot(self) -> StoredGroup | None:
        """What of it is to be stored; None while it is nothing but a name."""
        ...

    def settled(self, change: Change) -> None:
        """`change` is durable, or given up; those who wait for it are told right after."""
        ...


class Change:
    """Something of one group that is to be written. `waiters` are told once it is durable.

    `held_bytes` is what it counts towards the bound on what may wait. `is_taken`: it is in a
    batch, so what happens to the group from now on takes another change. `is_failed`: it cannot
    be made.
    """

    __slots__ = ("group", "held_bytes", "is_dropped", "is_failed", "is_taken", "waiters")

    def __init__(self, group: WrittenGroup, held_bytes: int = _GROUP_CHANGE_BYTES) -> None:
        self.group = group
        self.held_bytes = held_bytes
        self.is_dropped = self.is_failed = self.is_taken = False
        self.waiters: list[Done] = []

    def settle(self, error: KafkaError | None) -> None:
        """Tell everyone who waits; those that come later are told by the next call."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter(error)

    def give_up(self, error: KafkaError) -> None:
        """Nobody waits any longer. The change may still be made."""
        self.settle(error)


class GroupChange(Change):
    """The group's snapshot, as it is when the write is made up."""

    __slots__ = ()


class Removal(Change):
    """The group with its members and offsets."""

    __slots__ = ()


class OffsetChange(Change):
    """Offsets to commit or to forget; `changes` shrinks as it is taken into batches.

    With `expected`, an offset is changed only if its entry is still the one expected.
    """

    __slots__ = ("changes", "expected")

    def __init__(
        self,
        group: WrittenGroup,
        changes: OffsetChanges,
        expected: dict[OffsetsKey, Entries] | None = None,
    ) -> None:
        super().__init__(group, size_bytes(changes))
        self.changes = changes
        self.expected = expected

    def give_up(self, error: KafkaError) -> None:
        """What is not on its way to the metastore yet is not committed."""
        self.is_dropped = True
        self.settle(error)


class Batch:
    """What one write carries: one step, or the several of one large change of a group."""

    def __init__(self) -> None:
        self.steps: list[list[tuple[StoredNodes, Write]]] = []
        self.finished: list[Change] = []
        """Changes of which nothing is left to be written after this batch."""
        self._groups: list[tuple[WrittenGroup, Plan]] = []
        self._planned: set[int] = set()  # by id(): groups are compared as objects
        self._touched: set[int] = set()
        self._removed: set[int] = set()
        self._staged: dict[tuple[int, OffsetsKey], tuple[WrittenGroup, Entries, int]] = {}
        self._operations = 0
        self._bytes = 0
        self._is_full = False

    @property
    def is_empty(self) -> bool:
        """True if nothing is to be written."""
        return not self.steps and not self._groups and not self._staged

    # ---- making up

    def take_from(self, queue: deque[Change]) -> int:
        """Move changes here from the head of `queue`, in order, until one does not fit.

        Returns how many bytes they held.
        """
        held_bytes = 0
        while queue and not self._is_full:
            change = queue[0]
            if change.is_dropped:
                change.group.settled(change)
            else:
                if not self._add(change):
                    break
                change.is_taken = True
                self.finished.append(change)
            queue.popleft()
            held_bytes += change.held_bytes
        self._close()
        return held_bytes

    def _add(self, change: Change) -> bool:
        """Take all of `change`; False if (the rest of) it has to wait for the next batch."""
        identity = id(change.group)
        if identity in self._removed:
            return False
        if isinstance(change, OffsetChange):
            return self._add_offsets(change)
        if isinstance(change, Removal):
            if identity in self._touched:
                return False
            if not self._add_plan(change.group, change.group.nodes.plan_removal()):
                return False
            self._removed.add(identity)
            return True
        return self._add_group(change.group)

    def _add_group(self, group: WrittenGroup) -> bool:
        if id(group) in self._planned:
            return True
        snapshot = group.snapshot()
        return snapshot is None or self._add_plan(group, group.nodes.plan(snapshot))

    def _add_plan(self, group: WrittenGroup, plan: Plan) -> bool:
        steps = plan.steps
        if len(steps) > 1:
            if self._touched:
                return False
            self.steps = [[(group.nodes, write) for write in step] for step in steps]
            self._is_full = True
        elif steps:
            size = group.nodes.size_bytes(steps[0])
            if not self._has_room(len(steps[0]), size):
                return False
            self._operations += len(steps[0])
            self._bytes += size
        self._touched.add(id(group))
        self._planned.add(id(group))
        self._groups.append((group, plan))
        return True

    def _add_offsets(self, change: OffsetChange) -> bool:
        group = change.group
        if not group.nodes.is_stored:
            if group.snapshot() is None:
                return True  # its removal was asked for meanwhile, and comes next
            if not self._add_group(group):
                return False
        if self._is_full:
            return False  # the group is stored first, in steps of its own
        for key in list(change.changes):
            entries = self._merged(change, key)
            if entries is not None and not self._stage(group, key, entries):
                if value_bytes(entries) > MAX_SHARD_BYTES:
                    change.give_up(
                        InvalidCommitOffsetSize(
                            f"the offsets of 256 partitions with their metadata take more than"
                            f" {MAX_SHARD_BYTES} bytes: commit less metadata"
                        )
                    )
                    return True
                return False
            del change.changes[key]
        return True

    def _merged(self, change: OffsetChange, key: OffsetsKey) -> Entries | None:
        """The shard's entries after the change; None if it changes nothing."""
        staged = self._staged.get((id(change.group), key))
        entries = change.group.offsets.staged(key) if staged is None else dict(staged[1])
        changed = False
        expected = None if change.expected is None else change.expected.get(key, {})
        for partition, entry in change.changes[key].items():
            if expected is not None and entries.get(partition) != expected.get(partition):
                continue
            if entry is not None:
                entries[partition] = entry
                changed = True
            elif entries.pop(partition, None) is not None:
                changed = True
        return entries if changed else None

    def _stage(self, group: WrittenGroup, key: OffsetsKey, entries: Entries) -> bool:
        place = (id(group), key)
        size = value_bytes(entries)
        before = self._staged.get(place)
        operations = 1 if before is None else 0
        growth = size - (before[2] if before is not None else 0)
        if before is None:
            growth += group.nodes.size_bytes((Write(key.node_name, None),))
        if size > MAX_SHARD_BYTES or not self._has_room(operations, growth):
            return False
        self._operations += operations
        self._bytes += growth
        self._staged[place] = (group, entries, size)
        self._touched.add(id(group))
        return True

    def _has_room(self, operations: int, size: int) -> bool:
        return self._operations + operations <= STEP_OPERATIONS and self._bytes + size <= STEP_BYTES

    def _close(self) -> None:
        """All that fits was taken: encode."""
        if self._is_full:
            return
        step = [
            (group.nodes, write)
            for group, plan in self._groups
            for writes in plan.steps
            for write in writes
        ]
        for (_, key), (group, entries, _) in self._staged.items():
            value = value_of(entries)
            if value is not None or key.node_name in group.nodes.existing:
                step.append((group.nodes, Write(key.node_name, value)))
        if step:
            self.steps = [step]

    # ---- afterwards

    def apply(self, refusal: KafkaError | None = None) -> None:
        """All steps are durable: this is what the groups' nodes hold now.

        `refusal` is what those who wait are told nevertheless: the lease has ended.
        """
        for group, plan in self._groups:
            group.nodes.settle(plan.outcome)
            if id(group) in self._removed:
                group.offsets.clear()
        for (_, key), (group, entries, _) in self._staged.items():
            group.offsets.install(key, entries)
        for change in self.finished:
            change.group.settled(change)
            change.settle(refusal)

    def fail(self, error: KafkaError) -> None:
        """It cannot be written: tell those who wait. What is staged is forgotten."""
        for change in self.finished:
            change.is_failed = True
            change.group.settled(change)
            change.give_up(error)
