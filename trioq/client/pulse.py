"""Waking tasks that look at shared state again and again."""

from __future__ import annotations

from typing import Final

import anyio

_NEVER_S: Final = float("inf")


class Pulse:
    """`beat` wakes everybody who waits; a beat between two waits is not missed.

    For one waiting task per `Pulse`, which looks at the state, waits, and looks again.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def beat(self) -> None:
        self._event.set()

    async def wait(self, until_s: float = _NEVER_S) -> None:
        """Return after a beat, or at `until_s` of anyio's clock; at once after one before."""
        if not self._event.is_set():
            if until_s == _NEVER_S:  # a scope of its own costs as much as the wait
                await self._event.wait()
            else:
                with anyio.CancelScope(deadline=until_s):
                    await self._event.wait()
        self._event = anyio.Event()


class Notice:
    """`give` lets everybody go on who waits at that moment."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def give(self) -> None:
        given, self._event = self._event, anyio.Event()
        given.set()

    async def wait(self) -> None:
        """Return when `give` is next called."""
        await self._event.wait()
