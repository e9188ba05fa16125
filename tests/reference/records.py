"""Records inside a batch."""

from __future__ import annotations

from typing import NamedTuple

from tests.reference import varint
from trioq.errors import InvalidRecord


class RawRecord(NamedTuple):
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...]


def wrap64(value: int) -> int:
    """As a 64-bit integer overflows."""
    return (value + 2**63) % 2**64 - 2**63


def _field(value: bytes | None) -> bytes:
    return varint.encode(-1) if value is None else varint.encode(len(value)) + value


def encode_record(record: RawRecord, *, attributes: int = 0) -> bytes:
    body = (
        bytes([attributes])
        + varint.encode(record.timestamp_delta)
        + varint.encode(record.offset_delta)
        + _field(record.key)
        + _field(record.value)
        + varint.encode(len(record.headers))
        + b"".join(_field(key) + _field(value) for key, value in record.headers)
    )
    return varint.encode(len(body)) + body


def _read_field(data: bytes, position: int, end: int, *, nullable: bool):
    length, position = varint.decode(data, position, end, 32)
    if length == -1 and nullable:
        return None, position
    if length < 0 or length > end - position:
        raise varint.VarintError("field length")
    return data[position : position + length], position + length


def _decode_record(data: bytes, position: int) -> tuple[RawRecord, int]:
    length, position = varint.decode(data, position, len(data), 32)
    if length < 0 or length > len(data) - position:
        raise varint.VarintError("record length")
    end = position + length
    if position == end:
        raise varint.VarintError("no attributes")
    timestamp_delta, position = varint.decode(data, position + 1, end, 64)
    offset_delta, position = varint.decode(data, position, end, 32)
    key, position = _read_field(data, position, end, nullable=True)
    value, position = _read_field(data, position, end, nullable=True)
    header_count, position = varint.decode(data, position, end, 32)
    if header_count < 0:
        raise varint.VarintError("header count")
    headers = []
    for _ in range(header_count):
        header_key, position = _read_field(data, position, end, nullable=False)
        header_value, position = _read_field(data, position, end, nullable=True)
        headers.append((header_key, header_value))
    if position != end:
        raise varint.VarintError("record end")
    return RawRecord(timestamp_delta, offset_delta, key, value, tuple(headers)), end


def read(data: bytes, record_count: int):
    """Yields records one by one; raises InvalidRecord where the next is malformed."""
    position = 0
    for index in range(record_count):
        if position == len(data):
            raise InvalidRecord(f"record {index} is missing")
        try:
            record, position = _decode_record(data, position)
        except varint.VarintError as error:
            raise InvalidRecord(f"record {index}: {error}") from error
        yield record
    if position != len(data):
        raise InvalidRecord("trailing bytes")


def walk_records(data: bytes, record_count: int) -> None:
    for index, record in enumerate(read(data, record_count)):
        if record.offset_delta != index:
            raise InvalidRecord(f"record {index} has offset delta {record.offset_delta}")


def find_timestamp(
    data: bytes,
    record_count: int,
    base_offset: int,
    base_timestamp: int,
    target_ms: int,
    *,
    start_delta: int = 0,
):
    position = 0
    for index in range(record_count):
        if position == len(data):
            raise InvalidRecord("missing")
        try:
            record, position = _decode_record(data, position)
        except varint.VarintError as error:
            raise InvalidRecord(f"record {index}: {error}") from error
        if record.offset_delta < 0:
            raise InvalidRecord(f"record {index}: offset delta {record.offset_delta}")
        timestamp = wrap64(base_timestamp + record.timestamp_delta)
        if timestamp >= target_ms and record.offset_delta >= start_delta:
            return wrap64(base_offset + record.offset_delta), timestamp
    return None


def max_timestamp_offset(data: bytes, record_count: int, base_offset: int, base_timestamp: int):
    """Bytes after the last record are not looked at, as in find_timestamp."""
    best = None
    position = 0
    for index in range(record_count):
        if position == len(data):
            raise InvalidRecord("missing")
        try:
            record, position = _decode_record(data, position)
        except varint.VarintError as error:
            raise InvalidRecord(f"record {index}: {error}") from error
        if record.offset_delta < 0:
            raise InvalidRecord(f"record {index}: offset delta {record.offset_delta}")
        timestamp = wrap64(base_timestamp + record.timestamp_delta)
        if best is None or timestamp > best[1]:
            best = wrap64(base_offset + record.offset_delta), timestamp
    return best
