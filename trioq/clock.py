"""The seam for time: everything that reads a clock takes one of these."""

from __future__ import annotations

import time
from typing import Final, Protocol

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""macOS has none; its CLOCK_MONOTONIC counts that time too."""


class Clock(Protocol):
    """Wall clock for timestamps, monotonic clock for deadlines."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class BootClock(SystemClock):
    """SystemClock whose monotonic clock counts the time in which the machine was suspended.

    What ends at a moment that others count too, such as a lease, is measured on this one.
    """

    __slots__ = ()

    def monotonic_s(self) -> float:
        return time.clock_gettime(_BOOTTIME)


class ManualClock:
    """A clock that moves only when told to; for tests and simulation."""

    __slots__ = ("_monotonic_s", "_now_ms")

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward together."""
        self._monotonic_s += seconds
        self._now_ms += round(seconds * 1000)

    def jump(self, ms: int) -> None:
        """Move the wall clock alone, as an administrator or NTP would."""
        self._now_ms += ms
