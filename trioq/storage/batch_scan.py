"""Walking the batches of a log file from the start of one to the end of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from trioq._native.batch import BatchHeader, scan
from trioq.record import layout
from trioq.storage.disk import DiskFile

CHUNK_BYTES = 1 << 20


class BatchEdge(NamedTuple):
    """The fields of a stored batch that indexes are made of."""

    base_offset: int
    last_offset: int
    max_timestamp: int


def batch_edge(file: DiskFile, position: int) -> BatchEdge | None:
    """Read them from the header at `position`, a batch's start; None at the end of the file."""
    data = file.pread(layout.HEADER_BYTES, position)
    if len(data) < layout.HEADER_BYTES:
        return None
    fields = layout.HEADER.unpack(data)
    return BatchEdge(fields[0], fields[0] + fields[6], fields[8])


class BatchScan:
    """Iterates over (position in the file, header) of consecutive whole batches.

    Afterwards `valid_end` is where the last one ended, and `reason` says what is wrong with the
    bytes from there on: None when they are only cut off, or there are none. Holds one chunk of
    the file at a time (1 MiB, or one batch if that is larger).
    """

    __slots__ = ("_check_crc", "_end", "_file", "reason", "valid_end")

    def __init__(self, file: DiskFile, start: int, end: int, *, check_crc: bool) -> None:
        self._file = file
        self._end = end
        self._check_crc = check_crc
        self.valid_end = start
        self.reason: str | None = None

    def __iter__(self) -> Iterator[tuple[int, BatchHeader]]:
        wanted = CHUNK_BYTES
        while self.valid_end < self._end and self.reason is None:
            start = self.valid_end
            chunk = self._file.pread(min(wanted, self._end - start), start)
            headers, end, self.reason = scan(chunk, 0, len(chunk), check_crc=self._check_crc)
            for header in headers:
                self.valid_end = start + header.position + header.size_bytes
                yield start + header.position, header
            wanted = CHUNK_BYTES
            if end == 0:
                # Not one whole batch: is it larger than the chunk, or cut off?
                wanted = self._size_claimed(chunk)
                if self.reason is not None or wanted <= len(chunk) or start + wanted > self._end:
                    return

    @staticmethod
    def _size_claimed(chunk: bytes) -> int:
        if len(chunk) < layout.HEADER_BYTES:
            return 0
        return int(layout.HEADER.unpack_from(chunk)[1]) + layout.LOG_OVERHEAD
