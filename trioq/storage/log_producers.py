"""The producer state of one log on disk: snapshots, and what the log holds above them."""

from __future__ import annotations

from bisect import insort

from trioq.errors import InvalidRecord
from trioq.record.control import read_end_transaction
from trioq.storage.batch_scan import BatchScan
from trioq.storage.disk import Disk, DiskFile
from trioq.storage.producer_snapshot import CorruptSnapshot
from trioq.storage.producer_state import EndMarker, ProducerState
from trioq.storage.segment import SNAPSHOT_SUFFIX, file_name
from trioq.storage.segments import Segments

RECENT_BYTES = 256 << 10
"""How much of the log's end is read for the windows of its producers."""
NO_END = 1 << 63


def load_producers(segments: Segments, log_start_offset: int, end_offset: int) -> ProducerState:
    """The state at `end_offset`: the newest sound snapshot at or below it, and the log above that.

    Batches are read by their headers only. Raises OSError, CorruptMessage.
    """
    state = ProducerState()
    start = load_snapshot(segments, state, end_offset)
    if start is None:
        start = log_start_offset
    if not segments.exists:
        return state
    for segment in segments.items[segments.number_at(start) :]:
        if segment.base_offset >= end_offset:
            break
        shared, size = segments.log_dir.indexes.file_and_size(segment)
        if size == 0:
            continue
        position = 0
        if segment.base_offset < start:
            place = segments.locate(start)
            if place is None or place.segment is not segment:
                continue
            position = place.position
        replay(state, shared.file, position, size, start, end_offset)
    return state


def recent_producers(segments: Segments) -> ProducerState:
    """What the last RECENT_BYTES of the log alone say. Raises OSError, CorruptMessage."""
    state = ProducerState()
    found = []
    wanted = RECENT_BYTES
    for segment in reversed(segments.items):
        shared, size = segments.log_dir.indexes.file_and_size(segment)
        if size == 0:
            continue
        index = segments.log_dir.indexes.offsets_of(segment, segments.interval_bytes)
        found.append((segment, index.floor_position(max(0, size - wanted))))
        wanted -= size
        if wanted <= 0:
            break
    for segment, position in reversed(found):
        shared, size = segments.log_dir.indexes.file_and_size(segment)
        replay(state, shared.file, position, size, 0, NO_END)
    return state


def replay(
    state: ProducerState, file: DiskFile, position: int, size: int, start: int, end: int
) -> None:
    """Apply the batches of a log file from `position` on that lie in offsets [start, end)."""
    for at, header in BatchScan(file, position, size, check_crc=False):
        if header.next_offset > end:
            break
        if header.producer_id < 0 or header.base_offset < start:
            continue
        marker = None
        if header.is_control:
            marker = end_marker(file.pread(header.size_bytes, at))
        state.apply(header, header.base_offset, header.max_timestamp, marker)


def end_marker(batch: bytes) -> EndMarker | None:
    """What a control batch says of its producer's transaction; None for other control batches."""
    try:
        marker = read_end_transaction(batch)
    except InvalidRecord:
        return None
    if marker is None:
        return None
    return EndMarker(marker.coordinator_epoch, not marker.committed)


def load_snapshot(segments: Segments, state: ProducerState, end_offset: int) -> int | None:
    """Load the newest sound snapshot at or below `end_offset`; its offset, None if there is none.

    Damaged ones, and those beyond the end, are removed.
    """
    disk = segments.log_dir.disk
    for offset in reversed(tuple(segments.snapshots)):
        path = snapshot_path(segments.directory, offset)
        if offset <= end_offset:
            try:
                state.load(disk.read_file(path), offset)
            except (CorruptSnapshot, FileNotFoundError):
                state.clear()
            else:
                return offset
        disk.unlink(path)
        segments.snapshots.remove(offset)
    return None


def write_snapshot(segments: Segments, state: ProducerState, offset: int) -> None:
    """Write `<offset>.snapshot`, not synced: it carries its own CRC. Raises OSError."""
    store_snapshot(segments.log_dir.disk, segments.directory, state, offset)
    if offset not in segments.snapshots:
        insort(segments.snapshots, offset)


def store_snapshot(disk: Disk, directory: str, state: ProducerState, offset: int) -> None:
    disk.write_file(snapshot_path(directory, offset), state.snapshot(offset))


def snapshot_path(directory: str, offset: int) -> str:
    return f"{directory}/{file_name(offset, SNAPSHOT_SUFFIX)}"
