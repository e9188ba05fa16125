"""A log as Partition knows it, kept as a list of batches; and the disk it is on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from trioq._native.log_tail import DirtyLogs, LogTail, WriteMode
from trioq.errors import KafkaStorageError, OffsetOutOfRange
from trioq.storage.epoch_cache import EpochCache
from trioq.storage.log import Appended, Log
from trioq.storage.log_state import LogState


class Batch(NamedTuple):
    base_offset: int
    next_offset: int
    epoch: int
    value: int


class ModelDisk:
    """What is there after a stop: batches, and an old high watermark."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.high_watermark = 0

    @property
    def end_offset(self) -> int:
        return self.batches[-1].next_offset if self.batches else 0


class ModelWriter(WriteMode):
    def __init__(self, request_sync: Callable[[ModelLog], None]) -> None:
        self.request_sync = request_sync


class ModelLogDir(DirtyLogs):
    def __init__(self, clock: Any, request_sync: Callable[[ModelLog], None]) -> None:
        self.clock = clock
        self.writer = ModelWriter(request_sync)


class ModelLog(LogTail):
    """The part of Log that Partition uses. Nothing is compressed, nothing is ever deleted."""

    assign_epoch = LogState.assign_epoch
    epoch_end_offset = LogState.epoch_end_offset
    set_high_watermark = LogState.set_high_watermark
    durable_end_offset = LogState.durable_end_offset
    forget_unborn_epoch = Log.forget_unborn_epoch
    is_borrowing = False

    def __init__(
        self,
        disk: ModelDisk,
        config: Any,
        clock: Any,
        request_sync: Callable[[ModelLog], None],
    ) -> None:
        super().__init__(ModelLogDir(clock, request_sync))
        self.disk = disk
        self.config = config
        self.failed = False
        self.is_damaged = False
        """Its files do not hold what they should: to be copied anew."""
        self.log_start_offset = 0
        self.batches = disk.batches
        self._bases = [batch.base_offset for batch in self.batches]
        end_offset = disk.end_offset
        self.log_end_offset = self.written_end_offset = self.synced_end_offset = end_offset
        self.high_watermark = min(disk.high_watermark, end_offset)
        self.epochs = self._epochs = EpochCache()
        for batch in self.batches:
            self.epochs.observe(batch.epoch, batch.base_offset)
        self._unborn_epoch: tuple[int, int] | None = None
        self._producers = None
        self.on_progress: Any = None
        self.truncations = 0

    @property
    def last_stable_offset(self) -> int:
        return self.high_watermark

    def apply_config(self, config: Any) -> None:
        self.config = config

    # ---- appending ----

    def append(self, batch: Any, _header: object, *, leader_epoch: int, now_ms: int) -> Appended:
        """Stage a batch, given as (value, number of records)."""
        if self.failed:
            raise self.offline_error()
        value, records = batch
        base = self.log_end_offset
        self.log_end_offset = base + records
        staged: list[Any] = self._staged
        staged.append(Batch(base, self.log_end_offset, leader_epoch, value))
        return Appended(base, self.log_end_offset - 1, -1, 0, False)

    def write_group(self) -> None:
        """Write what is staged."""
        for batch in self._staged:
            self._write(batch)
        self._staged.clear()
        self._plan_sync()
        self.tell_progress()

    def _write(self, batch: Batch) -> None:
        assert batch.base_offset == self.written_end_offset
        self.batches.append(batch)
        self._bases.append(batch.base_offset)
        if batch.epoch > self.epochs.latest_epoch:
            self.epochs.assign(batch.epoch, batch.base_offset)
        if self._unborn_epoch is not None and self._unborn_epoch[0] <= self.epochs.latest_epoch:
            self._unborn_epoch = None
        self.written_end_offset = batch.next_offset

    def append_replica(
        self, records: list[Batch], *, leader_epoch: int, gaps_below: int
    ) -> str | None:
        """Batches of another log; checked as far as there is something to check."""
        for batch in records:
            if batch.base_offset != self.written_end_offset:
                return f"a batch at {batch.base_offset}"
            if not self.epochs.latest_epoch <= batch.epoch <= leader_epoch:
                return f"a batch of epoch {batch.epoch}"
            self._write(batch)
        self.log_end_offset = self.written_end_offset
        self._plan_sync()
        self.tell_progress()
        return None

    def first_batch(self, records: list[Batch]) -> tuple[int, int] | None:
        return records[0].base_offset, records[0].next_offset - 1

    def _plan_sync(self) -> None:
        if self.config.flush_policy == "commit":
            self.log_dir.writer.request_sync(self)

    def synced(self, end_offset: int, truncations: int) -> None:
        """A sync that began when the log ended there, after so many truncations, is done."""
        if (
            not self.failed
            and truncations == self.truncations
            and end_offset > self.synced_end_offset
        ):
            self.synced_end_offset = end_offset
            self.tell_progress()

    def fail(self) -> None:
        """The log directory goes offline; what was staged is forgotten."""
        self.failed = True
        self._staged.clear()
        self.log_end_offset = self.written_end_offset
        self.tell_progress()

    def offline_error(self) -> KafkaStorageError:
        return KafkaStorageError("offline")

    def tell_progress(self) -> None:
        if self.on_progress is not None:
            self.on_progress(self)

    # ---- reading ----

    def read(
        self, offset: int, max_bytes: int, *, end_offset: int, min_one_batch: bool
    ) -> list[Batch] | None:
        """At most `max_bytes` batches."""
        if self.failed:
            raise self.offline_error()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange
        first = bisect_right(self._bases, offset) - 1
        last = bisect_left(self._bases, min(end_offset, self.written_end_offset))
        return self.batches[max(first, 0) : min(last, first + max_bytes)] or None

    def below(self, offset: int) -> list[Batch]:
        """All batches that begin below `offset`."""
        return self.batches[: bisect_left(self._bases, offset)]

    def next_offset_from(self, offset: int) -> int:
        return self.batches[bisect_right(self._bases, offset) - 1].next_offset

    # ---- cutting ----

    def truncate_to(self, offset: int) -> None:
        self._staged.clear()
        self.log_end_offset = self.written_end_offset
        if offset >= self.log_end_offset:
            return
        self.truncations += 1
        keep = bisect_right(self._bases, offset) - 1
        del self.batches[keep:], self._bases[keep:]
        end_offset = self.disk.end_offset
        if self._unborn_epoch is not None and self._unborn_epoch[1] > end_offset:
            self._unborn_epoch = None
        self.log_end_offset = self.written_end_offset = end_offset
        self.synced_end_offset = min(self.synced_end_offset, end_offset)
        self.high_watermark = min(self.high_watermark, end_offset)
        self.epochs.truncate_from_end(end_offset)
        self.tell_progress()

    def restart_at(self, offset: int) -> None:
        assert offset == 0, "nothing is ever deleted"
        self.truncate_to(0)
        self.is_damaged = False

    def checkpoint(self) -> None:
        """Keep the high watermark for the next start."""
        self.disk.high_watermark = self.high_watermark

    def lose_power(self, random: Random, may_lose: Callable[[Batch], bool]) -> list[Batch]:
        """The disk after a power cut: anything unsynced may be gone. What is gone is returned."""
        first = len(self.batches)
        synced = bisect_left(self._bases, self.synced_end_offset)
        while first > synced and may_lose(self.batches[first - 1]):
            first -= 1
        keep = random.randint(first, len(self.batches))
        lost = self.batches[keep:]
        del self.disk.batches[keep:]
        return lost
