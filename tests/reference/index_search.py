"""Search in .index and .timeindex by looking at every entry."""

from __future__ import annotations

import struct


def _last_at_or_below(form: str, buf: bytes, entries: int, target: int) -> tuple[int, int]:
    found = (-1, -1)
    for index in range(entries):
        entry = struct.unpack_from(form, buf, index * struct.calcsize(form))
        if entry[0] <= target:
            found = entry
    return found


def find_offset(buf: bytes, entries: int, relative_offset: int) -> tuple[int, int]:
    return _last_at_or_below(">ii", buf, entries, relative_offset)


def find_time(buf: bytes, entries: int, timestamp: int) -> tuple[int, int]:
    return _last_at_or_below(">qi", buf, entries, timestamp)
