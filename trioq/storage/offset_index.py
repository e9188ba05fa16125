"""The sparse offset index of one segment: Kafka's `.index` file.

Entries of 8 bytes, big endian: int32 offset relative to the segment's base, int32 position in
the log file. One entry per index.interval.bytes of log: the last offset of a batch, and where
that batch starts. Entries ascend strictly in both fields.
"""

from __future__ import annotations

import struct

from trioq._native.index_search import find_offset

ENTRY = struct.Struct(">ii")
ENTRY_BYTES = 8


class OffsetIndex:
    """Entries in memory, growable; written to its file as a whole when the segment is sealed."""

    __slots__ = ("data", "entries")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        """Take over the content of an index file (a torn last entry is ignored)."""
        self.entries = len(data) // ENTRY_BYTES
        self.data = bytearray(data[: self.entries * ENTRY_BYTES])

    def append(self, relative_offset: int, position: int) -> None:
        self.data += ENTRY.pack(relative_offset, position)
        self.entries += 1

    def extend(self, entries: bytes | bytearray) -> None:
        """Add encoded entries that follow on those here."""
        self.data += entries
        self.entries += len(entries) // ENTRY_BYTES

    def entry(self, number: int) -> tuple[int, int]:
        relative_offset, position = ENTRY.unpack_from(self.data, number * ENTRY_BYTES)
        return relative_offset, position

    def floor(self, relative_offset: int) -> tuple[int, int]:
        """The greatest entry whose offset is <= `relative_offset`; (-1, -1) if there is none."""
        return find_offset(self.data, self.entries, relative_offset)

    def around(self, relative_offset: int) -> tuple[int, int]:
        """Positions of `floor` and of the entry behind it: 0 and -1 where there is none."""
        low, high = 0, self.entries
        while low < high:
            middle = (low + high) // 2
            if self.entry(middle)[0] <= relative_offset:
                low = middle + 1
            else:
                high = middle
        return (
            self.entry(low - 1)[1] if low else 0,
            self.entry(low)[1] if low < self.entries else -1,
        )

    def floor_position(self, position: int) -> int:
        """The greatest indexed position <= `position`; 0 if there is none."""
        low, high = 0, self.entries
        while low < high:
            middle = (low + high) // 2
            if self.entry(middle)[1] <= position:
                low = middle + 1
            else:
                high = middle
        return self.entry(low - 1)[1] if low else 0

    def truncate(self, relative_offset: int) -> None:
        """Drop the entries for `relative_offset` and above."""
        while self.entries and self.entry(self.entries - 1)[0] >= relative_offset:
            self.entries -= 1
        del self.data[self.entries * ENTRY_BYTES :]
