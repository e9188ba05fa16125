"""What the threads of a compaction do first: read batches, and map the last offset of each key."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trioq._native import compact
from trioq._native.batch import HEADER_BYTES, locate_in_file, peek
from trioq.errors import InvalidRecord, TrioqError
from trioq.record.batch import record_bytes
from trioq.record.layout import RECORD_COUNT_AT
from trioq.storage.batch_scan import CHUNK_BYTES
from trioq.storage.compaction_plan import CompactionPlan, Source
from trioq.storage.disk import DiskFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from trioq.storage.log import Log

SECRET_BYTES: Final = 16


class UncleanableLog(TrioqError):
    """A log cannot be compacted as it is; the message says where and why."""


class CompactionVoid(TrioqError):
    """The log was cut, closed or retained meanwhile, or compaction is to stop: nothing is lost."""


@dataclass(slots=True)
class CompactionTotals:
    """What a compaction did so far."""

    passes: int = 0
    read_bytes: int = 0
    before_bytes: int = 0
    after_bytes: int = 0
    kept_records: int = 0
    dropped_records: int = 0
    unreadable_batches: int = 0


class Work:
    """What the threads' side of a compaction needs: the disk, and whether to go on.

    `pace` is called with the bytes that were read or written, and sleeps as a limit asks; it
    raises CompactionVoid when compaction is to stop. `max_entries` bounds the keys known at once.
    """

    def __init__(
        self, one: Log, *, now_ms: int, max_entries: int, pace: Callable[[int], None]
    ) -> None:
        self._log = one
        self._truncations = one.truncations
        self._pace = pace
        self.disk = one.log_dir.disk
        self.directory = one.segments.directory
        self.interval_bytes = one.config.index_interval_bytes
        self.now_ms = now_ms
        self.delete_horizon_ms = now_ms + one.config.delete_retention_ms
        self.max_entries = max_entries
        self.totals = CompactionTotals()

    @property
    def is_void(self) -> bool:
        """True once the log is no longer what was planned for; any thread."""
        return self._log.failed or self._log.truncations != self._truncations

    def moved(self, size_bytes: int) -> None:
        """So much was read or written. Raises CompactionVoid when there is no use in going on."""
        if self.is_void:
            raise CompactionVoid("the log was cut or closed")
        self._pace(size_bytes)

    def open(self, source: Source) -> DiskFile:
        try:
            return self.disk.open(source.path)
        except FileNotFoundError:
            raise CompactionVoid(f"{source.path} was removed") from None


def read_batches(
    work: Work,
    source: Source,
    start: int,
    take: Callable[[bytes, int], tuple[int, int]],
    take_compressed: Callable[[memoryview], None],
) -> tuple[int, int]:
    """Give the batches of a segment from position `start` on to `take`, a chunk at a time.

    `take` gets a chunk and the position in it, and returns how far it came and why it stopped;
    compressed batches go to `take_compressed`, one by one. Returns the position reached and why
    it ended there: NEED_MORE at the end, FULL.

    Raises OSError, CompactionVoid, and UncleanableLog where the segment is damaged.
    """
    file = work.open(source)
    try:
        wanted = CHUNK_BYTES
        while start < source.size:
            chunk = file.pread(min(wanted, source.size - start), start)
            work.totals.read_bytes += len(chunk)
            work.moved(len(chunk))
            position, stop = take(chunk, 0)
            while stop == compact.COMPRESSED:
                batch = memoryview(chunk)[position : position + peek(chunk, position).size_bytes]
                take_compressed(batch)
                position, stop = take(chunk, position + len(batch))
            start += position
            if stop == compact.FULL:
                return start, stop
            if stop == compact.CORRUPT or (position == 0 and len(chunk) < wanted):
                raise UncleanableLog(f"{source.path} is damaged at position {start}")
            wanted = CHUNK_BYTES if position else 2 * wanted  # a batch larger than the chunk
        return start, compact.NEED_MORE
    finally:
        file.close()


def decompressed(batch: memoryview) -> Buffer | None:
    """The records of a compressed batch; None if they cannot be had."""
    try:
        return record_bytes(batch, peek(batch))
    except InvalidRecord:
        return None


def map_keys(work: Work, plan: CompactionPlan) -> tuple[compact.OffsetMap, int]:
    """The last offset of each key in what is new, and the offset up to which that was mapped.

    Any thread. Raises as `read_batches`.
    """
    dirty = [one for one in plan.sources if one.end_offset > plan.first_dirty_offset]
    start, first_count = _first_dirty(work, dirty[0], plan.first_dirty_offset)
    count = _count_records(work, dirty[0], start)
    for source in dirty[1:]:
        if count > work.max_entries:
            break
        count += _count_records(work, source, 0)
    offsets = compact.OffsetMap(
        min(count, max(work.max_entries, first_count)),
        os.urandom(SECRET_BYTES),
        dirty[0].base_offset,
        plan.end_offset,
    )

    def take_compressed(batch: memoryview) -> None:
        offsets.add_batch(batch, decompressed(batch))

    for source in dirty:
        position, stop = read_batches(
            work,
            source,
            start if source is dirty[0] else 0,
            lambda chunk, position: offsets.add_batches(chunk, position, len(chunk)),
            take_compressed,
        )
        if stop == compact.FULL:
            return offsets, _offset_at(work, source, position)
    return offsets, plan.end_offset


class Mapping:
    """`map_keys` as a step."""

    def __init__(self, work: Work, plan: CompactionPlan) -> None:
        self._work = work
        self._plan = plan
        self._mapped: tuple[compact.OffsetMap, int] | None = None

    def run(self) -> None:
        self._mapped = map_keys(self._work, self._plan)

    def result(self) -> tuple[compact.OffsetMap, int]:
        assert self._mapped is not None, "asked for before it has run"
        return self._mapped


def _first_dirty(work: Work, source: Source, offset: int) -> tuple[int, int]:
    """Position and number of records of the first batch that reaches `offset`."""
    file = work.open(source)
    try:
        position, _ = locate_in_file(file.fileno(), 0, source.size, offset)
        header = file.pread(HEADER_BYTES, position) if position >= 0 else b""
    finally:
        file.close()
    if len(header) < HEADER_BYTES:
        raise UncleanableLog(f"{source.path} holds nothing at offset {offset}")
    return position, int.from_bytes(header[RECORD_COUNT_AT:], "big", signed=True)


def _count_records(work: Work, source: Source, position: int) -> int:
    file = work.open(source)
    try:
        return compact.count_records(file.fileno(), position, source.size)
    finally:
        file.close()


def _offset_at(work: Work, source: Source, position: int) -> int:
    file = work.open(source)
    try:
        return int.from_bytes(file.pread(8, position), "big")
    finally:
        file.close()
