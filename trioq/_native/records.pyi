"""The records of a v2 batch, uncompressed, as bytes. Data is borrowed until return.

Malformed data raises InvalidRecord, which names the record's index and what is wrong. Over
64 KiB the interpreter lock is released (not by encoding and decoding, which make objects).
"""

from typing_extensions import Buffer

MESSAGES: tuple[str, ...]
"""What InvalidRecord says after "record N: "."""

def walk_records(data: Buffer, record_count: int) -> None:
    """Check that `data` is exactly `record_count` records with offset deltas 0, 1, 2, ...

    Every varint, length, header count and end is checked; nothing is allocated.
    """

def find_timestamp(
    data: Buffer,
    record_count: int,
    base_offset: int,
    base_timestamp: int,
    target_ms: int,
    *,
    start_delta: int = 0,
) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record at or after `target_ms`; None if there is none.

    Records with an offset delta below `start_delta` are passed over.
    """

def max_timestamp_offset(
    data: Buffer, record_count: int, base_offset: int, base_timestamp: int
) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record with the greatest timestamp; None without records."""
