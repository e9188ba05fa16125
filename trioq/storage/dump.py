"""Showing the files of a partition as lines; what `trioq log dump` prints.

Files are read as they are, in bounded memory; damage becomes a line of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from trioq._native.batch import BatchHeader
from trioq.errors import CorruptMessage, InvalidRecord, TrioqError, UnsupportedForMessageFormat
from trioq.record.batch import read_records
from trioq.record.compression import Codec
from trioq.record.control import ControlType, control_type, read_end_transaction
from trioq.storage import checkpoints, offset_index, time_index
from trioq.storage.batch_audit import AuditedBatch, audit_batches
from trioq.storage.producer_snapshot import ENTRY_BYTES as SNAPSHOT_ENTRY_BYTES
from trioq.storage.producer_snapshot import HEADER_BYTES as SNAPSHOT_HEADER_BYTES
from trioq.storage.producer_snapshot import CorruptSnapshot, decode_snapshot
from trioq.storage.txn_index import ENTRY_BYTES as TXN_ENTRY_BYTES
from trioq.storage.txn_index import CorruptTransactionIndex, decode_aborted

Value = int | str | bool | None

MAX_OPENED_BATCH_BYTES: Final = 256 << 20
_CHUNK_ENTRIES: Final = 4096
_OFFSET_CHECKPOINTS: Final = (
    checkpoints.RECOVERY_POINT_FILE,
    checkpoints.HIGH_WATERMARK_FILE,
    checkpoints.LOG_START_FILE,
    checkpoints.CLEANER_FILE,
)


class UnknownFile(TrioqError):
    """The name of a file says nothing of what is in it; the message lists what can be shown."""


class DumpLine(NamedTuple):
    """One thing in a file: a batch, a record, an index entry, or a problem.

    `position` is the byte where it begins (a line's number in text files). `fields` are in the
    order to show; bytes come as text, with what is no UTF-8 escaped.
    """

    kind: str
    position: int
    fields: tuple[tuple[str, Value], ...]

    def __str__(self) -> str:
        shown = (f"{name}={_shown(value)}" for name, value in self.fields)
        return " ".join((self.kind, f"position={self.position}", *shown))


def dump_file(path: str | Path, *, records: bool = False) -> Iterator[DumpLine]:
    """What is in a file of a partition or log directory, told apart by its name.

    `records` opens the batches of a `.log`. A trailing `.deleted` is ignored.

    Raises:
        UnknownFile: not a file of ours, by its name.
        OSError: it cannot be read.

    """
    path = Path(path)
    name = path.name.removesuffix(".deleted")
    suffix = Path(name).suffix
    stem = name.removesuffix(suffix)
    base_offset = int(stem) if stem.isascii() and stem.isdigit() else 0
    if suffix == ".log":
        return _dump_log(path, records=records)
    if suffix == ".index":
        return _dump_offset_index(path, base_offset)
    if suffix == ".timeindex":
        return _dump_time_index(path, base_offset)
    if suffix == ".snapshot":
        return _dump_snapshot(path)
    if suffix == ".txnindex":
        return _dump_txn_index(path)
    if name == checkpoints.LEADER_EPOCH_FILE:
        return _dump_epochs(path)
    if name in _OFFSET_CHECKPOINTS:
        return _dump_offsets(path)
    raise UnknownFile(
        f"{path}: cannot tell what it holds; shown are .log, .index, .timeindex, .snapshot, "
        f".txnindex, {checkpoints.LEADER_EPOCH_FILE} and {', '.join(_OFFSET_CHECKPOINTS)}"
    )


def _problem(position: int, what: str) -> DumpLine:
    return DumpLine("problem", position, (("what", what),))


def _dump_log(path: Path, *, records: bool) -> Iterator[DumpLine]:
    with path.open("rb") as file:
        fd = file.fileno()
        for batch in audit_batches(fd, os.fstat(fd).st_size):
            if batch.header is not None:
                yield _batch_line(batch, batch.header)
            if batch.problem is not None:
                yield _problem(batch.position, batch.problem)
            elif batch.header is not None and (records or batch.header.is_control):
                yield from _record_lines(fd, batch, is_control=batch.header.is_control)


def _batch_line(batch: AuditedBatch, header: BatchHeader) -> DumpLine:
    return DumpLine(
        "batch",
        batch.position,
        (
            ("size_bytes", batch.size_bytes),
            ("base_offset", header.base_offset),
            ("last_offset", header.last_offset),
            ("record_count", header.record_count),
            ("leader_epoch", header.leader_epoch),
            ("base_timestamp", header.base_timestamp),
            ("max_timestamp", header.max_timestamp),
            ("timestamp_type", "append" if header.timestamp_type else "create"),
            ("codec", _codec_name(header.codec)),
            ("producer_id", header.producer_id),
            ("producer_epoch", header.producer_epoch),
            ("base_sequence", header.base_sequence),
            ("is_transactional", header.is_transactional),
            ("is_control", header.is_control),
            ("crc", f"{header.crc:#010x}"),
            ("is_valid", batch.problem is None),
        ),
    )


def _record_lines(fd: int, batch: AuditedBatch, *, is_control: bool) -> Iterator[DumpLine]:
    if batch.size_bytes > MAX_OPENED_BATCH_BYTES:
        yield _problem(batch.position, f"not opened: over {MAX_OPENED_BATCH_BYTES} bytes")
        return
    data = os.pread(fd, batch.size_bytes, batch.position)
    try:
        found = read_records(data)
        for record in found:
            fields: tuple[tuple[str, Value], ...] = (
                ("offset", record.offset),
                ("timestamp", record.timestamp),
            )
            if is_control:
                fields += _control_fields(data, record.key)
            else:
                headers = ", ".join(f"{key}: {_text(value)}" for key, value in record.headers)
                fields += (
                    ("key", _text(record.key)),
                    ("value", _text(record.value)),
                    ("headers", headers),
                )
            yield DumpLine("record", batch.position, fields)
    except (CorruptMessage, InvalidRecord, UnsupportedForMessageFormat) as error:
        yield _problem(batch.position, str(error))


def _control_fields(batch: bytes, key: bytes | None) -> tuple[tuple[str, Value], ...]:
    number = control_type(key)
    known = number in ControlType.__members__.values()
    fields: tuple[tuple[str, Value], ...] = (
        ("control", ControlType(number).name if known else number),
    )
    marker = read_end_transaction(batch)
    if marker is not None:
        fields += (("coordinator_epoch", marker.coordinator_epoch),)
    return fields


def _entries(path: Path, entry_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of the entries of a file; the last may be short."""
    position = 0
    with path.open("rb") as file:
        while chunk := file.read(entry_bytes * _CHUNK_ENTRIES):
            for start in range(0, len(chunk), entry_bytes):
                yield position + start, chunk[start : start + entry_bytes]
            position += len(chunk)


def _dump_offset_index(path: Path, base_offset: int) -> Iterator[DumpLine]:
    for position, entry in _entries(path, offset_index.ENTRY_BYTES):
        if len(entry) < offset_index.ENTRY_BYTES:
            yield _problem(position, "the last entry is cut off")
            return
        relative_offset, log_position = offset_index.ENTRY.unpack(entry)
        yield DumpLine(
            "offset",
            position,
            (("offset", base_offset + relative_offset), ("log_position", log_position)),
        )


def _dump_time_index(path: Path, base_offset: int) -> Iterator[DumpLine]:
    for position, entry in _entries(path, time_index.ENTRY_BYTES):
        if len(entry) < time_index.ENTRY_BYTES:
            yield _problem(position, "the last entry is cut off")
            return
        timestamp, relative_offset = time_index.ENTRY.unpack(entry)
        yield DumpLine(
            "time", position, (("timestamp", timestamp), ("offset", base_offset + relative_offset))
        )


def _dump_snapshot(path: Path) -> Iterator[DumpLine]:
    try:
        entries = decode_snapshot(path.read_bytes())
    except CorruptSnapshot as error:
        yield _problem(0, str(error))
        return
    for number, entry in enumerate(entries):
        position = SNAPSHOT_HEADER_BYTES + number * SNAPSHOT_ENTRY_BYTES
        yield DumpLine("producer", position, tuple(entry._asdict().items()))


def _dump_txn_index(path: Path) -> Iterator[DumpLine]:
    data = path.read_bytes()
    position = 0
    try:
        for transaction in decode_aborted(data):
            yield DumpLine("aborted", position, tuple(transaction._asdict().items()))
            position += TXN_ENTRY_BYTES
    except CorruptTransactionIndex as error:
        yield _problem(position, str(error))
        return
    if position < len(data):
        yield _problem(position, "the last entry is cut off")


def _dump_epochs(path: Path) -> Iterator[DumpLine]:
    try:
        entries = checkpoints.decode_epochs(path.read_bytes(), path.name)
    except checkpoints.CorruptCheckpoint as error:
        yield _problem(0, str(error))
        return
    for number, (epoch, start_offset) in enumerate(entries, 3):
        yield DumpLine("epoch", number, (("leader_epoch", epoch), ("start_offset", start_offset)))


def _dump_offsets(path: Path) -> Iterator[DumpLine]:
    try:
        offsets = checkpoints.decode_offsets(path.read_bytes(), path.name)
    except checkpoints.CorruptCheckpoint as error:
        yield _problem(0, str(error))
        return
    for number, ((topic, partition), offset) in enumerate(offsets.items(), 3):
        yield DumpLine(
            "checkpoint",
            number,
            (("topic", topic), ("partition", partition), ("offset", offset)),
        )


def _codec_name(number: int) -> str:
    known = number in Codec.__members__.values()
    return Codec(number).name.lower() if known else f"unknown ({number})"


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _shown(value: Value) -> str:
    """A value without line breaks or other control characters; text in quotes if it has spaces."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return value if value.isprintable() and value and " " not in value else repr(value)
