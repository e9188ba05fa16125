"""The embedded backend: one SQLite file, for the one broker that owns the data directory.

Write-ahead log with synchronous=FULL: a write that was answered survives a power cut. The
file is locked exclusively while open. One thread owns the connection and takes requests
in order; what is waiting when it comes round shares one transaction and so one
fdatasync, each multi in a savepoint of its own. Nothing is answered before the commit.

A full disk refuses writes and nothing else. If a commit fails otherwise, nobody can know
what the disk holds: its writers get OutcomeUnknown, the session is LOST, and the store
takes nothing more.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from trioq.metastore import store
from trioq.metastore.node_table import NodeTable, Touched, open_table
from trioq.metastore.session import Session, SessionState

_MAX_GROUP: Final = 256
"""Requests that may share one transaction."""

_CLOSE_PATIENCE_S: Final = 10.0


class _Request:
    """One call on its way through the store's thread; the thread owns it until answered."""

    __slots__ = ("abandoned", "answered", "error", "result", "touched", "work", "writes")

    def __init__(self, work: Callable[[NodeTable, Touched], object], *, writes: bool) -> None:
        self.work = work
        self.writes = writes
        self.abandoned = False
        self.result: object = None
        self.error: Exception | None = None
        self.touched = Touched()
        self.answered = trio.Event()


class _LocalWatch(store.Watch):
    """A watch of the embedded store: a flag and who sleeps on it."""

    __slots__ = ("_close", "_event", "_session")

    def __init__(self, session: Session, close: Callable[[_LocalWatch], None]) -> None:
        self._session = session
        self._close = close
        self._event = trio.Event()

    def touch(self) -> None:
        self._event.set()

    async def changed(self) -> None:
        await self._event.wait()
        if self._session.state is SessionState.LOST:
            raise store.SessionLost("the metastore is closed")
        self._event = trio.Event()

    def close(self) -> None:
        self._close(self)


class EmbeddedMetastore(store.Metastore):
    """The metastore in a SQLite file; made by `open_embedded`, which closes it."""

    def __init__(self, path: Path) -> None:
        """Must be called in the event loop; `start` opens the file."""
        self.path = path
        self.session = Session()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._loop = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(
            target=self._thread_main, name="trioq-metastore", daemon=True
        )
        self._opened = trio.Event()
        self._open_error: Exception | None = None
        self._thread_ended = trio.Event()
        self._closing = False
        self._node_watches: dict[str, set[_LocalWatch]] = {}
        self._child_watches: dict[str, set[_LocalWatch]] = {}

    # ---- the interface, on the event loop's thread

    async def get_many(self, paths: Sequence[str]) -> list[store.Node | None]:
        for path in paths:
            store.check_path(path)
        result = await self._submit(lambda table, _: table.get_many(paths), writes=False)
        assert isinstance(result, list)
        return result

    async def children(self, path: str) -> list[str]:
        store.check_path(path)
        result = await self._submit(lambda table, _: table.children(path), writes=False)
        assert isinstance(result, list)
        return result

    async def read_tree(self, path: str) -> dict[str, store.Node]:
        store.check_path(path)
        result = await self._submit(lambda table, _: table.read_tree(path), writes=False)
        assert isinstance(result, dict)
        return result

    async def multi(self, operations: Sequence[store.Operation]) -> list[store.Result]:
        store.check_multi(operations)
        result = await self._submit(
            lambda table, touched: table.apply(operations, touched), writes=True
        )
        assert isinstance(result, list)
        return result

    async def bulk(self, groups: Iterable[Sequence[store.Operation]]) -> None:
        taken = tuple(groups)
        for operations in taken:
            store.check_multi(operations)

        def apply_all(table: NodeTable, touched: Touched) -> None:
            for operations in taken:
                table.apply(operations, touched)

        await self._submit(apply_all, writes=True)

    def watch_node(self, path: str) -> store.Watch:
        return self._watch(self._node_watches, path)

    def watch_children(self, path: str) -> store.Watch:
        return self._watch(self._child_watches, path)

    # ---- opening and closing

    async def start(self) -> None:
        """Open the file, creating it if need be. Raises StartupError, saying what to do."""
        self._thread.start()
        with trio.CancelScope(shield=True):
            await self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    async def close(self) -> None:
        """Finish what was submitted, close the file, end the session; idempotent.

        A disk that has stopped answering is waited for ten seconds, then left.
        """
        self._closing = True
        self._requests.put(None)
        with trio.move_on_after(_CLOSE_PATIENCE_S, shield=True):
            await self._thread_ended.wait()
        self._lose_session()

    # ---- between loop and thread

    async def _submit(
        self, work: Callable[[NodeTable, Touched], object], *, writes: bool
    ) -> object:
        if self._closing or self.session.state is SessionState.LOST:
            raise store.SessionLost("the metastore is closed")
        request = _Request(work, writes=writes)
        self._requests.put(request)
        try:
            await request.answered.wait()
        except trio.Cancelled:
            request.abandoned = True
            raise
        if request.error is not None:
            raise request.error
        return request.result

    def _watch(self, watches: dict[str, set[_LocalWatch]], path: str) -> store.Watch:
        store.check_path(path)

        def close(watch: _LocalWatch) -> None:
            of_path = watches.get(path)
            if of_path is not None:
                of_path.discard(watch)
                if not of_path:
                    del watches[path]

        watch = _LocalWatch(self.session, close)
        watches.setdefault(path, set()).add(watch)
        if self.session.state is SessionState.LOST:
            watch.touch()
        return watch

    def _answer(self, requests: Sequence[_Request], *, lost: bool) -> None:
        """On the loop's thread: wake the callers, then the watches. Must not raise."""
        if lost:
            self._lose_session()
        for request in requests:
            if request.error is None:
                for path in request.touched.nodes:
                    for watch in self._node_watches.get(path, ()):
                        watch.touch()
                for path in request.touched.parents:
                    for watch in self._child_watches.get(path, ()):
                        watch.touch()
            request.answered.set()

    def _lose_session(self) -> None:
        self.session.move(SessionState.LOST)
        for watches in (self._node_watches, self._child_watches):
            for of_path in watches.values():
                for watch in of_path:
                    watch.touch()

    # ---- the thread

    def _call_loop(self, call: Callable[[], None]) -> None:
        try:
            self._loop.run_sync_soon(call)
        except trio.RunFinishedError:
            return  # the loop is gone, and with it everyone who waited

    def _thread_main(self) -> None:
        try:
            table = open_table(self.path)
        except Exception as error:  # noqa: BLE001  whoever waits for the opening is told any reason
            self._open_error = error
            self._call_loop(self._opened.set)
            self._call_loop(self._thread_ended.set)
            return
        self._call_loop(self._opened.set)
        broken: Exception | None = None
        group: list[_Request] | None = None
        try:
            while (group := self._next_group()) is not None:
                if broken is None:
                    broken = _run_group(table, group)
                else:
                    _fail(group, store.SessionLost(str(broken)))
                self._call_loop(partial(self._answer, group, lost=broken is not None))
        finally:
            table.close()
            self._call_loop(partial(self._end, group or ()))

    def _end(self, unanswered: Sequence[_Request]) -> None:
        """On the loop's thread: the store's thread is gone; nobody may wait for it."""
        _fail(unanswered, store.SessionLost("the metastore's thread ended"))
        self._answer(unanswered, lost=True)
        self._thread_ended.set()

    def _next_group(self) -> list[_Request] | None:
        """Wait for a request, take what else is there; None when the store was closed."""
        request = self._requests.get()
        group: list[_Request] = []
        while request is not None:
            if not request.abandoned:
                group.append(request)
            if len(group) == _MAX_GROUP or self._requests.empty():
                return group
            request = self._requests.get()
        if not group:
            return None
        self._requests.put(None)  # answer these first, then meet the end again
        return group


def _run_group(table: NodeTable, group: Sequence[_Request]) -> Exception | None:
    """Run requests in one transaction; sets results. Returns what broke the store, if so."""
    if not any(request.writes for request in group):
        for request in group:
            _read(table, request)
        return None
    try:
        table.begin()
        for request in group:
            if request.writes:
                _write(table, request)
            else:
                _read(table, request)
    except sqlite3.Error as error:
        table.rollback()
        _fail(group, _not_written(table, error))
        return None
    try:
        table.commit()
    except sqlite3.Error as error:
        table.rollback()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            # without its last page in the file, the transaction is none
            _fail(group, _not_written(table, error))
            return None
        broken = store.OutcomeUnknown(
            f"{table.path}: the commit failed ({error}); restart the broker"
        )
        _fail(group, broken)
        return broken
    return None


def _not_written(table: NodeTable, error: sqlite3.Error) -> store.MetastoreUnavailable:
    return store.MetastoreUnavailable(f"{table.path}: {error}; nothing was written")


def _read(table: NodeTable, request: _Request) -> None:
    try:
        request.result = request.work(table, request.touched)
    except store.NodeError as error:
        request.error = error
    except sqlite3.Error as error:
        request.error = store.MetastoreUnavailable(f"{table.path}: {error}")


def _write(table: NodeTable, request: _Request) -> None:
    """Run one multi in its savepoint; sqlite3.Error is the whole group's failure."""
    table.savepoint()
    try:
        request.result = request.work(table, request.touched)
    except store.NodeError as error:
        request.error = error
    table.end_savepoint(keep=request.error is None)


def _fail(group: Sequence[_Request], error: Exception) -> None:
    for request in group:
        request.result = None
        request.error = error


@asynccontextmanager
async def open_embedded(path: Path) -> AsyncIterator[EmbeddedMetastore]:
    """Open the store in file `path`, and close it on leaving.

    Ephemeral nodes of earlier sessions are gone when this returns. Raises StartupError
    when the file is locked by another process, damaged, or of a newer trioq.
    """
    metastore = EmbeddedMetastore(path)
    await metastore.start()
    try:
        yield metastore
    finally:
        await metastore.close()
