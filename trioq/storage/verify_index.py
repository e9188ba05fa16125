"""Checking the sparse indexes of a segment while its batches pass by; bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trioq._native.batch import BatchHeader
from trioq.storage import offset_index, time_index
from trioq.storage.verify_report import VerifyReport

REBUILT: Final = "Delete the file while the broker is stopped: it is made anew from the log"
_CHUNK_ENTRIES: Final = 4096


def _read(path: Path, entry: struct.Struct) -> Iterator[tuple[int, tuple[int, int]]]:
    """(position in the file, entry) of all whole entries."""
    position = 0
    with path.open("rb") as file:
        while chunk := file.read(entry.size * _CHUNK_ENTRIES):
            for start in range(0, len(chunk) - entry.size + 1, entry.size):
                first, second = entry.unpack_from(chunk, start)
                yield position + start, (first, second)
            position += len(chunk)


class _IndexCheck:
    """One index file; after its first problem it is no longer looked at."""

    entry: struct.Struct

    def __init__(self, report: VerifyReport, path: Path, base_offset: int) -> None:
        self._report = report
        self._path = path
        self._base_offset = base_offset
        self._is_rejected = False
        self._entries = _read(path, self.entry)
        self._next = next(self._entries, None)
        leftover = path.stat().st_size % self.entry.size
        if leftover:
            self._reject(path.stat().st_size - leftover, "the last entry is cut off")

    def _advance(self) -> None:
        self._next = next(self._entries, None)

    def _reject(self, position: int, what: str) -> None:
        self._report.repairable(str(self._path), position, what, REBUILT)
        self._is_rejected = True
        self._next = None
        self._entries = iter(())


class OffsetIndexCheck(_IndexCheck):
    """Every entry names the start of a batch and an offset in that batch."""

    entry = offset_index.ENTRY

    def batch(self, position: int, header: BatchHeader) -> None:
        """The next sound batch of the log file is at `position`."""
        while self._next is not None:
            at, (relative_offset, log_position) = self._next
            if log_position > position:
                return
            offset = self._base_offset + relative_offset
            if log_position < position:
                self._reject(at, f"position {log_position} is not where a batch starts")
            elif not header.base_offset <= offset <= header.last_offset:
                self._reject(
                    at,
                    f"offset {offset} is said to be at position {log_position}, "
                    f"where {header.base_offset} to {header.last_offset} are",
                )
            else:
                self._advance()

    def end(self, size: int) -> None:
        """All batches have passed, up to position `size`."""
        if self._next is not None:
            at, (_, log_position) = self._next
            self._reject(
                at, f"position {log_position} is beyond the last batch, which ends at {size}"
            )


class TimeIndexCheck(_IndexCheck):
    """Every entry is the greatest timestamp so far, first reached in the batch of its offset."""

    entry = time_index.ENTRY

    def __init__(self, report: VerifyReport, path: Path, base_offset: int) -> None:
        self._greatest = -1
        self._last_entry = -1
        super().__init__(report, path, base_offset)

    def batch(self, header: BatchHeader) -> None:
        """The next sound batch of the log file."""
        self._greatest = max(self._greatest, header.max_timestamp)
        while self._next is not None:
            at, (timestamp, relative_offset) = self._next
            offset = self._base_offset + relative_offset
            if offset > header.last_offset:
                return
            if timestamp <= self._last_entry:
                self._reject(at, f"timestamp {timestamp} follows {self._last_entry}")
            elif offset < header.base_offset:
                self._reject(at, f"offset {offset} is out of order, or in no batch")
            elif not header.max_timestamp == timestamp == self._greatest:
                self._reject(
                    at,
                    f"timestamp {timestamp} is said to be the greatest up to offset {offset}; "
                    f"it is {self._greatest}, and that batch's is {header.max_timestamp}",
                )
            else:
                self._last_entry = timestamp
                self._advance()

    def end(self, *, is_sealed: bool) -> None:
        """All batches have passed; the index of a sealed segment ends with its maximum."""
        if self._next is not None:
            at, (_, relative_offset) = self._next
            offset = self._base_offset + relative_offset
            self._reject(at, f"offset {offset} is beyond the last batch")
        elif is_sealed and not self._is_rejected and self._last_entry < self._greatest:
            self._reject(
                self._path.stat().st_size,
                f"ends at timestamp {self._last_entry}, the segment's greatest is {self._greatest}",
            )
