"""One segment: a log file and its two sparse indexes, named by the offset that it starts at."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from trioq._native.batch import BatchHeader, locate_in_file
from trioq._native.log_tail import SegmentTail
from trioq.errors import CorruptMessage
from trioq.storage.batch_scan import BatchScan, batch_edge
from trioq.storage.disk import Disk, DiskFile
from trioq.storage.offset_index import ENTRY_BYTES, OffsetIndex
from trioq.storage.open_files import OpenFiles, SharedFile
from trioq.storage.time_index import TimeIndex

if TYPE_CHECKING:
    from trioq._native.replica_run import ReplicaRun

LOG_SUFFIX = ".log"
OFFSET_INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
SNAPSHOT_SUFFIX = ".snapshot"
TXN_INDEX_SUFFIX = ".txnindex"
DELETED_SUFFIX = ".deleted"
FILE_SUFFIXES = (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)

MAX_RELATIVE_OFFSET = 2**31 - 1


def file_name(base_offset: int, suffix: str) -> str:
    """Kafka's name for a file of the segment that starts at `base_offset`."""
    return f"{base_offset:020d}{suffix}"


class Segment(SegmentTail):
    """A log file with its indexes; loop thread only.

    Only the last segment of a log, the active one, is written. `size` is the length of what was
    written with success (-1: not asked yet), `synced_size` how much of it is on stable storage.
    Indexes are loaded at first use. The greatest timestamp, and the last offset of the first batch
    that has it, are valid once `is_open_for_append` or once asked of a sealed segment.
    """

    __slots__ = (
        "allocated_bytes",
        "created_ms",
        "directory",
        "is_open_for_append",
        "offsets",
        "pinned",
        "roll_jitter_ms",
        "shared",
        "times",
    )

    def __init__(self, directory: str, base_offset: int, *, size: int = -1) -> None:
        self.directory = directory
        self.base_offset = base_offset
        self.size = size
        self.synced_size = size
        self.allocated_bytes = 0
        self.offsets: OffsetIndex | None = None
        self.times: TimeIndex | None = None
        self.bytes_since_index = 0
        self.max_timestamp = -1
        self.max_timestamp_offset = -1
        self.first_timestamp = -1
        self.created_ms = 0
        self.roll_jitter_ms = 0
        self.is_open_for_append = False
        self.shared: SharedFile | None = None
        self.pinned: SharedFile | None = None

    @property
    def log_path(self) -> str:
        return self.path(LOG_SUFFIX)

    def path(self, suffix: str) -> str:
        return f"{self.directory}/{file_name(self.base_offset, suffix)}"

    def begin(self, now_ms: int, jitter_ms: int) -> None:
        """Make this the empty, active segment."""
        self.size = self.synced_size = 0
        self.offsets = OffsetIndex()
        self.times = TimeIndex()
        self.created_ms = now_ms
        self.roll_jitter_ms = jitter_ms
        self.is_open_for_append = True

    def _index(self, last_offset: int) -> None:
        """Called for the batch at `size` when an index entry is due."""
        assert self.offsets is not None
        assert self.times is not None
        self.offsets.append(last_offset - self.base_offset, self.size)
        self.times.maybe_append(self.max_timestamp, self.max_timestamp_offset - self.base_offset)

    def add_run(self, run: ReplicaRun, position: int, end: int, interval_bytes: int) -> int:
        """Account for [position, end) of the run, just written at `size`; the offset behind it."""
        assert self.offsets is not None
        assert self.times is not None
        end_offset, offsets, times = run.account(
            self, position, end, interval_bytes, self.times.last()[0]
        )
        self.offsets.extend(offsets)
        self.times.extend(times)
        return end_offset

    def is_full(
        self, size_bytes: int, last_offset: int, segment_bytes: int, index_bytes: int
    ) -> bool:
        """True if a batch of that size and last offset has to go to a new segment."""
        assert self.offsets is not None
        return self.size > 0 and (
            self.size + size_bytes > segment_bytes
            or last_offset - self.base_offset > MAX_RELATIVE_OFFSET
            or (self.offsets.entries + 1) * ENTRY_BYTES > index_bytes
        )

    def is_aged(self, max_timestamp: int, now_ms: int, segment_ms: int) -> bool:
        """True if a batch of that timestamp has to go to a new segment for the age of this one.

        As in Kafka, age is counted in record time from the first batch on; in the broker's time
        where records have none.
        """
        if self.size == 0:
            return False
        if self.first_timestamp >= 0 and max_timestamp >= 0:
            age_ms = max_timestamp - self.first_timestamp
        else:
            age_ms = now_ms - self.created_ms
        return age_ms > segment_ms - self.roll_jitter_ms

    def pin(self, files: OpenFiles) -> None:
        """Keep the file open until it is synced: a descriptor that is closed may lose an error."""
        if self.pinned is None:
            self.pinned = files.file_of(self)
            self.pinned.retain()

    def unpin(self) -> None:
        """Undo `pin`; nothing happens if it was not done."""
        if self.pinned is not None:
            pinned, self.pinned = self.pinned, None
            pinned.release()

    # ---- derived state from the log file ----

    def rebuild(self, file: DiskFile, size: int, interval_bytes: int) -> None:
        """Make the indexes and timestamps anew from the first `size` bytes, all of them sound."""
        self.size = 0
        self.offsets = OffsetIndex()
        self.times = TimeIndex()
        self.bytes_since_index = 0
        self.max_timestamp = self.max_timestamp_offset = self.first_timestamp = -1
        end_offset = self.base_offset
        scan = BatchScan(file, 0, size, check_crc=False)
        for position, header in scan:
            reason = self.misplaced(header, end_offset)
            if reason is not None:
                raise CorruptMessage(f"{self.log_path} at position {position}: {reason}")
            self.add(header.size_bytes, header.last_offset, header.max_timestamp, interval_bytes)
            end_offset = header.next_offset
        if scan.valid_end != size:
            raise CorruptMessage(
                f"{self.log_path} holds no whole batch at position {scan.valid_end} of {size}"
            )

    def misplaced(self, header: BatchHeader, end_offset: int) -> str | None:
        """What is wrong with a batch here after all below `end_offset`; no CRC covers offsets."""
        base_offset = header.base_offset
        if base_offset < end_offset:
            return f"offset {base_offset} after {end_offset - 1}"
        if base_offset + header.last_offset_delta - self.base_offset > MAX_RELATIVE_OFFSET:
            return f"offset {base_offset} in a segment that starts at {self.base_offset}"
        return None

    def seal_times(self) -> None:
        """Have the time index end with the segment's greatest timestamp."""
        assert self.times is not None
        self.times.maybe_append(self.max_timestamp, self.max_timestamp_offset - self.base_offset)

    @property
    def index_paths(self) -> tuple[str, str]:
        """The two index files."""
        return self.path(OFFSET_INDEX_SUFFIX), self.path(TIME_INDEX_SUFFIX)

    def write_indexes(self, disk: Disk) -> None:
        """Write both index files, not synced."""
        assert self.offsets is not None
        assert self.times is not None
        disk.write_file(self.path(OFFSET_INDEX_SUFFIX), self.offsets.data)
        disk.write_file(self.path(TIME_INDEX_SUFFIX), self.times.data)


class SegmentIndexes:
    """Loads the indexes of segments when they are needed; keeps those of sealed ones in a bound.

    What comes from an index file is checked against the log before it is believed: the batch at
    an entry's position must end with the entry's offset. A file that fails is rebuilt.
    """

    __slots__ = ("_disk", "_files", "_loaded", "_loaded_bytes", "max_bytes")

    def __init__(self, disk: Disk, files: OpenFiles, max_bytes: int) -> None:
        self._disk = disk
        self._files = files
        self._loaded: OrderedDict[Segment, int] = OrderedDict()
        self._loaded_bytes = 0
        self.max_bytes = max_bytes

    def offsets_of(self, segment: Segment, interval_bytes: int) -> OffsetIndex:
        """The offset index, from memory, its file, or the log. Raises OSError, CorruptMessage."""
        if segment.offsets is None:
            self._load(segment, interval_bytes)
            assert segment.offsets is not None
        elif segment in self._loaded:
            self._loaded.move_to_end(segment)
        return segment.offsets

    def times_of(self, segment: Segment, interval_bytes: int) -> TimeIndex:
        """The time index; as `offsets_of`."""
        self.offsets_of(segment, interval_bytes)
        assert segment.times is not None
        return segment.times

    def open_for_append(self, segment: Segment, interval_bytes: int) -> None:
        """Prepare the last segment of a log that was loaded from disk for its next batch."""
        if segment.is_open_for_append:
            return
        self.offsets_of(segment, interval_bytes)
        assert segment.offsets is not None
        self.forget(segment, keep=True)
        count = segment.offsets.entries
        segment.bytes_since_index = segment.size
        if count:
            segment.bytes_since_index -= segment.offsets.entry(count - 1)[1]
        if segment.size:
            edge = batch_edge(self._files.file_of(segment).file, 0)
            segment.first_timestamp = -1 if edge is None else edge.max_timestamp
        segment.is_open_for_append = True

    def forget(self, segment: Segment, *, keep: bool = False) -> None:
        """Stop counting a segment's indexes, and drop them unless `keep`."""
        self._loaded_bytes -= self._loaded.pop(segment, 0)
        if not keep:
            segment.offsets = segment.times = None

    def file_and_size(self, segment: Segment) -> tuple[SharedFile, int]:
        """The segment's open file, lent, and the length of its log."""
        shared = self._files.file_of(segment)
        if segment.size < 0:
            segment.size = segment.synced_size = shared.file.size()
        return shared, segment.size

    def rebuild(self, segment: Segment, interval_bytes: int) -> None:
        """Make the indexes anew from the log and write them."""
        shared, size = self.file_and_size(segment)
        try:
            segment.rebuild(shared.file, size, interval_bytes)
        except CorruptMessage:
            segment.offsets = segment.times = None  # half an index is none
            raise
        finally:
            segment.size = size
        segment.seal_times()
        segment.write_indexes(self._disk)
        self.count(segment)

    def _load(self, segment: Segment, interval_bytes: int) -> None:
        shared, size = self.file_and_size(segment)
        try:
            offset_data = self._disk.read_file(segment.path(OFFSET_INDEX_SUFFIX))
            time_data = self._disk.read_file(segment.path(TIME_INDEX_SUFFIX))
        except FileNotFoundError:
            self.rebuild(segment, interval_bytes)
            return
        offsets, times = OffsetIndex(offset_data), TimeIndex(time_data)
        is_torn = len(offset_data) != len(offsets.data) or len(time_data) != len(times.data)
        segment.offsets = offsets
        segment.times = times
        if is_torn or not self._is_sound(segment, shared.file, size):
            self.rebuild(segment, interval_bytes)
            return
        segment.max_timestamp, relative_offset = times.last()
        segment.max_timestamp_offset = segment.base_offset + relative_offset
        self.count(segment)

    def _is_sound(self, segment: Segment, file: DiskFile, size: int) -> bool:
        """Cheap checks of what was loaded; single entries are checked when used."""
        offsets, times = segment.offsets, segment.times
        assert offsets is not None
        assert times is not None
        if size == 0:
            return not offsets.entries and not times.entries
        if offsets.entries and not entry_holds(
            segment, file, size, offsets.entry(offsets.entries - 1)
        ):
            return False
        if not times.is_ordered():
            return False
        timestamp, relative_offset = times.last()
        if timestamp < 0:  # sound only where records have no timestamps
            edge = batch_edge(file, 0)
            return edge is not None and edge.max_timestamp < 0
        floor = offsets.floor(relative_offset)
        if floor[1] >= 0 and not entry_holds(segment, file, size, floor):
            return False
        target = segment.base_offset + relative_offset
        try:
            position, _ = locate_in_file(file.fileno(), max(0, floor[1]), size, target)
        except CorruptMessage:
            return False
        edge = batch_edge(file, position) if position >= 0 else None
        if edge is None or edge[1:] != (target, timestamp):
            return False
        # A file that lost its end lacks what came last: compare with the end of the log.
        start = offsets.entry(offsets.entries - 1)[1] if offsets.entries else 0
        scan = BatchScan(file, max(start, position), size, check_crc=False)
        return all(header.max_timestamp <= timestamp for _, header in scan)

    def count(self, segment: Segment) -> None:
        """Count the loaded indexes of a sealed segment, and drop others beyond the bound."""
        if segment.is_open_for_append:
            return
        assert segment.offsets is not None
        assert segment.times is not None
        self._loaded_bytes -= self._loaded.pop(segment, 0)
        size = len(segment.offsets.data) + len(segment.times.data)
        self._loaded[segment] = size
        self._loaded_bytes += size
        while self._loaded_bytes > self.max_bytes and len(self._loaded) > 1:
            self.forget(next(iter(self._loaded)))


def entry_holds(segment: Segment, file: DiskFile, size: int, entry: tuple[int, int]) -> bool:
    """True if the batch at the entry's position is there and ends with the entry's offset."""
    relative_offset, position = entry
    if relative_offset < 0 or not 0 <= position < size:
        return False
    edge = batch_edge(file, position)
    return edge is not None and edge.last_offset == segment.base_offset + relative_offset
