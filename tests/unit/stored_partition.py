"""Partition directories written by hand, for the tests of dump and verify."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trioq._native.batch import build, peek, stamp
from trioq.storage import offset_index, time_index
from trioq.storage.checkpoints import LEADER_EPOCH_FILE
from trioq.storage.epoch_cache import EpochCache
from trioq.storage.identity import PARTITION_METADATA_FILE, encode_partition_metadata
from trioq.storage.producer_state import ProducerState
from trioq.types import ZERO_TOPIC_ID


@dataclass
class StoredBatch:
    base_offset: int
    data: bytes
    position: int


@dataclass
class StoredPartition:
    """Appends batches to segments under `path`, with an index entry for each batch."""

    path: Path
    next_offset: int = 0
    segments: dict[int, list[StoredBatch]] = field(default_factory=dict)
    producers: ProducerState = field(default_factory=ProducerState)
    epochs: EpochCache = field(default_factory=EpochCache)

    def append(
        self,
        values: list[bytes],
        *,
        epoch: int = 0,
        timestamp: int = 1_000,
        producer_id: int = -1,
        sequence: int = -1,
    ) -> StoredBatch:
        batch = build(
            [(timestamp, b"k", value, [("h", b"1")]) for value in values],
            producer_id=producer_id,
            producer_epoch=0 if producer_id >= 0 else -1,
            base_sequence=sequence,
        )
        return self.append_raw(batch, epoch)

    def append_raw(self, batch: bytearray, epoch: int = 0) -> StoredBatch:
        stamp(batch, 0, self.next_offset, epoch)
        header = peek(batch)
        self.epochs.assign(epoch, self.next_offset)
        self.producers.apply(header, self.next_offset, header.max_timestamp)
        if not self.segments:
            self.roll()
        batches = self.segments[max(self.segments)]
        position = batches[-1].position + len(batches[-1].data) if batches else 0
        stored = StoredBatch(self.next_offset, bytes(batch), position)
        batches.append(stored)
        self.next_offset = header.next_offset
        return stored

    def roll(self) -> None:
        self.segments[self.next_offset] = []

    def file(self, suffix: str, base_offset: int | None = None) -> Path:
        base = max(self.segments) if base_offset is None else base_offset
        return self.path / f"{base:020d}{suffix}"

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for base, batches in self.segments.items():
            offsets, times, greatest = bytearray(), bytearray(), -1
            for stored in batches:
                header = peek(stored.data)
                relative = header.last_offset - base
                offsets += offset_index.ENTRY.pack(relative, stored.position)
                if header.max_timestamp > greatest:
                    greatest = header.max_timestamp
                    times += time_index.ENTRY.pack(greatest, relative)
            self.file(".log", base).write_bytes(b"".join(stored.data for stored in batches))
            self.file(".index", base).write_bytes(offsets)
            self.file(".timeindex", base).write_bytes(times)
        self.snapshot_file.write_bytes(self.producers.snapshot(self.next_offset))
        (self.path / LEADER_EPOCH_FILE).write_bytes(self.epochs.encode())
        topic_id = type(ZERO_TOPIC_ID)(int=7)
        (self.path / PARTITION_METADATA_FILE).write_bytes(encode_partition_metadata(topic_id))

    @property
    def snapshot_file(self) -> Path:
        return self.file(".snapshot", self.next_offset)


def three_segments(path: Path) -> StoredPartition:
    """Offsets 0 to 17 in three segments of three batches, leader epochs 0, 1 and 4."""
    partition = StoredPartition(path)
    for number, epoch in enumerate((0, 1, 4)):
        partition.roll()
        for i in range(3):
            partition.append(
                [b"v%d" % i, b"w"],
                epoch=epoch,
                timestamp=1_000 * number + (500, 900, 700)[i],
                producer_id=9,
                sequence=partition.next_offset,
            )
    partition.write()
    return partition
