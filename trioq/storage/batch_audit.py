"""Reading a log file that may be damaged: every batch that can be told apart, and what is wrong.

Unlike `BatchScan`, which stops where a log ends, this goes on behind a damaged batch if its length
still leads to another one, and never holds more than a chunk of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from trioq._native.batch import BatchHeader, peek, scan
from trioq._native.crc32c import crc32c
from trioq.errors import CorruptMessage, UnsupportedForMessageFormat
from trioq.record.layout import ATTRIBUTES_AT, BATCH_LENGTH_AT, HEADER_BYTES, LOG_OVERHEAD

CHUNK_BYTES: Final = 1 << 20
_OWN_LENGTH: Final = (HEADER_BYTES - LOG_OVERHEAD).to_bytes(4, "big")


class AuditedBatch(NamedTuple):
    """A batch at [position, position + size_bytes) of a log file.

    `problem` is None for a sound one. Without a header nothing can be said of these bytes, which
    go to the end of the file; `is_cut_off` when they are the beginning of a batch.
    The header's own `position` and `size_bytes` are not the file's.
    """

    position: int
    size_bytes: int
    header: BatchHeader | None
    problem: str | None
    is_cut_off: bool = False


def audit_batches(fd: int, size: int) -> Iterator[AuditedBatch]:
    """All of the first `size` bytes of a log file, in order; every CRC is checked.

    Raises OSError.
    """
    position = 0
    while position < size:
        chunk = os.pread(fd, min(CHUNK_BYTES, size - position), position)
        if not chunk:
            yield AuditedBatch(position, size - position, None, "the file became shorter")
            return
        headers, end, reason = scan(chunk, 0, len(chunk), check_crc=True)
        for header in headers:
            yield AuditedBatch(position + header.position, header.size_bytes, header, None)
        position += end
        if position < size and (reason is not None or end == 0):
            audited = _audit_one(fd, position, size, reason)
            yield audited
            position += audited.size_bytes


def _audit_one(fd: int, position: int, size: int, reason: str | None) -> AuditedBatch:
    """The batch at `position`: too large for a chunk, cut off, or damaged as `reason` says."""
    left = size - position
    header, size_bytes = _header_at(fd, position)
    if header is None:
        is_short = left < HEADER_BYTES
        problem = "cut off within its header" if is_short else reason or "no batch header"
        return AuditedBatch(position, left, None, problem, is_cut_off=is_short)
    if size_bytes > left:
        problem = f"{size_bytes} bytes long by its header, {left} are left in the file"
        return AuditedBatch(position, left, None, problem, is_cut_off=reason is None)
    if reason is None:
        computed = _crc_at(fd, position + ATTRIBUTES_AT, position + size_bytes)
        if computed != header.crc:
            reason = "CRC does not match"
    if reason is not None and not _leads_on(fd, position + size_bytes, size, header):
        return AuditedBatch(position, left, None, f"{reason}, and no batch follows where it ends")
    return AuditedBatch(position, size_bytes, header, reason)


def _header_at(fd: int, position: int) -> tuple[BatchHeader | None, int]:
    """The header of the batch at `position`, without its records, and the length that it states."""
    head = bytearray(os.pread(fd, HEADER_BYTES, position))
    length = int.from_bytes(head[BATCH_LENGTH_AT : BATCH_LENGTH_AT + 4], "big", signed=True)
    if length < HEADER_BYTES - LOG_OVERHEAD:
        return None, 0
    head[BATCH_LENGTH_AT : BATCH_LENGTH_AT + 4] = _OWN_LENGTH  # peek asks for a whole batch
    try:
        return peek(head), length + LOG_OVERHEAD
    except (CorruptMessage, UnsupportedForMessageFormat):
        return None, 0


def _leads_on(fd: int, position: int, size: int, damaged: BatchHeader) -> bool:
    """True if a damaged batch's length can be believed: a batch or the file's end is there."""
    if position == size:
        return True
    header, size_bytes = _header_at(fd, position)
    return (
        header is not None
        and position + size_bytes <= size
        and header.base_offset > damaged.base_offset
    )


def _crc_at(fd: int, start: int, end: int) -> int:
    crc = 0
    while start < end:
        chunk = os.pread(fd, min(CHUNK_BYTES, end - start), start)
        if not chunk:
            break
        crc = crc32c(chunk, crc)
        start += len(chunk)
    return crc
