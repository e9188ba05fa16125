"""Kafka's producer `.snapshot` file (version 1), big endian.

    int16 version = 1
    uint32 crc            CRC-32C of everything after this field
    int32 count, then per producer:
        int64 producer id, int16 epoch, int32 last sequence (-1 none), int64 last offset (-1 none),
        int32 offset delta (last - first of the last batch), int64 timestamp, int32 coordinator
        epoch (-1 none), int64 first offset of the open transaction (-1 none)

It holds the last batch of each producer, not the window.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from trioq._native.crc32c import crc32c
from trioq.errors import TrioqError

VERSION: Final = 1
_PREFIX: Final = struct.Struct(">hI")
_COUNT: Final = struct.Struct(">i")
_ENTRY: Final = struct.Struct(">qhiqiqiq")
HEADER_BYTES: Final = _PREFIX.size + _COUNT.size
ENTRY_BYTES: Final = _ENTRY.size


class CorruptSnapshot(TrioqError):
    """A producer snapshot is damaged: it is dropped, and the state rebuilt from the log."""


class SnapshotEntry(NamedTuple):
    """One producer in a snapshot; -1 where there is none."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp_ms: int
    coordinator_epoch: int
    current_txn_first_offset: int


def encode_snapshot(entries: Iterable[SnapshotEntry]) -> bytes:
    """The bytes of a snapshot file."""
    packed = [_ENTRY.pack(*entry) for entry in entries]
    body = b"".join((_COUNT.pack(len(packed)), *packed))
    return _PREFIX.pack(VERSION, crc32c(body)) + body


def decode_snapshot(data: bytes) -> list[SnapshotEntry]:
    """The entries of a snapshot file, checked.

    Raises:
        CorruptSnapshot: unknown version, wrong length or CRC, or an entry that cannot be.

    """
    if len(data) < HEADER_BYTES:
        raise CorruptSnapshot(f"{len(data)} bytes are too few for a producer snapshot")
    version, crc = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise CorruptSnapshot(f"producer snapshot version {version} is not known")
    computed = crc32c(memoryview(data)[_PREFIX.size :])
    if crc != computed:
        raise CorruptSnapshot(f"producer snapshot has CRC {computed:#010x}, not {crc:#010x}")
    (count,) = _COUNT.unpack_from(data, _PREFIX.size)
    if count < 0 or len(data) != HEADER_BYTES + count * ENTRY_BYTES:
        raise CorruptSnapshot(f"producer snapshot of {count} entries has {len(data)} bytes")
    return list(_checked(data))


def _checked(data: bytes) -> Iterator[SnapshotEntry]:
    seen: set[int] = set()
    for fields in _ENTRY.iter_unpack(memoryview(data)[HEADER_BYTES:]):
        entry = SnapshotEntry(*fields)
        if (
            entry.producer_id < 0
            or entry.producer_id in seen
            or entry.producer_epoch < 0
            or entry.last_sequence < -1
            or entry.last_offset < -1
            or (entry.last_offset >= 0) != (entry.last_sequence >= 0)
            or not 0 <= entry.offset_delta <= max(entry.last_offset, 0)
            or entry.current_txn_first_offset < -1
        ):
            raise CorruptSnapshot(f"producer snapshot holds an impossible {entry}")
        seen.add(entry.producer_id)
        yield entry
