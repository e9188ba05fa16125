"""The sparse time index of one segment: Kafka's `.timeindex` file.

Entries of 12 bytes, big endian: int64 timestamp in ms, int32 offset relative to the segment's
base. An entry says: up to this offset, the last one of its batch, the greatest timestamp is this
one. Entries ascend strictly in timestamp. The last entry of a sealed segment holds its maximum.
"""

from __future__ import annotations

import struct

from trioq._native.index_search import find_time

ENTRY = struct.Struct(">qi")
ENTRY_BYTES = 12


class TimeIndex:
    """Entries in memory, growable; written to its file as a whole when the segment is sealed."""

    __slots__ = ("data", "entries")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        """Take over the content of an index file (a torn last entry is ignored)."""
        self.entries = len(data) // ENTRY_BYTES
        self.data = bytearray(data[: self.entries * ENTRY_BYTES])

    def entry(self, number: int) -> tuple[int, int]:
        timestamp, relative_offset = ENTRY.unpack_from(self.data, number * ENTRY_BYTES)
        return timestamp, relative_offset

    def last(self) -> tuple[int, int]:
        """The greatest timestamp and its offset; (-1, -1) when there is no entry."""
        return self.entry(self.entries - 1) if self.entries else (-1, -1)

    def maybe_append(self, timestamp: int, relative_offset: int) -> None:
        """Add an entry unless the index holds this timestamp or a greater one."""
        if timestamp > self.last()[0]:
            self.data += ENTRY.pack(timestamp, relative_offset)
            self.entries += 1

    def extend(self, entries: bytes | bytearray) -> None:
        """Add encoded entries that follow on those here."""
        self.data += entries
        self.entries += len(entries) // ENTRY_BYTES

    def floor(self, timestamp: int) -> tuple[int, int]:
        """The greatest entry whose timestamp is <= `timestamp`; (-1, -1) if there is none."""
        return find_time(self.data, self.entries, timestamp)

    def is_ordered(self) -> bool:
        """True if the entries ascend strictly, as they do in every sound file."""
        previous = (-1, -1)
        for entry in ENTRY.iter_unpack(self.data):
            if entry[0] <= previous[0] or entry[1] <= previous[1]:
                return False
            previous = entry
        return True

    def truncate(self, relative_offset: int) -> None:
        """Drop the entries for `relative_offset` and above."""
        while self.entries and self.entry(self.entries - 1)[1] >= relative_offset:
            self.entries -= 1
        del self.data[self.entries * ENTRY_BYTES :]
