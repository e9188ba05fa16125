"""What the storage tests share: configs, batches, a LogDir over a MemoryDisk."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from random import Random

from trioq._native.batch import BatchHeader, validate
from trioq.clock import ManualClock
from trioq.record.builder import NewRecord, build_batch
from trioq.storage.disk import Disk
from trioq.storage.log import Appended, Log
from trioq.storage.log_dirs import LogDirs
from trioq.storage.memory_disk import MemoryDisk
from trioq.types import FileRegion, TopicPartition

TOPIC_ID = uuid.UUID(int=7)
TP = TopicPartition("orders", 0)
NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Config:
    cleanup_policy: tuple[str, ...] = ("delete",)
    delete_retention_ms: int = 86_400_000
    file_delete_delay_ms: int = 60_000
    flush_messages: int = 1 << 62
    flush_ms: int = 1000
    flush_policy: str = "os"
    index_interval_bytes: int = 256
    max_compaction_lag_ms: int = (1 << 63) - 1
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    preallocate: bool = False
    retention_bytes: int = -1
    retention_ms: int = -1
    segment_bytes: int = 1 << 20
    segment_index_bytes: int = 10 << 20
    segment_jitter_ms: int = 0
    segment_ms: int = 7 * 86_400_000


def batch(
    *values: bytes,
    timestamp: int = NOW_MS,
    producer: tuple[int, int, int] | None = None,
    **options,
) -> bytearray:
    """One batch, a record per value; `producer` is (id, epoch, base sequence)."""
    records = [NewRecord(timestamp + i, b"key", value) for i, value in enumerate(values)]
    if producer is not None:
        options |= {
            "producer_id": producer[0],
            "producer_epoch": producer[1],
            "base_sequence": producer[2],
        }
    return build_batch(records, **options)


def append(log: Log, data: bytearray, *, epoch: int = 0, now_ms: int = NOW_MS) -> Appended:
    return log.append(memoryview(data), validate(data), leader_epoch=epoch, now_ms=now_ms)


def put(log: Log, *values: bytes, **options) -> Appended:
    """Append a batch and write it."""
    epoch = options.pop("epoch", 0)
    appended = append(log, batch(*values, **options), epoch=epoch)
    assert log.write_group()
    return appended


def region_bytes(region: FileRegion | None) -> bytes:
    """The bytes of a region, which is given back."""
    if region is None:
        return b""
    import os

    data = os.pread(region.file.fileno(), region.length, region.position)
    assert len(data) == region.length
    region.file.release()
    return data


def headers(data: bytes) -> list[BatchHeader]:
    found = []
    position = 0
    while position < len(data):
        header = validate(data, position)
        found.append(header)
        position += header.size_bytes
    return found


def read_all(log: Log, start: int | None = None, max_bytes: int = 1 << 30) -> bytes:
    """Everything written from `start` on, read region by region."""
    offset = log.log_start_offset if start is None else start
    parts = []
    while True:
        data = region_bytes(
            log.read(offset, max_bytes, end_offset=log.written_end_offset, min_one_batch=True)
        )
        if not data:
            return b"".join(parts)
        parts.append(data)
        offset = headers(data)[-1].next_offset


def open_dirs(
    disk: Disk, paths: tuple[str, ...] = ("/data",), clock: ManualClock | None = None, **options
) -> LogDirs:
    return LogDirs.open(
        paths,
        cluster_id="test-cluster",
        node_id=1,
        disk=disk,
        clock=clock or ManualClock(NOW_MS),
        random=Random(0),
        **options,
    )


def new_log(config: Config | None = None, disk: MemoryDisk | None = None, **options) -> Log:
    dirs = open_dirs(disk or MemoryDisk(), **options)
    return dirs.log(TP, TOPIC_ID, config or Config())
