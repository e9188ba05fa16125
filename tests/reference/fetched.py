"""The batches of a Fetch response, as a consumer reads them."""

from __future__ import annotations

from typing import NamedTuple

from tests.reference import batch as reference
from tests.reference.crc32c import crc32c
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    KafkaError,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


class Batch(NamedTuple):
    header: reference.Header
    start_offset: int
    records: list[tuple] | type[InvalidRecord]
    """Those to show, or the error of opening the batch."""


def _header(data: bytes, position: int) -> reference.Header | None:
    """None where the batch is cut off."""
    rest = data[position:]
    if len(rest) > 16 and rest[16] in {0, 1}:
        raise UnsupportedForMessageFormat(str(rest[16]))
    if len(rest) < 12:
        return None
    size = int.from_bytes(rest[8:12], "big", signed=True) + 12
    if size < 61:
        raise CorruptMessage("size")
    if size > len(rest):
        return None
    header = reference.Header(*reference.FIELDS.unpack_from(rest))
    if header.magic != 2 or crc32c(rest[21:size]) != header.crc:
        raise CorruptMessage("magic or crc")
    if header.last_offset_delta < 0 or not 0 <= header.record_count <= header.last_offset_delta + 1:
        raise CorruptMessage("count")
    if not 0 <= header.base_offset < 2**63 - 1 - header.last_offset_delta:
        raise CorruptMessage("base offset")
    if header.attributes & 7 > 4:
        raise UnsupportedCompressionType("codec")
    return header


def _records(payload: bytes, header: reference.Header, start_offset: int, decompress):
    try:
        if header.attributes & 7:
            payload = decompress(header.attributes & 7, payload)
        found = reference.decode_records(payload, header)
    except InvalidRecord:
        return InvalidRecord
    return [record for record in found if record[0] >= start_offset]


def _is_abort_marker(payload: bytes, header: reference.Header) -> bool:
    """By the first record alone, whatever follows it."""
    try:
        record, _ = reference.reference_records._decode_record(payload, 0)
    except (reference.reference_records.varint.VarintError, IndexError):
        return False
    return record.key is not None and len(record.key) >= 4 and record.key[2:4] == b"\0\0"


def read(data: bytes, start_offset: int, aborted, decompress):
    """(batches, next offset, is truncated)."""
    waiting = sorted((first, producer) for producer, first in aborted or ())
    hidden: set[int] = set()
    batches = []
    position = 0
    next_offset = start_offset
    while position < len(data):
        try:
            header = _header(data, position)
        except KafkaError:
            if next_offset > start_offset:
                break
            raise
        if header is None:
            return batches, next_offset, True
        payload = data[position + 61 : position + header.size_bytes]
        position += header.size_bytes
        last_offset = header.base_offset + header.last_offset_delta
        is_control = bool(header.attributes & 0x20)
        is_hidden = False
        if header.attributes & 0x10:
            while waiting and waiting[0][0] <= last_offset:
                hidden.add(waiting.pop(0)[1])
            if header.producer_id in hidden:
                is_hidden = not is_control
                if is_control and _is_abort_marker(payload, header):
                    hidden.discard(header.producer_id)
        next_offset = max(next_offset, last_offset + 1)
        if is_hidden or is_control or header.record_count == 0 or last_offset < start_offset:
            continue
        first = max(start_offset, header.base_offset)
        batches.append(Batch(header, first, _records(payload, header, first, decompress)))
    return batches, next_offset, False
