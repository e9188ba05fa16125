"""Opening and closing a log directory: lock, identity, clean-shutdown mark, checkpoints, names."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from trioq import logs
from trioq.errors import CorruptMessage, KafkaStorageError, StartupError
from trioq.storage.checkpoints import (
    CLEANER_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    RECOVERY_POINT_FILE,
    CorruptCheckpoint,
    decode_offsets,
    encode_offsets,
)
from trioq.storage.disk import Disk, DiskLock
from trioq.storage.identity import META_PROPERTIES_FILE, CorruptIdentity, LogDirIdentity
from trioq.storage.log_dir import LogDir
from trioq.storage.log_writer import SyncRequest
from trioq.types import TopicPartition

LOCK_FILE = ".lock"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"
CLEAN_SHUTDOWN_MARK = b'{"version":0,"brokerEpoch":-1}'
DELETE_SUFFIX = "-delete"
STRAY_SUFFIX = ".stray"
MAX_PARTITION_DIGITS = 10
FEW_SYNCS = 8
SYNC_THREADS = 16

log = logs.get_logger(__name__)


def partition_of(name: str) -> TopicPartition | None:
    """The partition that a directory name stands for; None for other names."""
    topic, dash, number = name.rpartition("-")
    if not dash or not topic or not number.isascii() or not number.isdigit():
        return None
    if len(number) > MAX_PARTITION_DIGITS or str(int(number)) != number:
        return None
    return TopicPartition(topic, int(number))


def lock_directory(disk: Disk, path: str) -> DiskLock:
    """Make the directory if need be, and lock it.

    Raises StartupError, naming the process that holds it, and OSError.
    """
    missing = []
    parent = path
    while parent and not disk.exists(parent):
        missing.append(parent)
        parent = parent.rpartition("/")[0]
    disk.make_directory(path)
    for made in missing:
        disk.fsync_dir(made.rpartition("/")[0] or "/")
    return disk.lock(f"{path}/{LOCK_FILE}")


def open_directory(log_dir: LogDir, *, cluster_id: str, node_id: int) -> None:
    """Lock the directory, check whose it is, take its mark away and read what it holds.

    Raises StartupError (locked, or another cluster's or broker's) and OSError.
    """
    disk, path = log_dir.disk, log_dir.path
    if log_dir.lock is None:
        log_dir.lock = lock_directory(disk, path)
    names = disk.list_subdirectories(path)
    log_dir.present = {found for name in names if (found := partition_of(name)) is not None}
    log_dir.directory_id = _check_identity(log_dir, cluster_id, node_id)
    for name in names:
        if name.endswith(DELETE_SUFFIX) and partition_of(name) is None:
            log_dir.remove_later(f"{path}/{name}", 0, is_directory=True)
    has_mark = log_dir.was_clean = disk.exists(f"{path}/{CLEAN_SHUTDOWN_FILE}")
    log_dir.recovery_points = _read_checkpoint(log_dir, RECOVERY_POINT_FILE)
    log_dir.log_starts = _read_checkpoint(log_dir, LOG_START_FILE)
    log_dir.high_watermarks = _read_checkpoint(log_dir, HIGH_WATERMARK_FILE)
    log_dir.cleaned_ends = _read_checkpoint(log_dir, CLEANER_FILE)
    if has_mark:  # whatever the checkpoints are worth: it says nothing of the next stop
        disk.unlink(f"{path}/{CLEAN_SHUTDOWN_FILE}")
        disk.fsync_dir(path)
    log_dir.is_read = True


def _check_identity(log_dir: LogDir, cluster_id: str, node_id: int) -> uuid.UUID:
    path = f"{log_dir.path}/{META_PROPERTIES_FILE}"
    try:
        identity = LogDirIdentity.decode(log_dir.disk.read_file(path), path)
    except FileNotFoundError:
        if log_dir.present:
            raise StartupError(
                f"{log_dir.path} holds {len(log_dir.present)} partitions but no "
                f"{META_PROPERTIES_FILE}, so nobody can say whose they are: restore the file, or "
                "start on an empty directory"
            ) from None
        identity = LogDirIdentity(cluster_id, node_id, uuid.uuid4())
        log_dir.disk.replace_file(path, identity.encode())
        return identity.directory_id
    except CorruptIdentity as error:
        raise StartupError(str(error)) from None
    for what, there, ours in (
        ("cluster", identity.cluster_id, cluster_id),
        ("node", identity.node_id, node_id),
    ):
        if there != ours:
            raise StartupError(
                f"{log_dir.path} belongs to {what} {there}, this broker to {what} {ours}: start "
                "it on its own directory, or with the metadata store that goes with this one"
            )
    return identity.directory_id


def _read_checkpoint(log_dir: LogDir, name: str) -> dict[TopicPartition, int]:
    path = f"{log_dir.path}/{name}"
    try:
        return decode_offsets(log_dir.disk.read_file(path), path)
    except FileNotFoundError:
        return {}
    except CorruptCheckpoint as error:
        log.warning("checkpoint_ignored", error=str(error), consequence="logs are recovered")
        log_dir.was_clean = False
        return {}


class Checkpoints(NamedTuple):
    """What the checkpoint files of a directory are to hold, as of one moment."""

    number: int
    """Counts the times they were gathered: a later state has a greater one."""
    documents: list[tuple[str, bytes]]
    """(path, content) of those that changed."""


def gather_checkpoints(log_dir: LogDir, *, everything: bool = False) -> Checkpoints:
    """The checkpoints that changed since they were last gathered, or all; loop thread only.

    What is gathered has to be written: it counts as being on disk from now on.
    """
    recovery_points = dict(log_dir.recovery_points)
    log_starts = dict(log_dir.log_starts)
    high_watermarks = dict(log_dir.high_watermarks)
    cleaned_ends = dict(log_dir.cleaned_ends)
    for one in log_dir.logs:
        if one.segments.exists and not one.failed:
            recovery_points[one.topic_partition] = one.recovery_point
            high_watermarks[one.topic_partition] = one.high_watermark
            log_starts[one.topic_partition] = one.log_start_offset
            if one.cleaned_end_offset:
                cleaned_ends[one.topic_partition] = one.cleaned_end_offset
            else:
                cleaned_ends.pop(one.topic_partition, None)
    everything = everything or log_dir.is_checkpoint_stale
    log_dir.start_offsets_changed = log_dir.is_checkpoint_stale = False
    documents = []
    for name, before, now in (
        (LOG_START_FILE, log_dir.log_starts, log_starts),
        (RECOVERY_POINT_FILE, log_dir.recovery_points, recovery_points),
        (HIGH_WATERMARK_FILE, log_dir.high_watermarks, high_watermarks),
        (CLEANER_FILE, log_dir.cleaned_ends, cleaned_ends),
    ):
        if everything or now != before:
            documents.append((f"{log_dir.path}/{name}", encode_offsets(now)))
            before.clear()
            before.update(now)
    log_dir.checkpoint_number += 1
    return Checkpoints(log_dir.checkpoint_number, documents)


def write_checkpoints(log_dir: LogDir) -> None:
    """Write the checkpoints that changed, durably, on the calling thread. Raises OSError."""
    write_gathered(log_dir, gather_checkpoints(log_dir))


def write_gathered(log_dir: LogDir, gathered: Checkpoints) -> None:
    """Replace each file by its new content, durably; any thread. Raises OSError.

    One writer at a time, and no file by a state older than the one it has: who gathers first
    may come last to write.
    """
    written = log_dir.checkpoints_written
    with log_dir.checkpoint_lock:
        for path, content in gathered.documents:
            if written.get(path, 0) < gathered.number:
                log_dir.disk.replace_file(path, content)
                log_dir.disk.fault_point("checkpoint.written")
                written[path] = gathered.number


def settle_directory(log_dir: LogDir) -> None:
    """Write and sync all there is, then the checkpoints, then, last, the clean-shutdown mark.

    Blocks. Raises OSError; a log that fails takes the directory offline, and there is no mark. Nor
    is there one when a log's files turn out to be damaged: the next start shall look at them.
    """
    writer = log_dir.writer
    syncs: list[SyncRequest] = []
    damaged = 0
    while writer.run_round():
        pass
    for one in tuple(log_dir.logs):
        while one.is_borrowing and not one.write_group():
            writer.run_round()
        if log_dir.error is None and not one.failed:
            try:
                sync = one.settle()
            except CorruptMessage as error:
                damaged += 1
                log.error("log_not_settled", log=str(one.topic_partition), error=str(error))
                continue
            except KafkaStorageError:
                continue  # offline now, which was said
            if sync is not None:
                syncs.append(sync)
        if len(syncs) >= log_dir.files.limit // 2:
            _sync_all(log_dir, syncs)
            syncs = []
    _sync_all(log_dir, syncs)
    if damaged or log_dir.error is not None or any(one.failed for one in log_dir.logs):
        return
    # Logs that nobody asked for are as recovery left them.
    for topic_partition, recovered in log_dir.recovered.items():
        log_dir.recovery_points[topic_partition] = recovered.log_end_offset
        log_dir.log_starts[topic_partition] = recovered.log_start_offset
    write_gathered(log_dir, gather_checkpoints(log_dir, everything=True))
    log_dir.disk.fault_point("close.checkpointed")
    log_dir.disk.replace_file(f"{log_dir.path}/{CLEAN_SHUTDOWN_FILE}", CLEAN_SHUTDOWN_MARK)


def _sync_all(log_dir: LogDir, syncs: list[SyncRequest]) -> None:
    """Execute and complete sync requests, many at once where there are many. Raises OSError."""
    try:
        if len(syncs) < FEW_SYNCS:
            for sync in syncs:
                sync.execute(log_dir.disk)
        else:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only when stopping

            with ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="sync") as pool:
                for _ in pool.map(lambda sync: sync.execute(log_dir.disk), syncs):
                    pass
        for sync in syncs:
            sync.log.sync_completed(sync)
    finally:
        for sync in syncs:
            sync.release()
