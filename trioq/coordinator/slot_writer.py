"""Writes what changed in a slot: one write after the other, each with all that waited.

A change is answered when it is durable. While the metastore cannot be reached a write is
repeated, after pauses, until its outcome is definite; those who wait are told
COORDINATOR_NOT_AVAILABLE when their time is up, and what was not sent by then is dropped. So
what is in memory and what is stored never part, and an acknowledged commit is stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.coordinator.slots import LedSlot, LedSlots
from trioq.coordinator.stored_group import StoredNodes, Write
from trioq.coordinator.write_batch import Batch, Change, Done
from trioq.errors import (
    CoordinatorNotAvailable,
    KafkaError,
    MetastoreError,
    NotCoordinator,
    UnknownServerError,
)
from trioq.metastore import store
from trioq.metastore.session import SessionState
from trioq.metastore.write_chain import Deposed

_log = logs.get_logger(__name__)

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
_RECONCILIATIONS: Final = 5

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""What may wait to be written, in all slots together; more is refused."""

_TOO_MUCH = CoordinatorNotAvailable("Too much waits to be written to the metastore.")


class Deadline(Protocol):
    """See Deadlines."""

    def cancel(self) -> None: ...


class Deadlines(Protocol):
    """The broker's deadlines (trioq.server.deadlines): calls back once at a monotonic time."""

    def add(self, when_s: float, callback: Callable[[], None]) -> Deadline: ...


class WriterParts:
    """What the writers of all slots share: their nursery, time, and a bound."""

    def __init__(
        self, nursery: trio.Nursery, slots: LedSlots, clock: Clock, deadlines: Deadlines
    ) -> None:
        self.nursery = nursery
        self.slots = slots
        self.clock = clock
        self.deadlines = deadlines
        self.waiting_bytes = 0
        self._busy = 0
        self._idle = trio.Event()
        self._is_failing = False

    def begin(self) -> None:
        """A writer has something to do."""
        self._busy += 1

    def end(self) -> None:
        """A writer is done."""
        self._busy -= 1
        if not self._busy:
            self._idle.set()
            self._idle = trio.Event()

    async def wait_idle(self) -> None:
        """Wait until nothing is left to be written."""
        while self._busy:
            await self._idle.wait()

    def failed(self, error: MetastoreError) -> None:
        """A write could not be made, or nobody knows; one line for each time of trouble."""
        if not self._is_failing:
            self._is_failing = True
            _log.warning("groups cannot be written; trying again", reason=str(error))

    def succeeded(self) -> None:
        """A write was made."""
        if self._is_failing:
            self._is_failing = False
            _log.info("groups are written again")


class SlotWriter:
    """The writer of one slot; its task runs while there is something to write."""

    __slots__ = ("_batch", "_deadline", "_due", "_is_running", "_parts", "_queue", "_slot")

    def __init__(self, slot: LedSlot, parts: WriterParts) -> None:
        self._slot = slot
        self._parts = parts
        self._queue: deque[Change] = deque()
        self._batch: Batch | None = None
        self._is_running = False
        # When those that wait for a change are told that it takes too long, in order.
        self._due: deque[tuple[float, Change]] = deque()
        self._deadline: Deadline | None = None

    def submit(self, change: Change, waiter: Done | None = None, *, timeout_s: float = 0) -> None:
        """Write `change` with the next batch that has room for it.

        `waiter` is told when it is durable, or the error, at the latest after `timeout_s`.
        """
        parts = self._parts
        refusal = self._slot.refusal if not self._slot.is_led else None
        if refusal is None and waiter is not None and parts.waiting_bytes > MAX_WAITING_BYTES:
            refusal = _TOO_MUCH
        if refusal is not None:
            change.group.settled(change)
            if waiter is not None:
                waiter(refusal)
            return
        self._queue.append(change)
        parts.waiting_bytes += change.held_bytes
        if waiter is not None:
            self.wait_for(change, waiter, timeout_s)
        if not self._is_running:
            self._is_running = True
            parts.begin()
            parts.nursery.start_soon(self._run)

    def wait_for(self, change: Change, waiter: Done, timeout_s: float) -> None:
        """One more waiter for a change that was submitted and is not settled yet."""
        change.waiters.append(waiter)
        if len(change.waiters) == 1:
            self._due.append((self._parts.clock.monotonic_s() + timeout_s, change))
            self._set_deadline()

    def abandon(self, error: KafkaError) -> None:
        """Tell everyone who waits `error`; nothing that waits is written."""
        batch, self._batch = self._batch, None
        if batch is not None:
            for change in batch.finished:
                change.give_up(error)
        while self._queue:
            change = self._queue.popleft()
            self._parts.waiting_bytes -= change.held_bytes
            change.give_up(error)
        self._due.clear()
        self._set_deadline()

    # ---- the time of those who wait

    def _set_deadline(self) -> None:
        """Be called when the first of those who wait have waited long enough."""
        while self._due and not self._due[0][1].waiters:
            self._due.popleft()
        if self._deadline is None and self._due:
            self._deadline = self._parts.deadlines.add(self._due[0][0], self._time_is_up)
        elif self._deadline is not None and not self._due:
            self._deadline.cancel()
            self._deadline = None

    def _time_is_up(self) -> None:
        self._deadline = None
        now_s = self._parts.clock.monotonic_s()
        while self._due and (self._due[0][0] <= now_s or not self._due[0][1].waiters):
            _, change = self._due.popleft()
            if change.waiters:
                change.give_up(
                    CoordinatorNotAvailable("The metastore did not take the change in time.")
                )
        self._set_deadline()

    # ---- the task

    async def _run(self) -> None:
        """Write until nothing waits, or until the slot is demoted."""
        try:
            with self._slot.term():
                while self._queue:
                    await self._write_batch()
        except Deposed as deposed:
            self._demote(NotCoordinator("Another broker leads the slot of this group."), deposed)
        except store.SessionLost as lost:
            self._demote(NotCoordinator("The session with the metastore has ended."), lost)
        except store.NodeError as damage:
            self._demote(
                CoordinatorNotAvailable("What is stored of this group's slot is damaged."), damage
            )
        finally:
            self._is_running = False
            self._parts.end()
            if self._queue or self._batch is not None:
                self.abandon(self._slot.refusal or NotCoordinator("The coordinator stops."))

    def _demote(self, error: KafkaError, reason: MetastoreError) -> None:
        is_damage = isinstance(reason, store.NodeError)  # else it is how slots move in a cluster
        (_log.error if is_damage else _log.info)(
            "coordination slot is led no longer",
            slot=self._slot.number,
            epoch=self._slot.epoch,
            reason=str(reason),
        )
        self._slot.demote(error)

    async def _write_batch(self) -> None:
        parts, batch = self._parts, Batch()
        self._batch = batch
        parts.waiting_bytes -= batch.take_from(self._queue)
        try:
            for step in batch.steps:
                await self._write_step(step)
                for nodes, write in step:
                    nodes.done(write)
        except store.TooLarge as error:
            path = step[0][0].path
            _log.error("group is too large for the metastore", path=path, reason=str(error))
            batch.fail(UnknownServerError("The group is too large for the metastore."))
        else:
            batch.apply(parts.slots.lease_refusal())
        self._batch = None
        self._set_deadline()

    async def _write_step(self, step: Sequence[tuple[StoredNodes, Write]]) -> None:
        """Write one multi; returns when it is durable.

        Raises Deposed, SessionLost, TooLarge, and NodeError where the metastore does not hold
        what this slot wrote.
        """
        pause_s = _FIRST_PAUSE_S
        refused = 0
        session = self._slot.chain.metastore.session
        while True:
            try:
                if refused:
                    await self._reconcile(step)
                while session.state is SessionState.SUSPENDED:
                    await session.changed_from(SessionState.SUSPENDED)
                await self._slot.chain.write(
                    [
                        nodes.operation(write)
                        for nodes, write in step
                        if write.value is not None or write.name in nodes.existing
                    ]
                )
            except (store.MetastoreUnavailable, store.OutcomeUnknown) as error:
                self._parts.failed(error)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except store.NodeError:
                refused += 1
                if refused > _RECONCILIATIONS:
                    raise
            else:
                self._parts.succeeded()
                return

    async def _reconcile(self, step: Sequence[tuple[StoredNodes, Write]]) -> None:
        """A write of unknown outcome was made after all: see which nodes there are now."""
        paths = [nodes.operation(write).path for nodes, write in step]
        found = await self._slot.chain.metastore.get_many(paths)
        for (nodes, write), node in zip(step, found, strict=True):
            if node is None:
                nodes.existing.discard(write.name)
            else:
                nodes.existing.add(write.name)
