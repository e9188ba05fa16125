"""v2 record batches as bytes: headers, checks, stamping, search, building.

`buf` is any contiguous buffer, borrowed until return; `position` and `end` are bytes in it, and
one that lies outside is ValueError. Work over more than 64 KiB releases the interpreter lock.
Layout and attribute bits: trioq.record.layout.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, final, overload

from typing_extensions import Buffer

from trioq._native.records import (
    find_timestamp as find_timestamp,
)
from trioq._native.records import (
    max_timestamp_offset as max_timestamp_offset,
)
from trioq._native.records import (
    walk_records as walk_records,
)

_Record = TypeVar("_Record", bound=tuple[Any, ...])

HEADER_BYTES: int
"""Bytes before the records: 61."""
LOG_OVERHEAD: int
"""Bytes that the batch length field does not count: 12."""

@final
class BatchHeader:
    """The 61 bytes of one batch's header, decoded; immutable."""

    position: int
    """Where the batch starts in the buffer it was read from."""
    size_bytes: int
    """The whole batch: header and records."""
    base_offset: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are unknown."""

    @property
    def timestamp_type(self) -> int:
        """0: timestamps are the producer's; 1: all records have max_timestamp (append time)."""

    @property
    def is_transactional(self) -> bool: ...
    @property
    def is_control(self) -> bool: ...
    @property
    def has_delete_horizon(self) -> bool:
        """Compaction set it: base_timestamp is then the horizon."""

    @property
    def has_producer_id(self) -> bool: ...
    @property
    def last_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; wraps to 0 after 2^31 - 1. -1 without sequences."""

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

def scan(
    buf: Buffer, position: int, end: int, *, check_crc: bool
) -> tuple[list[BatchHeader], int, str | None]:
    """The whole, valid batches that follow each other from `position`, with where they end.

    The third value is None when the rest, if any, is the start of a batch cut off by `end`, else
    what is wrong with the batch there. Checked are size, magic, counts and, if asked, CRC; record
    counts below the offset range are fine (compaction leaves such batches).
    """

def locate(buf: Buffer, position: int, end: int, target_offset: int) -> tuple[int, int]:
    """(position, size_bytes) of the first batch from `position` whose last offset is >= target.

    (-1, -1) when no batch whose header lies in the range reaches the target. The batch found may
    be cut off by `end`. Raises CorruptMessage where no batch header stands at an edge.
    """

def locate_in_file(fd: int, position: int, end: int, target_offset: int) -> tuple[int, int]:
    """As locate, in a file: reads headers only. Raises CorruptMessage and OSError."""

def last_edge(fd: int, position: int, limit: int) -> int:
    """The greatest batch edge <= `limit` in a file, walking headers from the edge `position`.

    `position` itself when not even one whole batch fits, or the file ends there. Raises
    CorruptMessage where no batch header stands at an edge, and OSError.
    """

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
