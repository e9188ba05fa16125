"""What of a log is to be compacted; decides only, compaction.py does it. Loop thread only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from trioq.storage.batch_scan import batch_edge
from trioq.storage.segment import MAX_RELATIVE_OFFSET, Segment

if TYPE_CHECKING:
    from trioq.storage.log import Log

NO_LIMIT_MS: Final = 2**63 - 1
MAX_GROUP_SEGMENTS: Final = 64
"""Their files are renamed on the loop, all at once."""


class Source(NamedTuple):
    """A sealed segment as compaction reads it, in any thread."""

    segment: Segment
    base_offset: int
    end_offset: int
    path: str
    size: int


class CompactionPlan(NamedTuple):
    """The segments from the log's start to where compaction may go."""

    sources: tuple[Source, ...]
    first_dirty_offset: int
    clean_bytes: int
    dirty_bytes: int
    is_overdue: bool
    """Something is older than max.compaction.lag.ms."""

    @property
    def end_offset(self) -> int:
        return self.sources[-1].end_offset

    @property
    def dirty_ratio(self) -> float:
        return self.dirty_bytes / max(1, self.clean_bytes + self.dirty_bytes)


def plan_compaction(log: Log, now_ms: int) -> CompactionPlan | None:
    """Whole sealed segments below the last stable offset, synced, older than the lag.

    None when none of them is new since the last compaction. Raises OSError, CorruptMessage,
    KafkaStorageError.
    """
    segments = log.segments
    items = segments.items
    limit = min(log.last_stable_offset, log.recovery_point)
    first_dirty = max(log.cleaned_end_offset, log.log_start_offset)
    if len(items) < 2 or items[1].base_offset > limit or first_dirty >= items[-1].base_offset:
        return None
    segments.size_bytes()
    config = log.config
    sources: list[Source] = []
    is_overdue = False
    for number in range(len(items) - 1):
        segment, end_offset = items[number], items[number + 1].base_offset
        if end_offset > limit:
            break
        if end_offset > first_dirty:
            if config.min_compaction_lag_ms > 0 and (
                _newest_ms(log, segment) > now_ms - config.min_compaction_lag_ms
            ):
                break
            if config.max_compaction_lag_ms < NO_LIMIT_MS and not is_overdue:
                is_overdue = _oldest_ms(log, segment) < now_ms - config.max_compaction_lag_ms
        sources.append(
            Source(segment, segment.base_offset, end_offset, segment.log_path, segment.size)
        )
    if not sources or sources[-1].end_offset <= first_dirty:
        return None
    dirty_bytes = sum(one.size for one in sources if one.end_offset > first_dirty)
    return CompactionPlan(
        tuple(sources),
        first_dirty,
        sum(one.size for one in sources) - dirty_bytes,
        dirty_bytes,
        is_overdue,
    )


def is_due(plan: CompactionPlan, min_ratio: float) -> bool:
    """True if the log has changed enough, or something in it has waited too long."""
    return plan.is_overdue or plan.dirty_ratio > min_ratio


def roll_overdue(log: Log, now_ms: int) -> None:
    """Close an active segment that holds something older than max.compaction.lag.ms.

    Raises OSError, KafkaStorageError.
    """
    max_lag_ms = log.config.max_compaction_lag_ms
    if max_lag_ms >= NO_LIMIT_MS or log.is_borrowing or not log.segments.exists:
        return
    active = log.segments.items[-1]
    oldest_ms = _oldest_ms(log, active)
    if 0 <= oldest_ms < now_ms - max_lag_ms:
        log.roll()


def _newest_ms(log: Log, segment: Segment) -> int:
    if segment.max_timestamp < 0:
        log.log_dir.indexes.times_of(segment, log.segments.interval_bytes)
    if segment.max_timestamp < 0:  # records without timestamps: by the file's
        return log.log_dir.disk.modified_ms(segment.log_path)
    return segment.max_timestamp


def _oldest_ms(log: Log, segment: Segment) -> int:
    """The timestamp of the first batch; -1 when there is none."""
    shared, size = log.log_dir.indexes.file_and_size(segment)
    edge = batch_edge(shared.file, 0) if size else None
    return -1 if edge is None else edge.max_timestamp


def grouped(sources: Sequence[Source], segment_bytes: int) -> Iterator[tuple[Source, ...]]:
    """Runs of segments that become one each: together no larger than a segment may be."""
    group: list[Source] = []
    size = 0
    for one in sources:
        if group and (
            len(group) == MAX_GROUP_SEGMENTS
            or size + one.size > segment_bytes
            or one.end_offset - group[0].base_offset > MAX_RELATIVE_OFFSET
        ):
            yield tuple(group)
            group = []
            size = 0
        group.append(one)
        size += one.size
    if group:
        yield tuple(group)
