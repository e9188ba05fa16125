"""One log directory: what its logs share, and how it goes offline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from trioq import logs
from trioq._native.log_tail import DirtyLogs
from trioq.clock import Clock
from trioq.errors import RequestTimedOut, TrioqError
from trioq.storage.disk import Disk, DiskLock
from trioq.storage.log_writer import LogWriter
from trioq.storage.open_files import OpenFiles
from trioq.storage.segment import SegmentIndexes
from trioq.types import TopicPartition

if TYPE_CHECKING:
    from uuid import UUID

    from trioq.storage.log import Log
    from trioq.storage.log_append import AppendLog
    from trioq.storage.recovery import RecoveredLog

BACKLOG_PATIENCE_S: Final = 10.0
"""A disk that wrote nothing for so long is not waited for: producers are told to try again."""

LEAST_SYNCED_FILES: Final = 4

log = logs.get_logger(__name__)


class DiskBacklog(TrioqError):
    """The disk stalls and the queue for it is full: try again when `call_when_room` calls."""

    def __init__(self, log_dir: LogDir) -> None:
        super().__init__(f"the disk of {log_dir.path} stalls and its queue is full")
        self.log_dir = log_dir


class Deletion(NamedTuple):
    """A renamed file or directory that is removed when its time has come."""

    due_ms: int
    path: str
    is_directory: bool


class LogDir(DirtyLogs):
    """The shared side of the logs in one directory; loop thread only.

    An OSError while writing, syncing or reading takes the directory offline for good (until the
    broker starts again): its logs fail, all others go on.
    """

    __slots__ = (
        "_backlog_since_s",
        "_room_callbacks",
        "checkpoint_lock",
        "checkpoint_number",
        "checkpoint_turn",
        "checkpoints_written",
        "cleaned_ends",
        "clock",
        "deletions",
        "directory_id",
        "disk",
        "error",
        "files",
        "high_watermarks",
        "indexes",
        "interval_asked",
        "interval_due_s",
        "is_checkpoint_stale",
        "is_read",
        "lock",
        "log_starts",
        "logs",
        "max_unwritten_bytes",
        "path",
        "present",
        "random",
        "recovered",
        "recovery_points",
        "start_offsets_changed",
        "was_clean",
        "writer",
    )

    def __init__(
        self,
        path: str,
        *,
        disk: Disk,
        clock: Clock,
        files: OpenFiles,
        indexes: SegmentIndexes,
        max_unwritten_bytes: int,
        dirty: dict[AppendLog, None],
        random: Random,
    ) -> None:
        self.path = path
        self.disk = disk
        self.clock = clock
        self.files = files
        self.indexes = indexes
        self.writer = LogWriter(
            disk, self.fail, self._round_completed, max(LEAST_SYNCED_FILES, files.limit // 2)
        )
        self.logs: dict[Log, None] = {}
        self.dirty = dirty
        self.interval_due_s: dict[AppendLog, float] = {}
        """Logs with flush.policy=interval and unsynced data, and when (monotonic) it is due."""
        self.interval_asked: trio.Event | None = None
        self.deletions: list[Deletion] = []
        self.unwritten_bytes = 0
        self.max_unwritten_bytes = max_unwritten_bytes
        self.error: OSError | None = None
        self.start_offsets_changed = False
        self.random = random
        # What log_dirs.py read when it opened the directory, and keeps up to date.
        self.lock: DiskLock | None = None
        self.directory_id: UUID | None = None
        self.was_clean = False
        self.is_read = False
        self.present: set[TopicPartition] = set()
        """Partitions that have a directory here."""
        self.recovered: dict[TopicPartition, RecoveredLog] = {}
        """What recovery found and nobody has asked for yet."""
        # The checkpoints, as they are on disk.
        self.is_checkpoint_stale = False
        """They name partitions that are gone: to be rewritten before those names are used again."""
        self.recovery_points: dict[TopicPartition, int] = {}
        self.log_starts: dict[TopicPartition, int] = {}
        self.high_watermarks: dict[TopicPartition, int] = {}
        self.cleaned_ends: dict[TopicPartition, int] = {}
        # Their writers, of which there may be several: see log_dir_files.write_gathered.
        self.checkpoint_number = 0
        self.checkpoints_written: dict[str, int] = {}
        self.checkpoint_lock = threading.Lock()
        self.checkpoint_turn = trio.Lock()
        self._backlog_since_s: float | None = None
        """Since when appends have met a full queue and the disk has written nothing."""
        self._room_callbacks: list[Callable[[], None]] = []

    def ask_interval_sync(self, one: AppendLog, due_s: float) -> None:
        """Have the log synced at `due_s` (monotonic), unless that is planned already."""
        if one not in self.interval_due_s:
            self.interval_due_s[one] = due_s
            if self.interval_asked is not None:
                self.interval_asked.set()

    @property
    def is_backed_up(self) -> bool:
        """True while the disk stalls and the queue for it is full: take no more appends."""
        return self.writer.is_threaded and self.unwritten_bytes > self.max_unwritten_bytes

    def refuse_append(self) -> None:
        """An append has met the full queue.

        Raises DiskBacklog while the disk goes on writing, RequestTimedOut once it has written
        nothing for BACKLOG_PATIENCE_S.
        """
        now_s = self.clock.monotonic_s()
        if self._backlog_since_s is None:
            self._backlog_since_s = now_s
        if now_s - self._backlog_since_s >= BACKLOG_PATIENCE_S:
            raise RequestTimedOut(
                f"the disk of {self.path} stalls: it took nothing for {BACKLOG_PATIENCE_S:.0f} s"
            )
        raise DiskBacklog(self)

    def call_when_room(self, callback: Callable[[], None]) -> None:
        """Call once, by a plain call, when the queue has room or the directory went offline."""
        self._room_callbacks.append(callback)

    def _round_completed(self) -> None:
        self._backlog_since_s = None
        if self._room_callbacks and not self.is_backed_up:
            callbacks, self._room_callbacks = self._room_callbacks, []
            for callback in callbacks:
                callback()

    def fail(self, error: OSError) -> None:
        """Go offline: every log here fails and tells whoever waits. Later calls do nothing."""
        if self.error is not None:
            return
        self.error = error
        log.error(
            "log_dir_offline",
            log_dir=self.path,
            error=str(error),
            partitions=len(self.logs),
            consequence="its partitions answer KAFKA_STORAGE_ERROR until the broker is restarted",
        )
        self.interval_due_s.clear()
        for one in tuple(self.logs):
            one.fail()
        for one in tuple(self.logs):
            one.tell_progress()
        self._round_completed()

    def remove_later(self, path: str, delay_ms: int, *, is_directory: bool = False) -> None:
        """Remove a renamed file or directory after `delay_ms`, or when the broker starts again."""
        self.deletions.append(Deletion(self.clock.now_ms() + delay_ms, path, is_directory))

    def forget_partition(self, topic_partition: TopicPartition) -> None:
        """Its directory has been renamed: nothing that was known of it holds any longer."""
        self.present.discard(topic_partition)
        self.recovered.pop(topic_partition, None)
        for offsets in (
            self.recovery_points,
            self.log_starts,
            self.high_watermarks,
            self.cleaned_ends,
        ):
            if offsets.pop(topic_partition, None) is not None:
                self.is_checkpoint_stale = True

    def take_due_deletions(self, now_ms: int) -> list[Deletion]:
        """The deletions whose time has come, no longer held here."""
        due = [deletion for deletion in self.deletions if deletion.due_ms <= now_ms]
        if due:
            self.deletions = [one for one in self.deletions if one.due_ms > now_ms]
        return due
