"""All log directories of a broker: opening, the logs in them, the end of a pass, closing."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from random import Random
from typing import Self

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.errors import KafkaStorageError, StartupError
from trioq.storage.disk import Disk, DiskLock
from trioq.storage.identity import (
    PARTITION_METADATA_FILE,
    CorruptIdentity,
    decode_partition_metadata,
)
from trioq.storage.log import Log
from trioq.storage.log_append import AppendLog
from trioq.storage.log_config import LogConfig
from trioq.storage.log_dir import LogDir
from trioq.storage.log_dir_files import (
    DELETE_SUFFIX,
    open_directory,
    settle_directory,
    write_checkpoints,
)
from trioq.storage.log_services import LogServices, run_services
from trioq.storage.open_files import OpenFiles
from trioq.storage.recovery import recover_log, recover_logs
from trioq.storage.segment import SegmentIndexes
from trioq.storage.segments import Segments
from trioq.storage.strays import Strays
from trioq.types import TopicId, TopicPartition

INDEX_MEMORY_BYTES = 32 << 20

log = logs.get_logger(__name__)


class LogDirs:
    """The storage of one broker; loop thread only, except where a method says otherwise.

    Made by `open`; then `recover` (it does nothing after a clean stop), then logs are asked for
    by `log`. `run` is the service that syncs, writes while a disk stalls, checkpoints and
    enforces retention. `close` comes last, after `run` was cancelled.
    """

    def __init__(self, dirs: list[LogDir], dirty: dict[AppendLog, None], clock: Clock) -> None:
        self.dirs = dirs
        self.dirty = dirty
        """Logs with something staged; `end_pass` writes them."""
        self._clock = clock
        self._logs: dict[TopicPartition, Log] = {}
        self._strays = Strays(dirs, clock)

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        *,
        cluster_id: str,
        node_id: int,
        disk: Disk,
        clock: Clock,
        max_open_files: int = 1000,
        max_unwritten_bytes: int = 64 << 20,
        random: Random | None = None,
        locks: Mapping[str, DiskLock] | None = None,
    ) -> Self:
        """Lock and read the directories; those that cannot be used are offline.

        Args:
            paths: absolute.
            max_open_files: bound of log files open at once, besides those lent to readers.
            max_unwritten_bytes: per directory; see `LogDir.is_backed_up`.
            random: source of the segments' jitter.
            locks: of paths that `lock_directory` locked before; owned here from now on.

        Raises:
            StartupError: a directory is locked, or another cluster's or broker's, or none works.

        """
        dirty: dict[AppendLog, None] = {}
        files = OpenFiles(disk, max_open_files)
        indexes = SegmentIndexes(disk, files, INDEX_MEMORY_BYTES)
        dirs: list[LogDir] = []
        try:
            for path in paths:
                log_dir = LogDir(
                    path.rstrip("/"),
                    disk=disk,
                    clock=clock,
                    files=files,
                    indexes=indexes,
                    max_unwritten_bytes=max_unwritten_bytes,
                    dirty=dirty,
                    random=random or Random(),  # noqa: S311 - spreads rolls, keeps no secret
                )
                log_dir.lock = (locks or {}).get(path)
                dirs.append(log_dir)
                try:
                    open_directory(log_dir, cluster_id=cluster_id, node_id=node_id)
                except OSError as error:
                    log_dir.fail(error)
            _check_usable(dirs)
        except StartupError:
            for log_dir in dirs:
                _unlock(log_dir)
            raise
        return cls(dirs, dirty, clock)

    # ---- recovery ----

    def recover(self, *, threads: int = 8) -> int:
        """Recover every log of the directories that were not stopped cleanly.

        Blocks; before anything else here, from any one thread. Logs progress. Returns how many
        logs there were. A directory that fails goes offline.
        """
        work = [
            (log_dir, topic_partition)
            for log_dir in self.dirs
            if log_dir.error is None and not log_dir.was_clean
            for topic_partition in sorted(log_dir.present)
        ]
        if work:
            recover_logs(work, threads)
        return len(work)

    # ---- logs ----

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs.values())

    def get(self, topic_partition: TopicPartition) -> Log | None:
        """The log if it has been asked for before."""
        return self._logs.get(topic_partition)

    def log(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
        *,
        is_new: bool = False,
    ) -> Log:
        """The log of a partition that this broker hosts: loaded, or new.

        A new log gets its directory with the first write. A directory of the same name that holds
        another topic's id is renamed `.stray` first.

        Args:
            is_new: the partition was created while this broker runs, so that its log is in no
                directory, not even in one that could not be read.

        Raises:
            KafkaStorageError: its directory is offline, or may be in one that is.

        """
        known = self._logs.get(topic_partition)
        if known is not None:
            if known.topic_id == topic_id:
                return known
            raise KafkaStorageError(
                f"{topic_partition} is still open for the topic with id {known.topic_id}"
            )
        log_dir = self._dir_of(topic_partition)
        if log_dir is None:
            log_dir = self._dir_for_new(topic_partition, is_new=is_new)
            loaded = self._new_log(topic_partition, topic_id, config, log_dir)
        elif log_dir.error is not None:
            raise KafkaStorageError(f"{log_dir.path} is offline: {log_dir.error}")
        else:
            try:
                loaded = self._load(topic_partition, topic_id, config, log_dir)
            except OSError as error:
                log_dir.fail(error)
                raise KafkaStorageError(f"{log_dir.path} is offline: {error}") from error
        self._logs[topic_partition] = loaded
        return loaded

    def _dir_of(self, topic_partition: TopicPartition) -> LogDir | None:
        for log_dir in self.dirs:
            if topic_partition in log_dir.present:
                return log_dir
        return None

    def _dir_for_new(self, topic_partition: TopicPartition, *, is_new: bool) -> LogDir:
        """The directory with the fewest partitions."""
        if not is_new and not all(log_dir.is_read for log_dir in self.dirs):
            raise KafkaStorageError(
                f"{topic_partition} may be in a log directory that could not be read"
            )
        online = [log_dir for log_dir in self.dirs if log_dir.error is None]
        if not online:
            raise KafkaStorageError("every log directory is offline")
        return min(online, key=lambda log_dir: len(log_dir.logs))

    def _new_log(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
        log_dir: LogDir,
    ) -> Log:
        segments = Segments(
            log_dir, f"{log_dir.path}/{topic_partition}", config.index_interval_bytes
        )
        return Log(topic_partition, topic_id, config, log_dir, segments)

    def _load(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
        log_dir: LogDir,
    ) -> Log:
        found_id = self._topic_id_in(log_dir, topic_partition)
        if found_id != topic_id:
            self._strays.set_aside(log_dir, topic_partition, found_id)
            return self._new_log(topic_partition, topic_id, config, log_dir)
        segments = Segments(
            log_dir, f"{log_dir.path}/{topic_partition}", config.index_interval_bytes
        )
        recovered = log_dir.recovered.pop(topic_partition, None)
        if recovered is None and not log_dir.was_clean:
            recovered = recover_log(log_dir, topic_partition)
        segments.load()
        end_offset = log_dir.recovery_points.get(topic_partition, -1)
        if recovered is None and segments.exists and end_offset < segments.items[-1].base_offset:
            log.warning("log_without_checkpoint", log=str(topic_partition), action="recovering it")
            recovered = recover_log(log_dir, topic_partition)
            segments.load()
        start_offset = log_dir.log_starts.get(topic_partition, 0)
        if recovered is not None:
            start_offset, end_offset = recovered.log_start_offset, recovered.log_end_offset
        elif segments.exists:
            start_offset = max(start_offset, segments.items[0].base_offset)
        else:
            start_offset = end_offset = 0
        return Log(
            topic_partition,
            topic_id,
            config,
            log_dir,
            segments,
            log_start_offset=start_offset,
            log_end_offset=end_offset,
            high_watermark=log_dir.high_watermarks.get(topic_partition, start_offset),
            cleaned_end_offset=log_dir.cleaned_ends.get(topic_partition, 0),
            producers=recovered.producers if recovered is not None and segments.exists else None,
        )

    def _topic_id_in(self, log_dir: LogDir, topic_partition: TopicPartition) -> TopicId | None:
        """The topic id that a partition's directory holds; None if it holds none."""
        path = f"{log_dir.path}/{topic_partition}/{PARTITION_METADATA_FILE}"
        try:
            return decode_partition_metadata(log_dir.disk.read_file(path), path)
        except FileNotFoundError:
            return None
        except CorruptIdentity as error:
            log.warning("partition_metadata_unreadable", error=str(error))
            return None

    def delete(self, topic_partition: TopicPartition, topic_id: TopicId) -> None:
        """Remove a partition's log: renamed at once, its files removed after a delay.

        Nothing happens when there is none of that topic id. A directory that fails goes offline.
        """
        known = self._logs.get(topic_partition)
        if known is None or known.topic_id != topic_id:
            return
        del self._logs[topic_partition]
        log_dir = known.log_dir
        delay_ms = known.config.file_delete_delay_ms
        known.close(clean=False)
        log_dir.forget_partition(topic_partition)
        if log_dir.error is not None or not known.segments.exists:
            return
        unique = f"{topic_partition.topic[:180]}-{topic_partition.partition}.{uuid.uuid4().hex}"
        target = f"{log_dir.path}/{unique}{DELETE_SUFFIX}"
        try:
            log_dir.disk.rename(known.segments.directory, target)
        except OSError as error:
            log_dir.fail(error)
            return
        log_dir.remove_later(target, delay_ms, is_directory=True)

    def set_aside_strays(
        self,
        assigned: Mapping[TopicPartition, TopicId],
        *,
        undecided: Collection[TopicId] = (),
    ) -> list[str]:
        """Rename the directories of partitions that the complete image does not assign here.

        Those of topics that are `undecided`, as not all of their metadata could be read, stay.
        Returns their names. Over 10 % of all: nothing is renamed, they stay where they are,
        unserved, and a line says so.
        """
        return self._strays.set_aside_unassigned(assigned, self._topic_id_in, undecided)

    # ---- the pass ----

    def end_pass(self) -> bool:
        """Write everything staged; True when no memory given to `append` is needed any more."""
        dirty = self.dirty
        if dirty:
            logs = tuple(dirty)
            dirty.clear()
            for one in logs:
                one.write_group()
        for log_dir in self.dirs:  # noqa: SIM110  no generator: it runs at the end of every pass
            if log_dir.unwritten_bytes:
                return False
        return True

    @property
    def is_backed_up(self) -> bool:
        """True while a disk stalls and the queue for it is full: appends there are refused."""
        return any(log_dir.is_backed_up for log_dir in self.dirs)

    # ---- service and end ----

    async def run(
        self,
        services: LogServices | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Sync, write what was handed over, checkpoint, retain, remove; until cancelled."""
        await run_services(self.dirs, services or LogServices(), self._clock, task_status)

    def checkpoint(self) -> None:
        """Write the checkpoints that changed; blocks for a few syncs. A dir may go offline."""
        for log_dir in self.dirs:
            if log_dir.error is None:
                try:
                    write_checkpoints(log_dir)
                except OSError as error:
                    log_dir.fail(error)

    def close(self, *, clean: bool = True) -> None:
        """Settle and sync all logs, checkpoint, leave the clean-shutdown mark, unlock.

        Blocks; from any thread, when nothing else uses the logs any more. `clean=False` leaves
        everything as a crash of the process would. A second call does nothing.
        """
        for log_dir in self.dirs:
            if log_dir.lock is None:
                continue
            if clean and log_dir.error is None:
                try:
                    settle_directory(log_dir)
                except OSError as error:
                    log_dir.fail(error)
            for one in tuple(log_dir.logs):
                one.close(clean=False)
            _unlock(log_dir)
        self._logs.clear()


def _check_usable(dirs: Sequence[LogDir]) -> None:
    if all(log_dir.error is not None for log_dir in dirs):
        reasons = "; ".join(f"{log_dir.path}: {log_dir.error}" for log_dir in dirs)
        raise StartupError(f"no log directory can be used: {reasons}")
    identities = [one.directory_id for one in dirs if one.directory_id is not None]
    if len(set(identities)) != len(identities):
        raise StartupError("two log directories hold the same directory.id: one is a copy")


def _unlock(log_dir: LogDir) -> None:
    if log_dir.lock is not None:
        log_dir.lock.release()
        log_dir.lock = None
