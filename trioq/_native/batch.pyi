"""v2 record batches as bytes: headers, checks, stamping, search, building.

`buf` is any contiguous buffer, borrowed until return; `position` and `end` are bytes in it, and
one that lies outside is ValueError. Work over more than 64 KiB releases the interpreter lock.
Layout and attribute bits: trioq.record.layout.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from typing_extensions import Buffer

from trioq._native.batch_header import BatchHeader as BatchHeader
from trioq._native.batch_log import last_edge as last_edge
from trioq._native.batch_log import locate as locate
from trioq._native.batch_log import locate_in_file as locate_in_file
from trioq._native.batch_log import scan as scan
from trioq._native.records import find_timestamp as find_timestamp
from trioq._native.records import max_timestamp_offset as max_timestamp_offset
from trioq._native.records import walk_records as walk_records

_Record = TypeVar("_Record", bound=tuple[Any, ...])

HEADER_BYTES: int
"""Bytes before the records: 61."""
LOG_OVERHEAD: int
"""Bytes that the batch length field does not count: 12."""

def peek(buf: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`, of a batch that lies wholly in `buf`; nothing else is checked.

    Raises UnsupportedForMessageFormat (magic 0 or 1) or CorruptMessage (another magic, fewer
    than 61 bytes, a size below 61 or beyond the buffer).
    """

def validate(buf: Buffer, position: int = 0, *, walk: bool = True) -> BatchHeader:
    """Check the batch at `position` as far as that takes no decompression.

    As peek, then CRC (CorruptMessage), unused attribute bits, record count > 0 and equal to last
    offset delta + 1 (InvalidRecord), codec (UnsupportedCompressionType) and, for an uncompressed
    batch when `walk`, every record (InvalidRecord). Control batches pass.
    """

def stamp(buf: Buffer, position: int, base_offset: int, leader_epoch: int) -> None:
    """Write base offset and leader epoch of the batch at `position`; no CRC covers them."""

def stamp_append_time(buf: Buffer, position: int, timestamp_ms: int) -> None:
    """Give the batch at `position` append time: timestamp type, max timestamp, new CRC.

    Raises as peek does.
    """

def seal(batch: bytearray) -> None:
    """Write batch length and CRC of the one batch that `batch` is, after its bytes were changed."""

def build(
    records: Iterable[
        tuple[int, Buffer | None, Buffer | None, Sequence[tuple[str, Buffer | None]]]
    ],
    *,
    base_offset: int = 0,
    base_timestamp: int | None = None,
    leader_epoch: int = -1,
    attributes: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    compress: Callable[[memoryview], Buffer] | None = None,
) -> bytearray:
    """One batch of (timestamp_ms, key, value, headers) tuples, at least one.

    Offset deltas are 0, 1, 2, ...; base_timestamp defaults to the first record's timestamp.
    `compress` is given all encoded records and must be there exactly when `attributes` names a
    codec. Raises ValueError for no records, TypeError for what is no record, MessageTooLarge
    beyond 2 GiB.
    """

@overload
def decode_records(
    data: Buffer, header: BatchHeader
) -> list[tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]]: ...
@overload
def decode_records(data: Buffer, header: BatchHeader, record_type: type[_Record]) -> list[_Record]:
    """The records of a batch from its uncompressed record bytes `data`.

    Each is a tuple (offset, timestamp, key, value, headers), or a NamedTuple of these fields if
    `record_type` is one. Offsets may have gaps (compaction). Header keys that are no UTF-8 come
    with replacement characters. Raises InvalidRecord.
    """
