"""The service that compacts the logs of one directory, the dirtiest first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq._native.compact import ENTRY_BYTES
from trioq.clock import Clock
from trioq.errors import CorruptMessage, KafkaStorageError, TrioqError
from trioq.storage.compaction import compaction_steps, is_out_of_space
from trioq.storage.compaction_map import CompactionVoid, UncleanableLog, Work
from trioq.storage.compaction_plan import is_due, plan_compaction, roll_overdue
from trioq.storage.log_dir import LogDir

if TYPE_CHECKING:
    from trioq.storage.log import Log

LOGS_PER_SLICE: Final = 20
UNLIMITED: Final = 2**63 - 1

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """What compaction may use, per log directory, and how often it looks for work."""

    backoff_ms: int = 15_000
    dedupe_buffer_bytes: int = 128 << 20
    io_bytes_per_second: int = UNLIMITED


DEFAULT_LIMITS: Final = CompactionLimits()


class Pace:
    """Holds a thread to a rate of bytes per second, and tells it when to stop."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._stop = threading.Event()
        self._started_s = perf_counter()
        self._moved_bytes = 0

    def stop(self) -> None:
        """Have the next call raise; any thread."""
        self._stop.set()

    def __call__(self, size_bytes: int) -> None:
        """So much was read or written: sleep as the rate asks. Raises CompactionVoid."""
        self._moved_bytes += size_bytes
        wait_s = 0.0
        if self._bytes_per_second < UNLIMITED:
            due_s = self._moved_bytes / self._bytes_per_second
            wait_s = max(0.0, due_s - (perf_counter() - self._started_s))
        if self._stop.wait(wait_s) if wait_s else self._stop.is_set():
            raise CompactionVoid("the broker stops")


async def run_compactor(log_dir: LogDir, limits: CompactionLimits, clock: Clock) -> None:
    """Compact what has to be, until cancelled or the directory is offline."""
    left_alone: set[Log] = set()
    """Logs that cannot be compacted: damaged ones, until the broker starts again."""
    while log_dir.error is None:
        left_alone &= log_dir.logs.keys()
        one = await _dirtiest(log_dir, left_alone, clock)
        if one is None or not await _compact(one, left_alone, limits, clock):
            await trio.sleep(limits.backoff_ms / 1000)


async def _dirtiest(log_dir: LogDir, left_alone: set[Log], clock: Clock) -> Log | None:
    """The log that is due and has changed most; overdue ones come first."""
    best: tuple[tuple[bool, float], Log] | None = None
    for number, one in enumerate(tuple(log_dir.logs)):
        if number % LOGS_PER_SLICE == 0:
            await trio.lowlevel.checkpoint()
        if one.failed or one in left_alone or "compact" not in one.config.cleanup_policy:
            continue
        now_ms = clock.now_ms()
        try:
            roll_overdue(one, now_ms)
            plan = plan_compaction(one, now_ms)
        except (CorruptMessage, UncleanableLog) as error:
            _leave_alone(one, left_alone, error)
            continue
        except OSError as error:
            log_dir.fail(error)
            return None
        except KafkaStorageError:
            return None  # the directory went offline, and said so
        if plan is None or not is_due(plan, one.config.min_cleanable_dirty_ratio):
            continue
        urgency = (plan.is_overdue, plan.dirty_ratio)
        if best is None or urgency > best[0]:
            best = (urgency, one)
    return None if best is None else best[1]


async def _compact(one: Log, left_alone: set[Log], limits: CompactionLimits, clock: Clock) -> bool:
    """Compact one log; False when that did not come to its end."""
    pace = Pace(limits.io_bytes_per_second)
    work = Work(
        one,
        now_ms=clock.now_ms(),
        max_entries=limits.dedupe_buffer_bytes // ENTRY_BYTES,
        pace=pace,
    )
    started_s = perf_counter()
    try:
        failure = await _drive(one, work, pace)
        if failure is not None:
            raise failure
    except CompactionVoid as error:
        log.info("compaction_void", log=str(one.topic_partition), reason=str(error))
        return False
    except (CorruptMessage, UncleanableLog) as error:
        _leave_alone(one, left_alone, error)
        return False
    except OSError as error:
        if one.failed:
            return False  # deleted: its directory is gone
        if is_out_of_space(error):
            log.warning("compaction_skipped", log=str(one.topic_partition), reason=str(error))
        else:
            one.log_dir.fail(error)
        return False
    except KafkaStorageError:
        return False
    totals = work.totals
    log.info(
        "log_compacted",
        log=str(one.topic_partition),
        end_offset=one.cleaned_end_offset,
        passes=totals.passes,
        before_bytes=totals.before_bytes,
        after_bytes=totals.after_bytes,
        kept_records=totals.kept_records,
        dropped_records=totals.dropped_records,
        unreadable_batches=totals.unreadable_batches,
        seconds=round(perf_counter() - started_s, 3),
    )
    return True


async def _drive(one: Log, work: Work, pace: Pace) -> OSError | TrioqError | None:
    """Run the steps of a compaction, each in a thread, the rest on the loop; what ended it early.

    Cancelled, it has the thread stop at its next chunk, and leaves nothing half done.
    """
    steps = compaction_steps(one, work)
    failure = None
    async with trio.open_nursery() as watch_nursery:
        watch_nursery.start_soon(_stop_when_cancelled, pace)
        try:
            for step in steps:
                with trio.CancelScope(shield=True):
                    try:
                        await trio.to_thread.run_sync(step)
                    except (OSError, TrioqError) as error:
                        steps.throw(error)
        except (OSError, TrioqError) as error:  # raised here it would come as a group
            failure = error
        watch_nursery.cancel_scope.cancel()
    return failure


async def _stop_when_cancelled(pace: Pace) -> None:
    try:
        await trio.sleep_forever()
    finally:
        pace.stop()


def _leave_alone(one: Log, left_alone: set[Log], error: Exception) -> None:
    left_alone.add(one)
    log.warning(
        "log_not_compacted",
        log=str(one.topic_partition),
        reason=str(error),
        consequence="it is left as it is until the broker is restarted",
    )
