"""Compaction of a log's bytes, batch by batch; the contract is in trioq/_native/compact.pyi."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.reference import varint
from tests.reference.batch import FIELDS, Header, seal
from tests.reference.crc32c import crc32c
from tests.reference.records import wrap64

CODEC_MASK = 0x07
APPEND_TIME = 0x08
STAYS_WHOLE = 0x10 | 0x20  # transactional, control
DELETE_HORIZON = 0x40

Decompress = Callable[[bytes], bytes | None]


class Stored(NamedTuple):
    """One record of a batch, as far as compaction reads it."""

    data: bytes
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    has_value: bool
    tail: bytes  # from the offset delta on


class Cleaned(NamedTuple):
    """What is left of a batch: its bytes as they are, or a header and its records uncompressed."""

    copied: bytes | None
    header: Header | None = None
    records: bytes = b""


def parse(data: bytes, position: int) -> tuple[Stored, int]:
    """The record at `position`; what stands behind its value's length is not looked at."""
    start = position
    length, position = varint.decode(data, position, len(data), 32)
    if length < 1 or length > len(data) - position:
        raise varint.VarintError("length")
    end = position + length
    timestamp_delta, behind_delta = varint.decode(data, position + 1, end, 64)
    offset_delta, position = varint.decode(data, behind_delta, end, 32)
    key_length, position = varint.decode(data, position, end, 32)
    if not -1 <= key_length <= end - position:
        raise varint.VarintError("key")
    key = None if key_length < 0 else data[position : position + key_length]
    value_length, position = varint.decode(data, position + max(key_length, 0), end, 32)
    if not -1 <= value_length <= end - position:
        raise varint.VarintError("value")
    record = Stored(
        data[start:end],
        timestamp_delta,
        offset_delta,
        key,
        value_length >= 0,
        data[behind_delta:end],
    )
    return record, end


def sound_records(data: bytes | None, header: Header) -> list[Stored] | None:
    """The records of a batch, None unless they are as many as it says, with ascending offsets."""
    if data is None:
        return None
    found: list[Stored] = []
    position = 0
    try:
        for _ in range(header.record_count):
            record, position = parse(data, position)
            found.append(record)
    except varint.VarintError:
        return None
    deltas = [-1, *(record.offset_delta for record in found)]
    ascending = all(one < two for one, two in itertools.pairwise(deltas))
    return (
        found
        if ascending and deltas[-1] <= header.last_offset_delta and position == len(data)
        else None
    )


def batches(log: bytes, next_offset: int, end_offset: int) -> Iterator[tuple[Header, bytes]]:
    """The batches at the front of a log that are whole, sound and in their place."""
    position = 0
    while len(log) - position >= FIELDS.size:
        header = Header(*FIELDS.unpack_from(log, position))
        batch = log[position : position + max(header.size_bytes, 0)]
        if (
            header.size_bytes < FIELDS.size
            or header.magic != 2
            or header.last_offset_delta < 0
            or not 0 <= header.record_count <= header.last_offset_delta + 1
            or len(batch) < header.size_bytes
            or not next_offset <= header.base_offset <= end_offset - 1 - header.last_offset_delta
            or crc32c(batch[21:]) != header.crc
        ):
            return
        yield header, batch
        next_offset = header.base_offset + header.last_offset_delta + 1
        position += header.size_bytes


def key_offsets(
    log: bytes, start_offset: int, end_offset: int, max_entries: int, decompress: Decompress
) -> tuple[dict[bytes, int], int]:
    """The last offset of each key, and the offset up to which that is known."""
    found: dict[bytes, int] = {}
    mapped_end = start_offset
    for header, batch in batches(log, start_offset, end_offset):
        if header.record_count and not header.attributes & STAYS_WHOLE:
            if len(found) + header.record_count > max_entries:
                break
            payload = batch[FIELDS.size :]
            data = decompress(batch) if header.attributes & CODEC_MASK else payload
            for record in sound_records(data, header) or ():
                if record.key is not None:
                    found[record.key] = header.base_offset + record.offset_delta
        mapped_end = header.base_offset + header.last_offset_delta + 1
    return found, mapped_end


def clean(
    log: bytes,
    offsets: dict[bytes, int],
    *,
    base_offset: int,
    map_end_offset: int,
    group_end_offset: int,
    last_offsets: dict[int, int],
    now_ms: int,
    delete_horizon_ms: int,
    decompress: Decompress,
) -> list[Cleaned]:
    """What stays of each batch, in order."""
    out: list[Cleaned] = []
    for header, batch in batches(log, base_offset, group_end_offset):
        last_offset = header.base_offset + header.last_offset_delta
        must_stay = last_offset + 1 == group_end_offset or (
            header.producer_id >= 0 and last_offsets.get(header.producer_id, -1) == last_offset
        )
        if header.attributes & STAYS_WHOLE or header.base_offset >= map_end_offset:
            out.append(Cleaned(batch))
            continue
        if header.record_count == 0:
            if must_stay:
                out.append(Cleaned(batch))
            continue
        payload = batch[FIELDS.size :]
        data = decompress(batch) if header.attributes & CODEC_MASK else payload
        records = sound_records(data, header)
        if records is None:
            out.append(Cleaned(batch))
            continue
        has_horizon = bool(header.attributes & DELETE_HORIZON)
        due = has_horizon and now_ms >= header.base_timestamp
        kept = [
            record
            for record in records
            if header.base_offset + record.offset_delta >= map_end_offset
            or (
                record.key is not None
                and (record.has_value or not due)
                and offsets.get(record.key, -1) <= header.base_offset + record.offset_delta
            )
        ]
        new_horizon = not has_horizon and any(not record.has_value for record in kept)
        if len(kept) == len(records) and not new_horizon:
            out.append(Cleaned(batch))
        elif kept:
            out.append(_rewritten(header, kept, delete_horizon_ms if new_horizon else None))
        elif must_stay:
            attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON)
            out.append(
                Cleaned(
                    None, header._replace(attributes=attributes, base_timestamp=-1, record_count=0)
                )
            )
    return out


def _rewritten(header: Header, kept: list[Stored], horizon_ms: int | None) -> Cleaned:
    shift = 0
    max_timestamp = max(wrap64(header.base_timestamp + one.timestamp_delta) for one in kept)
    if not header.attributes & APPEND_TIME:
        header = header._replace(max_timestamp=max_timestamp)
    if horizon_ms is not None:
        shift = wrap64(header.base_timestamp - horizon_ms)
        header = header._replace(
            attributes=header.attributes | DELETE_HORIZON, base_timestamp=horizon_ms
        )
    data = b"".join(_shifted(record, shift) for record in kept)
    return Cleaned(None, header._replace(record_count=len(kept)), data)


def _shifted(record: Stored, shift: int) -> bytes:
    if shift == 0:
        return record.data
    _, position = varint.decode(record.data, 0, len(record.data), 32)
    body = (
        record.data[position : position + 1]
        + varint.encode(wrap64(record.timestamp_delta + shift))
        + record.tail
    )
    return varint.encode(len(body)) + body


def joined(header: Header, records: bytes) -> bytes:
    """A batch of a header and its (compressed, if it says so) records."""
    return seal(FIELDS.pack(*header) + records)
