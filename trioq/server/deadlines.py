"""Deadlines of waiting requests: one heap and one task per broker."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

from trioq.clock import Clock

_COMPACT_AT = 1024  # dead entries that are tolerated before the heap is looked at


class Deadline:
    """A callback that is due at a time, until it is cancelled or called."""

    __slots__ = ("_owner", "callback")

    def __init__(self, owner: Deadlines, callback: Callable[[], None]) -> None:
        self._owner = owner
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back; harmless when it was called or cancelled already."""
        if self.callback is not None:
            self.callback = None
            self._owner.entry_died()


class Deadlines:
    """The heap of deadlines, on `clock.monotonic_s()`.

    Adding and cancelling are plain calls on the broker's loop thread and wake nobody,
    except an addition that is due before everything else. Entries of cancelled deadlines
    stay in the heap until their time comes or half of the heap is dead.
    """

    __slots__ = ("_clock", "_dead", "_heap", "_lot", "_next_sequence", "_sleeps_until_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._dead = 0
        self._next_sequence = 0
        self._lot = trio.lowlevel.ParkingLot()
        self._sleeps_until_s = -math.inf  # not asleep

    def __len__(self) -> int:
        """Number of deadlines that are neither cancelled nor called."""
        return len(self._heap) - self._dead

    def add(self, when_s: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback()` from the deadline task at monotonic time `when_s`, or up to
        about a millisecond later.

        The callback is a plain call; what it raises ends the broker. It may add and
        cancel deadlines.
        """
        deadline = Deadline(self, callback)
        self._next_sequence += 1
        heapq.heappush(self._heap, (when_s, self._next_sequence, deadline))
        if when_s < self._sleeps_until_s:
            self._sleeps_until_s = -math.inf
            self._lot.unpark_all()
        return deadline

    def entry_died(self) -> None:
        """Called by `Deadline.cancel`; drops dead entries when they are the majority."""
        self._dead += 1
        if self._dead > _COMPACT_AT and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def call_due(self, now_s: float) -> float:
        """Call everything due at `now_s`; returns when the next one is due, or infinity."""
        while self._heap:
            when_s, _, deadline = self._heap[0]
            callback = deadline.callback
            if callback is not None and when_s > now_s:
                return when_s
            heapq.heappop(self._heap)
            if callback is None:
                self._dead -= 1
            else:
                deadline.callback = None
                callback()
        return math.inf

    async def run(self) -> None:
        """The deadline task; runs until cancelled."""
        while True:
            next_s = self.call_due(self._clock.monotonic_s())
            wait_s = max(next_s - self._clock.monotonic_s(), 0.0)
            self._sleeps_until_s = next_s
            with trio.move_on_after(wait_s + 0.0005):
                await self._lot.park()
            self._sleeps_until_s = -math.inf
