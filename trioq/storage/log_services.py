"""The background services of the log directories, as Trio tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from trioq import logs
from trioq.clock import Clock
from trioq.errors import CorruptMessage, KafkaStorageError
from trioq.storage.compactor import DEFAULT_LIMITS, CompactionLimits, run_compactor
from trioq.storage.disk import Disk
from trioq.storage.log import Log
from trioq.storage.log_dir import Deletion, LogDir
from trioq.storage.log_dir_files import gather_checkpoints, write_gathered
from trioq.storage.strays import stray_age_ms

log = logs.get_logger(__name__)

LOGS_PER_SLICE = 20
SEGMENTS_PER_SLICE = 10
"""Retired by one plain call: four renames each."""
DELETIONS_PER_SLICE = 10


@dataclass(frozen=True, slots=True)
class LogServices:
    """Their intervals; by the names of the broker's configuration."""

    retention_check_interval_ms: int = 300_000
    checkpoint_interval_ms: int = 60_000
    deletion_check_interval_ms: int = 1_000
    producer_id_expiration_ms: int = 86_400_000
    stray_retention_ms: int = -1
    """-1: strays are removed by command only."""
    compaction: CompactionLimits = DEFAULT_LIMITS


async def run_services(
    dirs: Sequence[LogDir],
    services: LogServices,
    clock: Clock,
    task_status: trio.TaskStatus[None],
) -> None:
    """Everything that goes on beside the passes, until cancelled.

    A cancelled service leaves nothing half done: what a thread began is completed.
    """
    async with trio.open_nursery() as services_nursery:
        for log_dir in dirs:
            services_nursery.start_soon(log_dir.writer.run, name=f"log_writer[{log_dir.path}]")
            services_nursery.start_soon(_sync_intervals, log_dir, name="interval_sync")
            services_nursery.start_soon(_checkpoint, log_dir, services, name="checkpoint")
            services_nursery.start_soon(_retain, log_dir, services, clock, name="retention")
            services_nursery.start_soon(
                run_compactor, log_dir, services.compaction, clock, name="compaction"
            )
            services_nursery.start_soon(_remove, log_dir, services, clock, name="removal")
        task_status.started()


async def _sync_intervals(log_dir: LogDir) -> None:
    """flush.policy=interval: ask for a sync of each log when its time has come."""
    while True:
        log_dir.interval_asked = trio.Event()
        if not log_dir.interval_due_s:
            await log_dir.interval_asked.wait()
            continue
        now_s = log_dir.clock.monotonic_s()
        wait_s = min(log_dir.interval_due_s.values()) - now_s
        if wait_s > 0:
            with trio.move_on_after(wait_s):
                await log_dir.interval_asked.wait()
            continue
        for one, due_s in tuple(log_dir.interval_due_s.items()):
            if due_s <= now_s:
                del log_dir.interval_due_s[one]
                log_dir.writer.request_sync(one)
        await trio.lowlevel.checkpoint()


async def _checkpoint(log_dir: LogDir, services: LogServices) -> None:
    """Write the checkpoints now and then, and soon after a log's start was moved."""
    since_ms = 0
    while log_dir.error is None:
        await trio.sleep(services.deletion_check_interval_ms / 1000)
        since_ms += services.deletion_check_interval_ms
        if since_ms < services.checkpoint_interval_ms and not (
            log_dir.start_offsets_changed or log_dir.is_checkpoint_stale
        ):
            continue
        since_ms = 0
        await store_checkpoints(log_dir)


async def store_checkpoints(log_dir: LogDir) -> None:
    """Have the checkpoints on stable storage as they are now, or the directory offline.

    Who comes while they are being written waits, and shares the next writing with all others
    who do. Cancelled: what was begun is completed.
    """
    async with log_dir.checkpoint_turn:
        gathered = gather_checkpoints(log_dir)
        if gathered.documents:
            await _in_thread(log_dir, partial(write_gathered, log_dir, gathered))


async def _retain(log_dir: LogDir, services: LogServices, clock: Clock) -> None:
    """Enforce retention and forget idle producers, a few logs at a time."""
    while log_dir.error is None:
        await trio.sleep(services.retention_check_interval_ms / 1000)
        removed = 0
        for number, one in enumerate(tuple(log_dir.logs)):
            if number % LOGS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
            removed += await _retire_segments(one, clock)
            one.expire_producers(clock.now_ms(), services.producer_id_expiration_ms)
        if removed:
            log.info("segments_removed", log_dir=log_dir.path, segments=removed)


async def _retire_segments(one: Log, clock: Clock) -> int:
    """Enforce retention on one log, some segments at a time; how many there were.

    The log may fail, or be deleted, meanwhile: that was said where it happened. One with damaged
    files keeps what it has.
    """
    retired = 0
    try:
        while count := one.delete_retired_segments(clock.now_ms(), at_most=SEGMENTS_PER_SLICE):
            retired += count
            await trio.lowlevel.checkpoint()
    except KafkaStorageError:
        return retired
    except CorruptMessage as error:
        log.error("retention_failed", log=str(one.topic_partition), error=str(error))
    return retired


async def _remove(log_dir: LogDir, services: LogServices, clock: Clock) -> None:
    """Remove what was renamed, when its time has come."""
    while log_dir.error is None:
        due = log_dir.take_due_deletions(clock.now_ms())
        for start in range(0, len(due), DELETIONS_PER_SLICE):
            # Freeing large files keeps a disk busy: it gets as long a rest after each few.
            began_s = trio.current_time()
            some = due[start : start + DELETIONS_PER_SLICE]
            await _in_thread(log_dir, partial(remove_files, log_dir.disk, some))
            await trio.sleep(trio.current_time() - began_s)
        if services.stray_retention_ms >= 0:
            await _in_thread(
                log_dir,
                partial(
                    remove_strays,
                    log_dir.disk,
                    log_dir.path,
                    clock.now_ms(),
                    services.stray_retention_ms,
                ),
            )
        await trio.sleep(services.deletion_check_interval_ms / 1000)


async def _in_thread(log_dir: LogDir, work: Callable[[], None]) -> None:
    """Run `work` in a thread, to its end; an OSError takes the directory offline."""
    try:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work)
    except OSError as error:
        log_dir.fail(error)


def remove_files(disk: Disk, deletions: Sequence[Deletion]) -> None:
    """Remove renamed files and directories; any thread. Raises OSError."""
    for deletion in deletions:
        if deletion.is_directory:
            disk.remove_tree(deletion.path)
        else:
            disk.unlink(deletion.path)


def remove_strays(disk: Disk, path: str, now_ms: int, retention_ms: int) -> None:
    """Remove strays that were set aside longer ago than `retention_ms`; any thread."""
    for name in disk.list_subdirectories(path):
        age_ms = stray_age_ms(name, now_ms)
        if age_ms is not None and age_ms > retention_ms:
            log.info("stray_removed", path=f"{path}/{name}")
            disk.remove_tree(f"{path}/{name}")
