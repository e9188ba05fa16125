"""Which sockets are ready: epoll on Linux, kqueue on macOS, behind one small class.

The poller's own descriptor becomes readable when anything in it is ready, so that one
Trio task can wait for all of them with `trio.lowlevel.wait_readable`.
"""

from __future__ import annotations

import select
import sys
from typing import Generic, Protocol, TypeVar

READABLE = 1
WRITABLE = 4
BROKEN = 8 | 16
"""Error or hang-up; reported whatever was asked for."""

_MOST_EVENTS = 1024  # of one poll by kqueue

Owner = TypeVar("Owner")


class Poller(Protocol[Owner]):
    """Descriptors with the interest in each, and the object each belongs to.

    An event names the owner that was registered when it was polled, never the bare
    descriptor: a descriptor that is closed and used again has another owner, so an event
    kept for a later pass cannot reach the wrong connection.
    """

    def fileno(self) -> int:
        """Becomes readable when `poll` has something."""
        ...

    def change(self, fd: int, owner: Owner, old: int, new: int) -> None:
        """Go from interest `old` to `new`, each a sum of READABLE and WRITABLE.

        0 takes the descriptor out: a muted socket that stayed in would report a hang-up
        without end. It must be taken out before it is closed.
        """
        ...

    def poll(self, wait_s: float = 0.0, keeps_lock: bool = False) -> list[tuple[Owner, int]]:
        """(owner, READABLE | WRITABLE | BROKEN) of what is ready.

        Blocks for up to `wait_s` seconds (microseconds count) while nothing is; it does not
        wait when that is 0, and on Linux keeps the interpreter lock then, and for all of the
        wait with `keeps_lock`: nothing else in the process runs Python meanwhile.
        """
        ...

    @property
    def lock_wait_s(self) -> float:
        """How long the last wait without the interpreter lock had to wait for it afterwards.

        Always 0 where the system's poll does not tell.
        """
        ...

    def close(self) -> None: ...


if sys.platform == "linux":
    from trioq._native.ready import ReadyOwners

    class EpollPoller(ReadyOwners[Owner]):
        """The poller over epoll, level triggered."""

        __slots__ = ("_epoll",)

        def __init__(self) -> None:
            self._epoll = select.epoll()
            super().__init__(self._epoll.fileno())

        def fileno(self) -> int:
            return self._epoll.fileno()

        def change(self, fd: int, owner: Owner, old: int, new: int) -> None:
            if old == new:
                return
            if new == 0:
                self._epoll.unregister(fd)
                del self.owners[fd]
            elif old == 0:
                self._epoll.register(fd, new)
                self.owners[fd] = owner
            else:
                self._epoll.modify(fd, new)

        def close(self) -> None:
            self._epoll.close()

    def open_poller() -> Poller[Owner]:
        """The poller of this system."""
        return EpollPoller()

else:

    class KqueuePoller(Generic[Owner]):
        """The poller over kqueue, level triggered."""

        __slots__ = ("_kqueue", "_owners")

        lock_wait_s = 0.0

        def __init__(self) -> None:
            self._kqueue = select.kqueue()
            self._owners: dict[int, Owner] = {}

        def fileno(self) -> int:
            return self._kqueue.fileno()

        def change(self, fd: int, owner: Owner, old: int, new: int) -> None:
            changes = []
            for bit, event_filter in (
                (READABLE, select.KQ_FILTER_READ),
                (WRITABLE, select.KQ_FILTER_WRITE),
            ):
                if (old ^ new) & bit:
                    flags = select.KQ_EV_ADD if new & bit else select.KQ_EV_DELETE
                    changes.append(select.kevent(fd, event_filter, flags))
            if changes:
                self._kqueue.control(changes, 0)
            if new:
                self._owners[fd] = owner
            else:
                self._owners.pop(fd, None)

        def poll(
            self,
            wait_s: float = 0.0,
            keeps_lock: bool = False,  # noqa: ARG002  kqueue always gives it away
        ) -> list[tuple[Owner, int]]:
            masks: dict[int, int] = {}
            for event in self._kqueue.control(None, _MOST_EVENTS, wait_s):
                bit = READABLE if event.filter == select.KQ_FILTER_READ else WRITABLE
                masks[event.ident] = masks.get(event.ident, 0) | bit
            return [(self._owners[fd], mask) for fd, mask in masks.items()]

        def close(self) -> None:
            self._kqueue.close()

    def open_poller() -> Poller[Owner]:
        """The poller of this system."""
        return KqueuePoller()
