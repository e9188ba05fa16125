"""Compaction of damaged segments: the native map and filter against the plain-Python reference.

What stays must be the same to the byte; of compressed batches, which are compressed anew, the
header and the records. What comes out is read back, and compacted again loses nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.fuzz.target import Choices, Target, seeded
from tests.reference import compact as reference
from tests.reference.batch import FIELDS, Header
from trioq._native import compact
from trioq._native.batch import peek, scan
from trioq._native.crc32c import crc32c
from trioq.errors import InvalidRecord
from trioq.record.batch import record_bytes
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import Codec, compress

# The reference computes CRCs a byte at a time; tests of their own compare the two.
reference.crc32c = crc32c

_SECRET = bytes(range(16))
_HORIZON_MS = 1_700_000_050_000
_NOW_MS = 1_700_000_000_500
_MOST_DECOMPRESSED = 1 << 20


class _Settings(NamedTuple):
    start_offset: int
    end_offset: int
    max_entries: int
    map_end_offset: int | None
    last_offsets: dict[int, int]
    now_ms: int
    interval_bytes: int


def _decompressed(batch: bytes) -> bytes | None:
    try:
        return bytes(record_bytes(batch, peek(batch), max_bytes=_MOST_DECOMPRESSED))
    except InvalidRecord:
        return None


def check_compaction(data: bytes) -> None:
    choices = Choices(data)
    mode = choices.byte()
    settings = _settings(choices)
    log = choices.rest()
    if mode & 1:
        log = _in_order(log, settings.start_offset, seal=bool(mode & 2))
    offsets, mapped_end = _native_map(log, settings)
    expected, expected_end = reference.key_offsets(
        log, settings.start_offset, settings.end_offset, settings.max_entries, _decompressed
    )
    assert mapped_end == expected_end
    assert len(offsets) == len(expected)
    assert {key: offsets.get(key) for key in expected} == expected
    map_end = mapped_end if settings.map_end_offset is None else settings.map_end_offset
    found = _native_clean(log, offsets, map_end, settings)
    cleaned = reference.clean(
        log,
        expected,
        base_offset=settings.start_offset,
        map_end_offset=map_end,
        group_end_offset=settings.end_offset,
        last_offsets=settings.last_offsets,
        now_ms=settings.now_ms,
        delete_horizon_ms=_HORIZON_MS,
        decompress=_decompressed,
    )
    _compare(found, cleaned)
    again = _native_clean(found, offsets, map_end, settings._replace(now_ms=0))
    assert again == found


def _settings(choices: Choices) -> _Settings:
    bits = choices.byte()
    start = choices.byte() & 7
    return _Settings(
        start_offset=start,
        end_offset=(start + choices.byte()) if bits & 1 else 1 << 62,
        max_entries=choices.byte() if bits & 2 else 1000,
        map_end_offset=choices.byte() & 31 if bits & 4 else None,
        last_offsets={9: choices.byte() & 31, 0: 3, 7: -1} if bits & 8 else {},
        now_ms=_HORIZON_MS if bits & 16 else _NOW_MS,
        interval_bytes=100 if bits & 32 else 0,
    )


def _in_order(log: bytes, next_offset: int, *, seal: bool) -> bytes:
    """With ascending base offsets and, if asked for, right CRCs, as far as lengths lead."""
    out = bytearray(log)
    at = 0
    while len(out) - at >= FIELDS.size:
        header = Header(*FIELDS.unpack_from(out, at))
        if not FIELDS.size <= header.size_bytes <= len(out) - at:
            break
        out[at : at + 8] = next_offset.to_bytes(8, "big")
        next_offset += max(header.last_offset_delta, 0) + 1
        if seal:
            body = bytes(out[at + 21 : at + header.size_bytes])
            out[at + 17 : at + 21] = crc32c(body).to_bytes(4, "big")
        at += header.size_bytes
    return bytes(out)


def _native_map(log: bytes, settings: _Settings) -> tuple[compact.OffsetMap, int]:
    offsets = compact.OffsetMap(
        settings.max_entries, _SECRET, settings.start_offset, settings.end_offset
    )
    position, stop = offsets.add_batches(log, 0, len(log))
    while stop == compact.COMPRESSED:
        batch = log[position : position + peek(log, position).size_bytes]
        offsets.add_batch(batch, _decompressed(batch))
        position, stop = offsets.add_batches(log, position + len(batch), len(log))
    mapped, _, _ = scan(log, 0, position, check_crc=True)
    return offsets, mapped[-1].next_offset if mapped else settings.start_offset


def _native_clean(
    log: bytes, offsets: compact.OffsetMap, map_end_offset: int, settings: _Settings
) -> bytes:
    one = compact.BatchFilter(
        offsets,
        map_end_offset=map_end_offset,
        group_end_offset=settings.end_offset,
        last_offsets=settings.last_offsets,
        now_ms=settings.now_ms,
        delete_horizon_ms=_HORIZON_MS,
        base_offset=settings.start_offset,
        index_interval_bytes=settings.interval_bytes,
    )
    out = bytearray()
    position, stop = one.add_batches(log, 0, len(log))
    while stop == compact.COMPRESSED:
        batch = log[position : position + peek(log, position).size_bytes]
        kept = one.open_batch(batch, _decompressed(batch))
        if kept is not None:
            one.close_batch(compress(Codec(peek(batch).codec), kept))
        out += one.take_output()
        position, stop = one.add_batches(log, position + len(batch), len(log))
    assert stop in {compact.NEED_MORE, compact.CORRUPT}
    out += one.take_output()
    assert one.size == len(out)
    offset_index, time_index = one.index_data()
    assert len(offset_index) % 8 == len(time_index) % 12 == 0
    return bytes(out)


def _compare(found: bytes, cleaned: list[reference.Cleaned]) -> None:
    position = 0
    for one in cleaned:
        if one.copied is None:
            header = peek(found, position)
            batch = found[position : position + header.size_bytes]
            assert one.header is not None
            if one.header.attributes & reference.CODEC_MASK:
                assert _decompressed(batch) == one.records
                payload = batch[FIELDS.size :]
            else:
                payload = one.records
            assert batch == reference.joined(one.header, payload)
        else:
            batch = found[position : position + len(one.copied)]
            assert batch == one.copied
        position += len(batch)
    assert position == len(found)


def _seeds() -> Iterator[bytes]:
    chance = seeded("compaction")
    for number in range(60):
        log = bytearray()
        for _ in range(chance.randrange(1, 6)):
            records = [
                NewRecord(
                    _NOW_MS + chance.randrange(9),
                    chance.choice((None, b"", b"a", b"b", b"key")),
                    chance.choice((None, b"", b"value" * chance.randrange(9))),
                    [("header", b"x")][: chance.randrange(2)],
                )
                for _ in range(chance.randrange(1, 6))
            ]
            log += build_batch(
                records,
                codec=Codec(chance.choice((0, 0, 0, 1, 2, 3, 4))),
                producer_id=chance.choice((-1, 9)),
                producer_epoch=0,
                base_sequence=0,
                is_transactional=chance.random() < 0.1,
            )
        yield bytes([3, number, *(chance.randrange(256) for _ in range(5))]) + log


TARGETS = (Target("compaction", check_compaction, _seeds, 2048),)
