"""Batches as a leader's log holds them, checked and accounted for on their way into a follower's.

Positions are bytes in the run; those given must be edges of its batches. One call does the work
for all batches of a response: none is an object of its own unless it ends a transaction.
"""

from collections.abc import Callable
from typing import final

from typing_extensions import Buffer

from trioq._native.batch_header import BatchHeader
from trioq._native.log_tail import LogTail, SegmentTail
from trioq._native.producer_window import ProducerWindows

@final
class ReplicaRun:
    """The sound batches at the start of what a leader sent; borrows them until `release`."""

    size_bytes: int
    batches: int
    end_offset: int
    """Behind the last batch."""

    has_producers: bool
    """Some batch has a producer id."""

    first_gap: int
    """The first base offset that does not follow on the offset before it; -1 for none."""

    epochs: list[tuple[int, int]]
    """(leader epoch, base offset of its first batch) where it is not that of the batch before."""

    fault: str | None
    """What is wrong with the batch behind the run; None if it is only cut off, or there is none."""

    def release(self) -> None:
        """Give the bytes back; what was made of them stays."""

    def header(self, position: int) -> BatchHeader:
        """The header of the batch at `position`."""

    def part_end(self, position: int, room_bytes: int, highest_offset: int) -> int:
        """Where the first batches end that fit in `room_bytes` and end at `highest_offset` or
        below; at least one, whatever its size.
        """

    def account(
        self,
        segment: SegmentTail,
        position: int,
        end: int,
        interval_bytes: int,
        latest_time: int,
    ) -> tuple[int, bytearray, bytearray]:
        """Account for [position, end), just written at the segment's end.

        Args:
            latest_time: the timestamp of the last entry of the segment's time index, -1 for none.

        Returns:
            (offset behind the last batch, entries for the offset index, for the time index).

        """

    def apply_producers(
        self,
        windows: ProducerWindows,
        position: int,
        end: int,
        control: Callable[[BatchHeader, bytes], None],
    ) -> None:
        """Take the batches of [position, end) that have a producer id, for good.

        `control` is called for control batches, in their order, with header and bytes.
        """

    def stage(self, log: LogTail, holder: bytearray) -> None:
        """Stage the last `len(holder)` bytes of the run, of which `holder` is a copy, as they are.

        `holder` is borrowed until its batches are written. Its start is a batch's edge.
        """

def check_run(
    records: Buffer, *, end_offset: int, latest_epoch: int, leader_epoch: int, gaps_below: int
) -> ReplicaRun:
    """The whole, sound batches at the start of `records`.

    Sound: length, magic and counts are possible; the CRC matches; offsets follow each other from
    `end_offset` on, but that a gap (compaction leaves such) may end below `gaps_below`; leader
    epochs do not fall, and lie between `latest_epoch` (of the batch before, -1 for none) and
    `leader_epoch`. More than 64 KiB are checked without the interpreter lock.
    """
