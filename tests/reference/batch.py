"""v2 batches: header, checks, stamping, scanning, building."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.reference import records as reference_records
from tests.reference.crc32c import crc32c
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)

FIELDS = struct.Struct(
    ">q"  # base offset
    "i"  # batch length
    "i"  # partition leader epoch
    "b"  # magic
    "I"  # crc
    "h"  # attributes
    "i"  # last offset delta
    "q"  # base timestamp
    "q"  # max timestamp
    "q"  # producer id
    "h"  # producer epoch
    "i"  # base sequence
    "i"  # record count
)


class Header(NamedTuple):
    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        return self.batch_length + 12


def peek(buf: bytes, position: int = 0) -> Header:
    data = bytes(buf[position:])
    if len(data) > 16 and data[16] in {0, 1}:
        raise UnsupportedForMessageFormat(str(data[16]))
    if len(data) < 61:
        raise CorruptMessage("short")
    header = Header(*FIELDS.unpack_from(data))
    if header.magic != 2:
        raise CorruptMessage("magic")
    if not 61 <= header.size_bytes <= len(data):
        raise CorruptMessage("size")
    return header


def validate(buf: bytes, position: int = 0, *, walk: bool = True) -> Header:
    header = peek(buf, position)
    batch = bytes(buf[position : position + header.size_bytes])
    if crc32c(batch[21:]) != header.crc:
        raise CorruptMessage("crc")
    if header.attributes & 0xFF80:
        raise InvalidRecord("attributes")
    if header.record_count <= 0 or header.last_offset_delta + 1 != header.record_count:
        raise InvalidRecord("count")
    if header.attributes & 7 > 4:
        raise UnsupportedCompressionType("codec")
    if walk and header.attributes & 7 == 0:
        reference_records.walk_records(batch[61:], header.record_count)
    return header


def seal(batch: bytes) -> bytes:
    """With the batch length and CRC that its bytes ask for."""
    out = bytearray(batch)
    struct.pack_into(">i", out, 8, len(out) - 12)
    struct.pack_into(">I", out, 17, crc32c(bytes(out[21:])))
    return bytes(out)


def stamp(batch: bytes, base_offset: int, leader_epoch: int) -> bytes:
    return (
        struct.pack(">q", base_offset) + batch[8:12] + struct.pack(">i", leader_epoch) + batch[16:]
    )


def stamp_append_time(batch: bytes, timestamp_ms: int) -> bytes:
    out = bytearray(batch)
    out[22] |= 0x08
    struct.pack_into(">q", out, 35, timestamp_ms)
    struct.pack_into(">I", out, 17, crc32c(bytes(out[21:])))
    return bytes(out)


def scan(buf: bytes, position: int, end: int, *, check_crc: bool):
    """(headers with their positions, valid end, is the rest corrupt)."""
    headers = []
    while end - position >= 61:
        header = Header(*FIELDS.unpack_from(buf, position))
        if (
            header.size_bytes < 61
            or header.magic != 2
            or header.last_offset_delta < 0
            or not 0 <= header.record_count <= header.last_offset_delta + 1
        ):
            return headers, position, True
        if header.size_bytes > end - position:
            return headers, position, False
        if (
            check_crc
            and crc32c(bytes(buf[position + 21 : position + header.size_bytes])) != header.crc
        ):
            return headers, position, True
        headers.append((position, header))
        position += header.size_bytes
    return headers, position, False


def locate(buf: bytes, position: int, end: int, target_offset: int) -> tuple[int, int]:
    while end - position >= 61:
        header = Header(*FIELDS.unpack_from(buf, position))
        if header.size_bytes < 61 or header.magic != 2 or header.last_offset_delta < 0:
            raise CorruptMessage("no header")
        if header.base_offset + header.last_offset_delta >= target_offset:
            return position, header.size_bytes
        position += header.size_bytes
    return -1, -1


def build(
    records,
    *,
    base_offset=0,
    base_timestamp=None,
    leader_epoch=-1,
    attributes=0,
    producer_id=-1,
    producer_epoch=-1,
    base_sequence=-1,
    compress=None,
) -> bytes:
    if base_timestamp is None:
        base_timestamp = records[0][0]
    payload = b"".join(
        reference_records.encode_record(
            reference_records.RawRecord(
                reference_records.wrap64(timestamp - base_timestamp),
                index,
                key,
                value,
                tuple((name.encode(), item) for name, item in headers),
            )
        )
        for index, (timestamp, key, value, headers) in enumerate(records)
    )
    header = FIELDS.pack(
        base_offset,
        0,
        leader_epoch,
        2,
        0,
        attributes,
        len(records) - 1,
        base_timestamp,
        max(record[0] for record in records),
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    return seal(header + (compress(payload) if compress else payload))


def decode_records(data: bytes, header: Header):
    decoded = []
    previous = -1
    for record in reference_records.read(data, header.record_count):
        if not previous < record.offset_delta <= header.last_offset_delta:
            raise InvalidRecord("offset delta")
        previous = record.offset_delta
        timestamp = reference_records.wrap64(header.base_timestamp + record.timestamp_delta)
        decoded.append(
            (
                reference_records.wrap64(header.base_offset + record.offset_delta),
                header.max_timestamp if header.attributes & 0x08 else timestamp,
                record.key,
                record.value,
                tuple((key.decode(errors="replace"), value) for key, value in record.headers),
            )
        )
    return decoded
