"""Record batches: the native code against the plain-Python reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from tests.reference import batch as reference
from tests.reference import records as reference_records
from trioq._native import batch as native
from trioq._native.crc32c import crc32c
from trioq.errors import CorruptMessage, InvalidRecord, KafkaError
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import RATIO_FREE_BYTES, Codec
from trioq.record.validate import check_produced, recompress

# The reference computes CRCs a byte at a time; tests of their own compare the two.
reference.crc32c = crc32c

_MAX_BYTES = 1 << 16
_LOG = os.memfd_create("trioq-fuzz-log") if hasattr(os, "memfd_create") else -1


def _fields(header: Any) -> Any:
    """What a native header and a reference header have in common."""
    if isinstance(header, Raised):
        return header
    names = [name for name in reference.Header._fields if name != "batch_length"]
    return [getattr(header, name) for name in (*names, "size_bytes")]


def _sealed(data: bytes) -> bytes:
    """With the right length and CRC, so that the checks behind those are met."""
    return reference.seal(data) if len(data) >= native.HEADER_BYTES else data


def check_batch(data: bytes) -> None:
    choices = Choices(data)
    mode = choices.byte()
    target_ms = choices.number(8)
    body = choices.rest()
    if mode & 1:
        body = _sealed(body)
    position = mode >> 1 & 3
    buffer = b"\x02" * position + body + b"\x02" * (mode >> 3 & 3)
    peeked = outcome(KafkaError, native.peek, buffer, position)
    assert _fields(peeked) == _fields(outcome(KafkaError, reference.peek, buffer, position))
    for walk in (True, False):
        found = outcome(KafkaError, native.validate, buffer, position, walk=walk)
        expected = outcome(KafkaError, reference.validate, buffer, position, walk=walk)
        assert _fields(found) == _fields(expected)
    if isinstance(peeked, Raised):
        return
    payload = buffer[position + native.HEADER_BYTES : position + peeked.size_bytes]
    header = reference.peek(buffer, position)
    decoded = outcome(InvalidRecord, native.decode_records, payload, peeked)
    assert decoded == outcome(InvalidRecord, reference.decode_records, payload, header)
    _check_times(payload, header, target_ms)


def _check_times(payload: bytes, header: reference.Header, target_ms: int) -> None:
    arguments = (payload, header.record_count, header.base_offset, header.base_timestamp)
    assert outcome(InvalidRecord, native.max_timestamp_offset, *arguments) == outcome(
        InvalidRecord, reference_records.max_timestamp_offset, *arguments
    )
    for target in (target_ms, header.base_timestamp, header.max_timestamp):
        assert outcome(InvalidRecord, native.find_timestamp, *arguments, target) == outcome(
            InvalidRecord, reference_records.find_timestamp, *arguments, target
        )


def check_records(data: bytes) -> None:
    choices = Choices(data)
    count = choices.number(1)
    payload = choices.rest()
    found = outcome(InvalidRecord, native.walk_records, payload, count)
    assert found == outcome(InvalidRecord, reference_records.walk_records, payload, count)


def check_scan(data: bytes) -> None:
    """A log file's bytes: scan, locate and last_edge, in memory and in a file."""
    choices = Choices(data)
    mode = choices.byte()
    target = choices.number(8) >> (mode & 0x38)
    log = choices.rest()
    if mode & 2:
        log = with_crcs(log)
    position, end = 0, len(log) - (mode >> 6 if len(log) > 3 else 0)
    check_crc = bool(mode & 1)
    headers, valid_end, reason = native.scan(log, position, end, check_crc=check_crc)
    expected, expected_end, is_corrupt = reference.scan(log, position, end, check_crc=check_crc)
    assert [(h.position, _fields(h)) for h in headers] == [(p, _fields(h)) for p, h in expected]
    assert (valid_end, reason is not None) == (expected_end, is_corrupt)
    located = outcome(CorruptMessage, native.locate, log, position, end, target)
    assert located == outcome(CorruptMessage, reference.locate, log, position, end, target)
    if _LOG >= 0:
        os.ftruncate(_LOG, 0)
        os.pwrite(_LOG, log, 0)
        found = outcome(CorruptMessage, native.locate_in_file, _LOG, position, end, target)
        assert found == located
        edge = outcome(CorruptMessage, native.last_edge, _LOG, position, end)
        assert isinstance(edge, Raised) or valid_end <= edge <= end


def with_crcs(log: bytes) -> bytes:
    """With the right CRC in every batch that its length leads to."""
    out = bytearray(log)
    at = 0
    while len(out) - at >= native.HEADER_BYTES:
        size = int.from_bytes(out[at + 8 : at + 12], "big", signed=True) + 12
        if not native.HEADER_BYTES <= size <= len(out) - at:
            break
        out[at + 17 : at + 21] = crc32c(bytes(out[at + 21 : at + size])).to_bytes(4, "big")
        at += size
    return bytes(out)


def check_produce(data: bytes) -> None:
    """What a client may send as records: judged, opened and recompressed within its limits."""
    choices = Choices(data)
    mode = choices.byte()
    batch = choices.rest()
    if mode & 1:
        batch = _sealed(batch)
    ratio = (None, 1, 100)[(mode >> 1) % 3]
    header = outcome(
        KafkaError, check_produced, batch, strict=True, max_bytes=_MAX_BYTES, max_ratio=ratio
    )
    if isinstance(header, Raised):
        return
    codec = Codec((mode >> 3) % 5)
    again = recompress(batch, codec, max_bytes=_MAX_BYTES, max_ratio=ratio)
    assert check_produced(again, strict=True, max_bytes=RATIO_FREE_BYTES).codec == codec
    records = outcome(InvalidRecord, _records_of, batch)
    assert records == outcome(InvalidRecord, _records_of, again)
    assert len(records) == header.record_count


def _records_of(batch: bytes) -> Any:
    from trioq.record.batch import read_records

    return read_records(batch, max_bytes=RATIO_FREE_BYTES)


def sample_batches() -> Iterator[bytes]:
    """Batches of every codec and kind, small."""
    chance = seeded("batches")
    for codec in Codec:
        for count in (1, 3, 12):
            records = [
                NewRecord(
                    1_700_000_000_000 + chance.randrange(5),
                    chance.choice((None, b"", b"key")),
                    chance.choice((None, b"value " * chance.randrange(9))),
                    [("header", None), ("h", b"x")][: chance.randrange(3)],
                )
                for _ in range(count)
            ]
            yield bytes(build_batch(records, codec=codec))
            yield bytes(
                build_batch(
                    records,
                    codec=codec,
                    base_offset=chance.randrange(100),
                    leader_epoch=3,
                    producer_id=9,
                    producer_epoch=1,
                    base_sequence=2**31 - 2,
                    is_transactional=count == 3,
                )
            )


def _batch_seeds() -> Iterator[bytes]:
    for number, batch in enumerate(sample_batches()):
        yield bytes([number & 1]) + (1_700_000_000_002).to_bytes(8, "big") + batch


def _record_seeds() -> Iterator[bytes]:
    for batch in sample_batches():
        header = native.peek(batch)
        if header.codec == Codec.NONE:
            yield bytes([header.record_count]) + batch[native.HEADER_BYTES :]


def _scan_seeds() -> Iterator[bytes]:
    batches = list(sample_batches())
    for number in range(len(batches) - 2):
        log = bytearray()
        offset = 0
        for batch in batches[number : number + 3]:
            stamped = bytearray(batch)
            native.stamp(stamped, 0, offset, 1)
            offset += native.peek(stamped).record_count
            log += stamped
        yield bytes([number & 3 | 0x38]) + (number << 56).to_bytes(8, "big") + log


def _produce_seeds() -> Iterator[bytes]:
    for number, batch in enumerate(sample_batches()):
        yield bytes([1 | number % 15 << 1]) + batch


TARGETS = (
    Target("batch", check_batch, _batch_seeds, 1024),
    Target("records", check_records, _record_seeds, 512),
    Target("scan", check_scan, _scan_seeds, 2048),
    Target("produce", check_produce, _produce_seeds, 2048),
)
