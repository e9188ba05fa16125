"""The part of a log that every batch moves: staging at its end, accounting in its last segment."""

import sys
from typing import Any, final

from trioq._native.batch_header import BatchHeader
from trioq._native.producer_window import ProducerWindows

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

@final
class Staged(Buffer):
    """A batch with its offsets, not written yet: a read-only buffer of its bytes.

    What holds the bytes cannot be resized while this exists.
    """

    size_bytes: int
    base_offset: int
    last_offset: int
    max_timestamp: int
    leader_epoch: int

    def __buffer__(self, flags: int, /) -> memoryview: ...

class DirtyLogs:
    """What appends add to: a base for LogDir."""

    unwritten_bytes: int
    """Of batches that were staged and neither written nor given up."""

    dirty: dict[Any, None]
    """Logs with a staged group, of all directories: who appends adds itself."""

class WriteMode:
    """A base for LogWriter."""

    is_threaded: bool
    """The disk stalls: groups go to a thread."""

    is_alert: bool
    """It stalls, or was slow a few writes ago: how long a write takes matters."""

    def note_slow(self, seconds: float, length: int) -> None:
        """A write took long; implemented by LogWriter."""

class LogTail:
    """The offsets of a log and what is staged at its end: a base for LogState."""

    def __init__(self, log_dir: DirtyLogs) -> None: ...

    log_dir: DirtyLogs
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    written_end_offset: int
    synced_end_offset: int
    failed: bool
    _staged: list[Staged]
    _producers: ProducerWindows | None
    _are_windows_whole: bool
    _writing: Any
    """The group that a thread is writing, or None."""
    _edges: Any

    def _write_ordinary(self, slow_s: float, bulk_bytes: int, highest_delta: int) -> bool:
        """Write all that is staged, where that is plain: to a segment that has room for it and is
        not too old, with flush.policy=os, fewer than `bulk_bytes`, on a disk that is quick.

        True when it is written and everything derived but progress has moved, as by
        AppendLog._write_staged; False, with nothing done, for the general way. Raises OSError.
        A write of more than `slow_s` seconds is told to the writer.
        """

    def _stage(self, batch: Buffer, header: BatchHeader, leader_epoch: int) -> int:
        """Stamp offsets and epoch into a checked batch and put it at the log's end.

        `batch` is writable and exactly the batch of `header`. Returns the base offset it got.
        """

class SegmentTail:
    """Sizes and times of a segment: a base for Segment."""

    base_offset: int
    size: int
    synced_size: int
    bytes_since_index: int
    first_timestamp: int
    max_timestamp: int
    max_timestamp_offset: int

    def add(
        self, size_bytes: int, last_offset: int, max_timestamp: int, interval_bytes: int
    ) -> None:
        """Account for the batch that was just written at `size`."""

    def add_group(self, group: list[Staged], interval_bytes: int) -> None:
        """Account for batches that were just written one after the other from `size` on."""

    def _index(self, last_offset: int) -> None:
        """An index entry is due for the batch at `size`; implemented by Segment."""

def first_group(
    staged: list[Staged], room_bytes: int, highest_offset: int
) -> tuple[list[Staged], int]:
    """The first batches that fit in `room_bytes` and end at `highest_offset` or below.

    At least one, whatever its size. Returns them with their bytes; `staged` is not empty.
    """
