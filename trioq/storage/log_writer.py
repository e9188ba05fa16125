"""Writes and syncs of one log directory: inline while the disk is quick, in a thread while not.

A group's bytes are written by a plain call on the loop thread. When recent writes were slow (the
kernel throttles dirty pages), groups are handed to a thread until the queue is empty and writes
are quick again. Syncs (fdatasync, and fsync of directories for new names) always go to the
thread; one round serves every log that asked before it began, and those that ask meanwhile make
up the next one.

The driver is one Trio task, `run`; it alone uses the thread, one round at a time. Tests, and a
broker that stops, drive rounds by `run_round` on their own thread instead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import trio

from trioq._native.log_tail import WriteMode
from trioq.storage.disk import Disk
from trioq.storage.open_files import SharedFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from trioq._native.log_tail import Staged
    from trioq.storage.log_append import AppendLog
    from trioq.storage.segment import Segment

SLOW_WRITE_S = 0.004
"""A write of up to 1 MiB that takes longer is slow; larger ones have this for each started MiB."""
STALLED_WRITE_S = 0.1
RECENT_WRITES = 5
SLOW_OF_RECENT = 3
QUICK_WRITES_TO_RETURN = 32


class WriteWatch:
    """Judges from how long writes took whether the disk stalls; pure."""

    __slots__ = ("_quick_in_a_row", "_recent", "is_stalled")

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=RECENT_WRITES)
        self._quick_in_a_row = 0
        self.is_stalled = False

    def note(self, seconds: float, length: int) -> None:
        """A write of `length` bytes took `seconds`."""
        slow = seconds > SLOW_WRITE_S * math.ceil(length / (1 << 20))
        if self.is_stalled:
            self._quick_in_a_row = 0 if slow else self._quick_in_a_row + 1
        else:
            self._recent.append(slow)
            count = sum(self._recent)
            if count >= SLOW_OF_RECENT or seconds > STALLED_WRITE_S:
                self.is_stalled = True
                self._quick_in_a_row = 0
            if count == 0:
                self._recent.clear()

    @property
    def is_alert(self) -> bool:
        """True while quick writes matter too: the disk stalls, or was slow a few writes ago."""
        return self.is_stalled or bool(self._recent)

    def may_return(self) -> bool:
        """True when enough writes in a row were quick."""
        return self._quick_in_a_row >= QUICK_WRITES_TO_RETURN

    def returned(self) -> None:
        self.is_stalled = False
        self._recent.clear()


@dataclass(slots=True, eq=False)
class GroupWrite:
    """A group on its way through the thread; `file` is retained until it is completed."""

    log: AppendLog
    segment: Segment
    file: SharedFile
    group: list[Staged]
    position: int
    length: int
    is_void: bool = False
    """The log was truncated meanwhile: the bytes went to a file that is no longer its own."""


@dataclass(slots=True, eq=False)
class SyncRequest:
    """What to sync so that everything below `end_offset` is durable; files are retained."""

    log: AppendLog
    truncations: int
    end_offset: int
    parts: list[tuple[Segment, SharedFile, int]]
    """(segment, its file, how many of its bytes will be synced)."""
    indexes: list[Segment]
    """Sealed segments whose index files are to be synced."""
    documents: list[tuple[str, bytes]]
    """(path, content) of small files to replace; their directories are in `directories`."""
    directories: list[str]

    def execute(self, disk: Disk) -> None:
        """Do it; any thread. Raises OSError."""
        for _, shared, _ in self.parts:
            shared.file.fdatasync()
        for segment in self.indexes:
            for path in segment.index_paths:
                disk.sync_file(path)
        if self.log.failed:
            return  # deleted: another log of that name may have the directory by now
        for path, content in self.documents:
            disk.replace_file(path, content, sync=False)
        for path in self.directories:
            disk.fsync_dir(path)

    def release(self) -> None:
        """Give the files back; loop thread, once."""
        for _, shared, _ in self.parts:
            shared.release()


@dataclass(slots=True)
class Round:
    """One trip to the thread. `execute` runs there; everything else on the loop thread."""

    disk: Disk
    writes: list[GroupWrite]
    syncs: list[SyncRequest]
    written: list[tuple[GroupWrite, float]] = field(default_factory=list)
    synced: list[SyncRequest] = field(default_factory=list)
    missed: list[tuple[SyncRequest, FileNotFoundError]] = field(default_factory=list)
    """Syncs that found a file or directory gone: right if the log was deleted meanwhile."""
    error: OSError | None = None

    def execute(self) -> None:
        """Write and sync in order; the first OSError ends the round and is kept in `error`."""
        try:
            for write in self.writes:
                group = cast("list[Buffer]", write.group)
                self.written.append((write, write.file.file.pwritev(group, write.position)))
            for sync in self.syncs:
                try:
                    sync.execute(self.disk)
                except FileNotFoundError as error:
                    self.missed.append((sync, error))
                else:
                    self.synced.append(sync)
        except OSError as error:
            self.error = error


class LogWriter(WriteMode):
    """The write side of one log directory; loop thread only, see the module's docstring.

    `fail` is called with the OSError when writing or syncing failed, after what did succeed was
    told to its logs; `completed` at the end of every round. A round holds about `most_files`
    files open for its syncs; the logs for which there is no room come with the next one.
    """

    __slots__ = (
        "_completed",
        "_disk",
        "_fail",
        "_most_files",
        "_sync_asked",
        "_watch",
        "_work",
        "_writes",
    )

    def __init__(
        self,
        disk: Disk,
        fail: Callable[[OSError], None],
        completed: Callable[[], None] = lambda: None,
        most_files: int = 1000,
    ) -> None:
        self._disk = disk
        self._fail = fail
        self._completed = completed
        self._most_files = most_files
        self._watch = WriteWatch()
        self._writes: list[GroupWrite] = []
        self._sync_asked: dict[AppendLog, None] = {}
        self._work: trio.Event | None = None
        self.is_threaded = self.is_alert = False

    def write(
        self,
        file: SharedFile,
        group: list[Staged] | list[memoryview],
        position: int,
        length: int,
    ) -> None:
        """Write a group inline. Raises OSError."""
        seconds = file.file.pwritev(cast("list[Buffer]", group), position)
        if seconds > SLOW_WRITE_S or self.is_alert:
            self.note_slow(seconds, length)

    def note_slow(self, seconds: float, length: int) -> None:
        """A write of `length` bytes took `seconds`, which matters while the disk is slow."""
        self._watch.note(seconds, length)
        self._choose_mode()

    def hand_over(self, write: GroupWrite) -> None:
        """Have the thread write a group; its log is told by `write_completed`."""
        self._writes.append(write)
        self._wake()

    def request_sync(self, log: AppendLog) -> None:
        """Have the thread sync what the log wrote; it is told by `sync_completed`."""
        self._sync_asked[log] = None
        self._wake()

    def forget(self, log: AppendLog) -> None:
        """The log is closed or gone: it asks for nothing any more."""
        self._sync_asked.pop(log, None)

    @property
    def is_idle(self) -> bool:
        """True when nothing waits for the next round."""
        return not self._writes and not self._sync_asked

    # ---- rounds ----

    def take_round(self) -> Round | None:
        """Everything that waits, as one round; None when nothing does."""
        writes, self._writes = self._writes, []
        syncs = []
        files = 0
        while self._sync_asked and files < self._most_files:
            log = next(iter(self._sync_asked))
            del self._sync_asked[log]
            try:
                sync = log.begin_sync()
            except OSError as error:
                self._fail(error)
                continue
            if sync is not None:
                syncs.append(sync)
                files += len(sync.parts)
        if not writes and not syncs:
            return None
        return Round(self._disk, writes, syncs)

    def complete(self, done: Round) -> None:
        """Tell the logs, after `done.execute` returned."""
        written = [write for write, _ in done.written]
        for write, seconds in done.written:
            self._watch.note(seconds, write.length)
        unwritten = done.writes[len(written) :]
        unsynced = done.syncs[len(done.synced) + len(done.missed) :]
        for write in unwritten:
            write.file.release()
        for sync in unsynced:
            sync.release()
        for write in written:
            write.log.write_completed(write)
            write.file.release()
        self._choose_mode()
        for sync in done.synced:
            sync.log.sync_completed(sync)
            sync.release()
        for sync, error in done.missed:
            if not sync.log.failed:
                self._fail(error)
            sync.release()
        if done.error is not None:
            self._fail(done.error)
        self._completed()

    def run_round(self) -> bool:
        """Take, execute and complete one round on the calling thread; False when there was none."""
        one = self.take_round()
        if one is None:
            return False
        one.execute()
        self.complete(one)
        return True

    async def run(self) -> None:
        """Drive rounds in a thread until cancelled. A round under way is always completed."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            one = self.take_round()
            if one is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(one.execute, limiter=limiter)
                self.complete(one)
                continue
            self._work = trio.Event()
            await self._work.wait()
            self._work = None

    def _wake(self) -> None:
        if self._work is not None:
            self._work.set()

    def _choose_mode(self) -> None:
        if self._watch.is_stalled:
            if self.is_threaded and not self._writes and self._watch.may_return():
                self._watch.returned()
                self.is_threaded = False
            else:
                self.is_threaded = True
        self.is_alert = self._watch.is_alert
