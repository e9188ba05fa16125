"""Reading a log: regions of whole batches, and offsets by time."""

from __future__ import annotations

from typing import NamedTuple

from trioq._native import posix
from trioq._native.batch import BatchHeader, last_edge, locate_in_file, peek
from trioq.errors import CorruptMessage
from trioq.record.batch import max_timestamp as batch_max_timestamp
from trioq.record.batch import offset_for_timestamp as batch_offset_for_timestamp
from trioq.storage.batch_scan import batch_edge
from trioq.storage.open_files import SharedFile
from trioq.storage.segment import Segment
from trioq.storage.segments import BatchPlace, Segments
from trioq.types import FileRegion

REMEMBERED_EDGES = 8
HEADERS_BYTES = 8192
"""Behind an indexed batch all headers up to the next entry but the last begin within as much."""


class TimestampedOffset(NamedTuple):
    """A record found by time."""

    offset: int
    timestamp: int
    leader_epoch: int


class Edges:
    """Where the last few written groups ended: readers at the tail ask for just these offsets."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[int, tuple[Segment, int]] = {}

    def add(self, offset: int, segment: Segment) -> None:
        """The batch that starts, or will start, with `offset` is at the segment's end."""
        places = self._places
        places[offset] = (segment, segment.size)
        if len(places) > REMEMBERED_EDGES:
            del places[next(iter(places))]

    def find(self, offset: int) -> tuple[Segment, int] | None:
        return self._places.get(offset)

    def clear(self) -> None:
        self._places.clear()


class ColdPlace(NamedTuple):
    """Bytes of a file that are not in memory, and are needed before a read can be served."""

    file: SharedFile
    """Not retained for the caller."""

    ranges: tuple[tuple[int, int], ...]
    """(position, length) of each."""


def cold_place(segments: Segments, offset: int, max_bytes: int) -> ColdPlace | None:
    """What `read_region` would have to read from disk to find `offset`, and up to `max_bytes` of
    what it would find; None when that is in memory, or is not known without reading.

    Asks the kernel, but never the disk. Raises OSError.
    """
    segment = segments.items[segments.number_at(offset)]
    shared, index = segment.shared, segment.offsets
    if shared is None or index is None:
        return None
    start, following = index.around(offset - segment.base_offset)
    fd = shared.fileno()
    if posix.resident(fd, start, HEADERS_BYTES) and (
        following < 0 or posix.resident(fd, following, HEADERS_BYTES)
    ):
        return None
    rest = () if following < 0 else ((following, max(HEADERS_BYTES, max_bytes)),)
    return ColdPlace(shared, ((start, HEADERS_BYTES), *rest))


def read_region(
    segments: Segments,
    edges: Edges | None,
    offset: int,
    max_bytes: int,
    *,
    end_offset: int,
    written_end_offset: int,
    min_one_batch: bool,
) -> FileRegion | None:
    """Whole batches from the one that holds `offset` to `end_offset`, within one segment.

    Raises OSError, CorruptMessage.
    """
    found = _start(segments, edges, offset)
    if found is None:
        return None
    segment, position = found
    shared, size = segments.log_dir.indexes.file_and_size(segment)
    limit = _limit(segments, edges, segment, size, end_offset, written_end_offset)
    if limit <= position:
        return None
    if limit - position > max_bytes:
        limit = _cut(segments, segment, shared.fileno(), position, position + max_bytes)
        if limit <= position:
            if not min_one_batch:
                return None
            limit = position + locate_in_file(shared.fileno(), position, size, offset)[1]
    shared.retain()
    return FileRegion(shared, position, limit - position)


def _start(segments: Segments, edges: Edges | None, offset: int) -> tuple[Segment, int] | None:
    if edges is not None:
        edge = edges.find(offset)
        if edge is not None:
            segment, position = edge
            if position < segment.size:
                return edge
            number = segments.number_at(offset)
            if segments.items[number] is not segment:
                return segments.items[number], 0
            return None
    place = segments.locate(offset)
    return None if place is None else (place.segment, place.position)


def _limit(
    segments: Segments,
    edges: Edges | None,
    segment: Segment,
    size: int,
    end_offset: int,
    written_end_offset: int,
) -> int:
    """Where in `segment` the batches that lie below `end_offset` end."""
    if end_offset >= written_end_offset:
        return size
    edge = None if edges is None else edges.find(end_offset)
    if edge is not None and edge[0] is segment:
        return edge[1]
    last = segments.items[-1]
    if segment is not last:
        following = segments.items[segments.number_at(segment.base_offset) + 1]
        if end_offset >= following.base_offset:
            return size
    place = segments.locate(end_offset)
    return place.position if place is not None and place.segment is segment else size


def _cut(segments: Segments, segment: Segment, fd: int, position: int, limit: int) -> int:
    """The greatest batch edge <= `limit`, from the edge `position` on."""
    indexed = segments.log_dir.indexes.offsets_of(segment, segments.interval_bytes)
    hop = max(position, indexed.floor_position(limit))
    try:
        return last_edge(fd, hop, limit)
    except CorruptMessage:
        if hop == position:
            raise
        return last_edge(fd, position, limit)


def find_timestamp(
    segments: Segments, target_ms: int, start_offset: int, end_offset: int
) -> TimestampedOffset | None:
    """The first record in offsets [start, end) whose timestamp is >= `target_ms`.

    Raises OSError, CorruptMessage, InvalidRecord (a compressed batch that cannot be opened).
    """
    for segment in segments.items[segments.number_at(start_offset) :]:
        if segment.base_offset >= end_offset:
            return None
        place = _first_not_before(segments, segment, target_ms)
        if place is None:
            continue
        for position, header in segments.scan_from(place):
            if header.base_offset >= end_offset:
                return None
            if header.max_timestamp < target_ms or header.last_offset < start_offset:
                continue
            batch = segments.read_batch(BatchPlace(segment, position, header.size_bytes))
            record = batch_offset_for_timestamp(batch, target_ms, start_offset=start_offset)
            if record is not None:
                if record[0] >= end_offset:
                    return None
                return TimestampedOffset(*record, header.leader_epoch)
    return None


def _first_not_before(segments: Segments, segment: Segment, target_ms: int) -> BatchPlace | None:
    """Where to start looking in `segment`; None when all of it is earlier."""
    indexes = segments.log_dir.indexes
    times = indexes.times_of(segment, segments.interval_bytes)
    if segment.max_timestamp < target_ms:
        return None
    start = BatchPlace(segment, 0, 0)
    timestamp, relative_offset = times.floor(target_ms - 1)
    if timestamp < 0:
        return start
    last_offset = segment.base_offset + relative_offset
    place = segments.locate(last_offset)
    if place is not None and place.segment is segment:
        edge = batch_edge(segments.file(segment), place.position)
        if edge is not None and edge[1:] == (last_offset, timestamp):
            return place
    # The entry does not hold. Search everything this time; the next search finds it mended.
    indexes.rebuild(segment, segments.interval_bytes)
    return start


def find_max_timestamp(
    segments: Segments, start_offset: int, end_offset: int
) -> TimestampedOffset | None:
    """The first record in offsets [start, end) with the greatest timestamp; as `find_timestamp`."""
    best: tuple[int, BatchPlace, BatchHeader] | None = None
    for number in range(segments.number_at(start_offset), len(segments.items)):
        segment = segments.items[number]
        if segment.base_offset >= end_offset:
            break
        found = _max_batch(segments, segment, start_offset, end_offset)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None or best[0] < 0:
        return None
    _, place, header = best
    record = batch_max_timestamp(segments.read_batch(place))
    if record is None:
        return None
    return TimestampedOffset(*record, header.leader_epoch)


def _has_records(segments: Segments, place: BatchPlace) -> bool:
    """False for a batch of which compaction left the header, with its former timestamp."""
    return peek(segments.read_batch(place)).record_count > 0


def _max_batch(
    segments: Segments, segment: Segment, start_offset: int, end_offset: int
) -> tuple[int, BatchPlace, BatchHeader] | None:
    """The first batch of `segment` in [start, end) with the greatest timestamp."""
    segments.log_dir.indexes.times_of(segment, segments.interval_bytes)
    start = BatchPlace(segment, 0, 0)
    if segment.max_timestamp >= 0 and segment.max_timestamp_offset < end_offset:
        place = segments.locate(segment.max_timestamp_offset)
        if place is not None and place.segment is segment and _has_records(segments, place):
            start = place
    best = None
    for position, header in segments.scan_from(start):
        if header.base_offset >= end_offset:
            break
        if header.last_offset < start_offset or header.record_count == 0:
            continue
        if best is None or header.max_timestamp > best[0]:
            place = BatchPlace(segment, position, header.size_bytes)
            best = (header.max_timestamp, place, header)
        if header.max_timestamp == segment.max_timestamp:
            break
    return best
