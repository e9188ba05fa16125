"""What compaction should leave, said record by record in Python, and ways to make it happen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.unit.storage_support import NOW_MS
from trioq._native.batch import BatchHeader, peek
from trioq._native.crc32c import crc32c
from trioq.record.batch import Record, read_records
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import Codec
from trioq.storage.compaction import compaction_steps
from trioq.storage.compaction_map import CompactionTotals, Work
from trioq.storage.log import Log

HORIZON_BIT = 0x40


class Stored(NamedTuple):
    """One batch as a log holds it."""

    header: BatchHeader
    records: list[Record]
    data: bytes


def keyed_batch(
    records: Sequence[tuple[bytes | None, bytes | None]],
    *,
    timestamp: int = NOW_MS,
    codec: Codec = Codec.NONE,
    producer: tuple[int, int, int] | None = None,
    **options,
) -> bytearray:
    """A batch of (key, value), one millisecond after the other."""
    if producer is not None:
        options |= {
            "producer_id": producer[0],
            "producer_epoch": producer[1],
            "base_sequence": producer[2],
        }
    return build_batch(
        [NewRecord(timestamp + i, key, value) for i, (key, value) in enumerate(records)],
        codec=codec,
        **options,
    )


def stored(data: bytes) -> list[Stored]:
    """The batches of a log's bytes, each CRC checked."""
    found = []
    position = 0
    while position < len(data):
        header = peek(data, position)
        batch = data[position : position + header.size_bytes]
        assert header.crc == crc32c(batch[21:])
        found.append(Stored(header, read_records(batch), batch))
        position += header.size_bytes
    return found


def batches_of(log: Log, *, ends_in_hole: bool = False) -> list[Stored]:
    """Every batch, read region by region; each offset below the end leads to one."""
    found: list[Stored] = []
    offset = log.log_start_offset
    while offset < log.written_end_offset:
        region = log.read(offset, 1 << 30, end_offset=log.written_end_offset, min_one_batch=True)
        if region is None and ends_in_hole:
            break
        assert region is not None, f"nothing at {offset} of {log!r}"
        data = os.pread(region.file.fileno(), region.length, region.position)
        region.file.release()
        found += stored(data)
        offset = found[-1].header.next_offset
    return found


def records_of(log: Log) -> list[Record]:
    return [record for one in batches_of(log) for record in one.records]


def compact_log(
    log: Log, *, now_ms: int = NOW_MS, max_entries: int = 1 << 16, pace=lambda _: None
) -> CompactionTotals:
    """Compact a log on this thread, with errors told as the service tells them."""
    work = Work(log, now_ms=now_ms, max_entries=max_entries, pace=pace)
    steps = compaction_steps(log, work)
    for step in steps:
        try:
            step()
        except (OSError, Exception) as error:
            if type(error).__name__ == "PowerCut":
                raise
            steps.throw(error)
    return work.totals


def settled(log: Log) -> None:
    """Everything written, synced and below the high watermark; the active segment is empty."""
    assert log.write_group()
    log.roll()
    log.flush()
    log.set_high_watermark(log.durable_end_offset)


def survivors(records: Iterable[Record], end_offset: int) -> list[Record]:
    """The last record of each key below `end_offset`, and all from there on; tombstones too."""
    records = list(records)
    last = {record.key: record.offset for record in records if record.offset < end_offset}
    return [
        record
        for record in records
        if record.offset >= end_offset
        or (record.key is not None and last[record.key] == record.offset)
    ]
