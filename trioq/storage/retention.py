"""Which segments of a log retention no longer keeps; decides only, Log removes."""

from __future__ import annotations

from trioq.storage.log_config import LogConfig
from trioq.storage.segment import Segment
from trioq.storage.segments import Segments


def retired_segments(
    segments: Segments,
    config: LogConfig,
    now_ms: int,
    *,
    high_watermark: int,
    log_end_offset: int,
    at_most: int | None = None,
) -> int:
    """How many segments, counted from the oldest, are to go.

    By time: its greatest timestamp is older than retention.ms. By size: what is left without it
    still has retention.bytes. Only whole segments below the high watermark; all of them may go by
    time (the active one is then rolled first), but an empty active one stays. No more than
    `at_most` are counted.

    Raises OSError.
    """
    if "delete" not in config.cleanup_policy:
        return 0
    items = segments.items
    by_size = _retired_by_size(segments, config.retention_bytes)
    for number, segment in enumerate(items):
        if number == at_most:
            return number
        is_last = number + 1 == len(items)
        end_offset = log_end_offset if is_last else items[number + 1].base_offset
        if end_offset > high_watermark or end_offset == segment.base_offset:
            return number
        if number < by_size:
            continue
        if not _is_expired(segments, segment, config.retention_ms, now_ms):
            return number
    return len(items)


def _retired_by_size(segments: Segments, retention_bytes: int) -> int:
    if retention_bytes < 0:
        return 0
    surplus = segments.size_bytes() - retention_bytes
    count = 0
    for segment in segments.items[:-1]:
        if surplus < segment.size:
            break
        surplus -= segment.size
        count += 1
    return count


def _is_expired(segments: Segments, segment: Segment, retention_ms: int, now_ms: int) -> bool:
    if retention_ms < 0:
        return False
    timestamp = segment.max_timestamp
    if timestamp < 0:
        segments.log_dir.indexes.times_of(segment, segments.interval_bytes)
        timestamp = segment.max_timestamp
    if timestamp < 0:  # records without timestamps: by the file's, as in Kafka
        timestamp = segments.log_dir.disk.modified_ms(segment.log_path)
    return now_ms - timestamp > retention_ms
