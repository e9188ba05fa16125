"""Binary search in Kafka's sparse index files, over a borrowed buffer.

`entries` is the number of valid entries at the start of `buf`; ValueError if it has no room for
them. Among equal keys the last entry wins. (-1, -1) means that no entry is at or below the target.
"""

from typing_extensions import Buffer

OFFSET_ENTRY_BYTES: int
"""One .index entry: int32 relative offset, int32 position."""
TIME_ENTRY_BYTES: int
"""One .timeindex entry: int64 timestamp, int32 relative offset."""

def find_offset(buf: Buffer, entries: int, relative_offset: int) -> tuple[int, int]:
    """(relative offset, position) of the greatest entry <= `relative_offset`."""

def find_time(buf: Buffer, entries: int, timestamp: int) -> tuple[int, int]:
    """(timestamp, relative offset) of the greatest entry with a timestamp <= `timestamp`."""
