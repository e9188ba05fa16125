"""Watches over a store whose own watches fire once and are lost with the connection.

A path that somebody watches is armed: the store was asked to tell of the next change. It stays so
until the store tells, or the connection breaks. Arming is sent before any later read of the same
connection, so no change after that read is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio

from trioq.metastore import store
from trioq.metastore.session import Session, SessionState


class _PathWatch(store.Watch):
    """One watch of one path: a flag, and who sleeps on it."""

    __slots__ = ("_event", "_path", "_watches")

    def __init__(self, watches: PathWatches, path: str) -> None:
        self._watches = watches
        self._path = path
        self._event = trio.Event()

    def touch(self) -> None:
        self._event.set()

    async def changed(self) -> None:
        await self._event.wait()
        self._watches.check_open()
        self._event = trio.Event()
        self._watches.arm(self._path)

    def close(self) -> None:
        self._watches.remove(self._path, self)


class PathWatches:
    """The watches of one kind (of values, or of children), by path; used on the loop's thread.

    `ask(path)` asks the store to tell, by `fired(path)`, of the next change there; it is called
    while the session is CONNECTED only, and must not raise.
    """

    def __init__(self, session: Session, ask: Callable[[str], None]) -> None:
        self._session = session
        self._ask = ask
        self._by_path: dict[str, set[_PathWatch]] = {}
        self._armed: set[str] = set()

    def watch(self, path: str) -> store.Watch:
        """A new watch; what happens from now on is told."""
        watch = _PathWatch(self, path)
        self._by_path.setdefault(path, set()).add(watch)
        self.arm(path)
        if self._session.state is not SessionState.CONNECTED:
            watch.touch()
        return watch

    def arm(self, path: str) -> None:
        """Have the next change told, unless that is asked for already."""
        if self._session.state is SessionState.CONNECTED and path not in self._armed:
            self._armed.add(path)
            self._ask(path)

    def fired(self, path: str) -> None:
        """The store told of a change, or that it will not tell any more."""
        self._armed.discard(path)
        for watch in self._by_path.get(path, ()):
            watch.touch()

    def connection_lost(self) -> None:
        """What was asked for is forgotten."""
        self._armed.clear()

    def reconnected(self) -> None:
        """Ask again for everything; what was missed meanwhile nobody knows, so all are told."""
        for path in self._by_path:
            self.arm(path)
        self.touch_all()

    def touch_all(self) -> None:
        """Wake everybody, to read again or to learn that the store is closed."""
        for watch in self._all():
            watch.touch()

    def remove(self, path: str, watch: _PathWatch) -> None:
        of_path = self._by_path.get(path)
        if of_path is not None:
            of_path.discard(watch)
            if not of_path:
                del self._by_path[path]

    def check_open(self) -> None:
        """Raise SessionLost once the session has ended."""
        if self._session.state is SessionState.LOST:
            raise store.SessionLost("the metastore's session has ended")

    def _all(self) -> Iterator[_PathWatch]:
        for of_path in self._by_path.values():
            yield from of_path
