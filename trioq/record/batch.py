"""Reading the records of one stored batch.

`batch` is a buffer over one whole v2 batch, borrowed until return, that was validated before it
was stored. Compressed ones are decompressed within `max_bytes`. Raises InvalidRecord where the
records are corrupt after all (compressed batches may be stored unopened), and what peek raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from trioq._native import batch as native
from trioq.errors import InvalidRecord
from trioq.record import layout
from trioq.record.compression import MAX_DECOMPRESSED_BYTES, Codec, decompress

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from trioq._native.batch import BatchHeader


_ANY_TIME: Final = -(1 << 63)


class Record(NamedTuple):
    """One record as consumers see it."""

    offset: int
    timestamp: int
    """Milliseconds since the Unix epoch, or -1."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def codec_of(header: BatchHeader) -> Codec:
    """The codec of a batch; raises InvalidRecord where a stored one names none that is known."""
    try:
        return Codec(header.codec)
    except ValueError:
        raise InvalidRecord(f"codec {header.codec} is not known") from None


def record_bytes(
    batch: Buffer,
    header: BatchHeader,
    *,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
    max_ratio: int | None = None,
) -> Buffer:
    """The encoded records of the batch at `header.position`; a view if it is uncompressed."""
    start = header.position + layout.HEADER_BYTES
    data = memoryview(batch).cast("B")[start : header.position + header.size_bytes]
    if header.codec == Codec.NONE:
        return data
    return decompress(codec_of(header), data, max_bytes=max_bytes, max_ratio=max_ratio)


def read_records(batch: Buffer, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> list[Record]:
    """All records, in order; those of a control batch too."""
    header = native.peek(batch)
    if header.record_count == 0:
        return []
    data = record_bytes(batch, header, max_bytes=max_bytes)
    return native.decode_records(data, header, Record)


def offset_for_timestamp(
    batch: Buffer,
    target_ms: int,
    *,
    start_offset: int = 0,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record at or after `target_ms`, None if there is none.

    Records below `start_offset` are passed over. A batch whose max timestamp is earlier is not
    opened. No objects are made of the records: a compressed batch may hold many millions.
    """
    header = native.peek(batch)
    if header.record_count == 0 or header.max_timestamp < target_ms:
        return None
    if header.timestamp_type == 1:
        offset = _first_offset(batch, header, start_offset, max_bytes)
        return None if offset is None else (offset, header.max_timestamp)
    return native.find_timestamp(
        record_bytes(batch, header, max_bytes=max_bytes),
        header.record_count,
        header.base_offset,
        header.base_timestamp,
        target_ms,
        start_delta=_delta(start_offset, header),
    )


def max_timestamp(
    batch: Buffer, *, max_bytes: int = MAX_DECOMPRESSED_BYTES
) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record with the greatest timestamp; None without records."""
    header = native.peek(batch)
    if header.record_count == 0:
        return None
    if header.timestamp_type == 1:
        offset = _first_offset(batch, header, header.base_offset, max_bytes)
        return None if offset is None else (offset, header.max_timestamp)
    return native.max_timestamp_offset(
        record_bytes(batch, header, max_bytes=max_bytes),
        header.record_count,
        header.base_offset,
        header.base_timestamp,
    )


def _delta(offset: int, header: BatchHeader) -> int:
    """`offset` relative to the batch, from 0 to beyond its last: stored offsets may be damaged."""
    return max(0, min(offset - header.base_offset, header.last_offset_delta + 1))


def _first_offset(
    batch: Buffer, header: BatchHeader, start_offset: int, max_bytes: int
) -> int | None:
    """Offset of the first record from `start_offset` on; compaction may have left gaps."""
    if header.record_count == header.last_offset_delta + 1:
        return max(start_offset, header.base_offset) if start_offset < header.next_offset else None
    found = native.find_timestamp(
        record_bytes(batch, header, max_bytes=max_bytes),
        header.record_count,
        header.base_offset,
        0,
        _ANY_TIME,
        start_delta=_delta(start_offset, header),
    )
    return None if found is None else found[0]
