"""Compacting one log: of each key the last record stays. The rules are in _native/compact.pyi.

A pass maps the keys of the range that is new since the last compaction, as much of it as fits
into memory, and then rewrites the segments from the log's start to the end of that range, a group
of them at a time. The active segment, and what is not synced or not below the last stable offset,
is left alone. Offsets are kept, so that the log gets holes, but never between two segments.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Final

from trioq._native import compact
from trioq._native.batch import peek
from trioq.record.compression import Codec, compress
from trioq.storage.batch_scan import CHUNK_BYTES
from trioq.storage.compaction_map import (
    CompactionVoid,
    Mapping,
    UncleanableLog,
    Work,
    decompressed,
    read_batches,
)
from trioq.storage.compaction_plan import Source, grouped, plan_compaction
from trioq.storage.disk import DiskFile
from trioq.storage.offset_index import OffsetIndex
from trioq.storage.segment import (
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
    Segment,
    file_name,
)
from trioq.storage.segment_swap import CLEANED_SUFFIX, SWAP_SUFFIX
from trioq.storage.time_index import TimeIndex

if TYPE_CHECKING:
    from trioq.storage.log import Log

MAX_SEGMENT_BYTES: Final = 2**31 - 1

Steps = Generator[Callable[[], None], None, None]
"""What is to be run in a thread, one after the other; see `compaction_steps`."""


class GroupCleaning:
    """Writing the segment that a group of segments becomes; any one thread.

    Nothing is written until there is a difference, so that a segment that stays as it is costs
    reading only.
    """

    def __init__(
        self,
        work: Work,
        group: tuple[Source, ...],
        offsets: compact.OffsetMap,
        map_end_offset: int,
        last_offsets: dict[int, int],
    ) -> None:
        self._work = work
        self.group = group
        self.cleaned: Segment | None = None
        """The result; None until it is there, or when the segment is to stay as it is."""
        self.path = f"{work.directory}/{file_name(group[0].base_offset, LOG_SUFFIX)}"
        self._file: DiskFile | None = None
        self._filter = compact.BatchFilter(
            offsets,
            map_end_offset=map_end_offset,
            group_end_offset=group[-1].end_offset,
            last_offsets=last_offsets,
            now_ms=work.now_ms,
            delete_horizon_ms=work.delete_horizon_ms,
            base_offset=group[0].base_offset,
            index_interval_bytes=work.interval_bytes,
        )
        self._written = 0

    def run(self) -> None:
        """Filter, write and sync. Raises as `read_batches`, and InvalidRecord never."""
        try:
            if len(self.group) > 1:
                self._begin()
            for source in self.group:
                read_batches(self._work, source, 0, self._take, self._take_compressed)
            if self._file is not None:
                self._finish(self._file)
        finally:
            if self._file is not None:
                self._file.close()

    def _take(self, chunk: bytes, position: int) -> tuple[int, int]:
        came = self._filter.add_batches(chunk, position, len(chunk))
        self._write()
        return came

    def _take_compressed(self, batch: memoryview) -> None:
        kept = self._filter.open_batch(batch, decompressed(batch))
        if kept is not None:
            self._filter.close_batch(compress(Codec(peek(batch).codec), kept))
        self._write()

    def _write(self) -> None:
        output = self._filter.take_output()
        if self._filter.size > MAX_SEGMENT_BYTES:
            raise UncleanableLog(f"{self.path} would grow beyond {MAX_SEGMENT_BYTES} bytes")
        if self._file is None:
            if not self._filter.changed_batches:
                self._written += len(output)
                return
            self._begin()
        if output:
            assert self._file is not None
            self._file.pwritev([output], self._written)
            self._written += len(output)
            self._work.moved(len(output))

    def _begin(self) -> None:
        disk = self._work.disk
        self._file = disk.open(self.path + CLEANED_SUFFIX, create=True)
        self._file.truncate(0)
        disk.fault_point("compact.cleaned.begun")
        if self._written:
            self._copy_unchanged(self._file, self._written)

    def _copy_unchanged(self, target: DiskFile, size: int) -> None:
        """What was read so far is the same in the one segment of the group."""
        file = self._work.open(self.group[0])
        try:
            position = 0
            while position < size:
                data = file.pread(min(CHUNK_BYTES, size - position), position)
                if not data:
                    raise UncleanableLog(f"{self.group[0].path} ends at {position}")
                target.pwritev([data], position)
                position += len(data)
                self._work.moved(2 * len(data))
        finally:
            file.close()

    def _finish(self, file: DiskFile) -> None:
        disk = self._work.disk
        file.fdatasync()
        segment = Segment(self._work.directory, self.group[0].base_offset, size=self._filter.size)
        offset_data, time_data = self._filter.index_data()
        segment.offsets = OffsetIndex(offset_data)
        segment.times = TimeIndex(time_data)
        segment.first_timestamp = self._filter.first_timestamp
        segment.max_timestamp = self._filter.max_timestamp
        segment.max_timestamp_offset = self._filter.max_timestamp_offset
        segment.seal_times()
        for suffix, data in (
            (OFFSET_INDEX_SUFFIX, segment.offsets.data),
            (TIME_INDEX_SUFFIX, segment.times.data),
        ):
            path = f"{segment.path(suffix)}{CLEANED_SUFFIX}"
            disk.write_file(path, data)
            disk.sync_file(path)
        disk.fault_point("compact.cleaned.synced")
        self.cleaned = segment

    def account(self) -> None:
        """Add to the totals."""
        totals = self._work.totals
        totals.before_bytes += sum(source.size for source in self.group)
        totals.after_bytes += self._filter.size
        totals.kept_records += self._filter.kept_records
        totals.dropped_records += self._filter.dropped_records
        totals.unreadable_batches += self._filter.unreadable_batches


def compaction_steps(one: Log, work: Work) -> Steps:
    """Compact a log as far as it may be: yields what is to be run in a thread, one by one.

    Everything between the yields happens on the loop thread, where this generator is driven. An
    error of a step is to be thrown into it.

    Raises OSError, KafkaStorageError, CorruptMessage, CompactionVoid, UncleanableLog.
    """
    while (plan := plan_compaction(one, work.now_ms)) is not None:
        last_offsets = one.producers.last_offsets()
        mapping = Mapping(work, plan)
        yield mapping.run
        offsets, map_end_offset = mapping.result()
        sources = [source for source in plan.sources if source.base_offset < map_end_offset]
        for group in grouped(sources, one.config.segment_bytes):
            cleaning = GroupCleaning(work, group, offsets, map_end_offset, last_offsets)
            yield from _clean_group(one, work, cleaning)
        work.totals.passes += 1
        one.cleaned_end_offset = map_end_offset
        one.log_dir.start_offsets_changed = True  # have the checkpoint written soon
        if map_end_offset == plan.end_offset:
            return


def _clean_group(one: Log, work: Work, cleaning: GroupCleaning) -> Steps:
    segments = one.segments
    disk = work.disk
    try:
        yield cleaning.run
        _check_current(one, work, cleaning)
        cleaned = cleaning.cleaned
        if cleaned is None:
            cleaning.account()
            return
        swap_path = cleaning.path + SWAP_SUFFIX
        disk.rename(cleaning.path + CLEANED_SUFFIX, swap_path)
        segments.pending_swap = swap_path
        disk.fault_point("compact.swap.named")
        yield partial(disk.fsync_dir, work.directory)
        disk.fault_point("compact.swap.synced")
        _check_current(one, work, cleaning)
    except (CompactionVoid, UncleanableLog, OSError):
        if not one.failed:
            segments.discard_cleaned(cleaning.path)
        raise
    # From here on there is no way back: what fails now is finished at the next start.
    segments.replace([source.segment for source in cleaning.group], cleaned, one.config)
    one.segments_replaced()
    disk.fault_point("compact.swapped")
    yield partial(disk.fsync_dir, work.directory)
    cleaning.account()


def _check_current(one: Log, work: Work, cleaning: GroupCleaning) -> None:
    """Are the segments of the group still those of the log? Raises CompactionVoid."""
    items = one.segments.items
    first = cleaning.group[0]
    number = one.segments.number_at(first.base_offset)
    current = items[number : number + len(cleaning.group)]
    if work.is_void or current != [source.segment for source in cleaning.group]:
        raise CompactionVoid("the log has other segments by now")


def is_out_of_space(error: OSError) -> bool:
    """A full disk ends a compaction, not the log directory: nothing of the log was touched."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
