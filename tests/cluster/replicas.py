"""Compares the replicas of partitions, byte for byte, in the data directories of several brokers.

The brokers are stopped. Files are read as they are (trioq/storage): segments may begin elsewhere
on each replica, batches may not differ.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from trioq.storage.batch_audit import audit_batches
from trioq.storage.checkpoints import HIGH_WATERMARK_FILE, LOG_START_FILE, decode_offsets
from trioq.storage.log_dir_files import partition_of
from trioq.types import TopicPartition


class StoredBatch(NamedTuple):
    base_offset: int
    next_offset: int
    checksum: bytes


class Replica(NamedTuple):
    """What a broker's data directory holds of a partition."""

    broker: int
    log_start_offset: int
    high_watermark: int
    batches: list[StoredBatch]
    problems: list[str]

    @property
    def end_offset(self) -> int:
        return self.batches[-1].next_offset if self.batches else self.log_start_offset


class Comparison(NamedTuple):
    """`problems` in words; `compared` are the half-open offsets that were, by partition."""

    problems: list[str]
    compared: dict[TopicPartition, tuple[int, int]]


def compare_replicas(
    data_dirs: Mapping[int, Path],
    *,
    ends: Mapping[TopicPartition, int] | None = None,
    may_lag: frozenset[int] = frozenset(),
) -> Comparison:
    """Replicas are the same from the latest of their starts up to the high watermark.

    Args:
        data_dirs: the data directory of each broker, by its id.
        ends: up to where, for partitions whose high watermark is known better than by the
            brokers' checkpoints, such as the end of what was acknowledged; no less is compared
            than what a checkpoint says.
        may_lag: brokers that need not hold all of it (they are not in sync); what they hold is
            compared.

    """
    replicas: dict[TopicPartition, list[Replica]] = {}
    for broker, path in data_dirs.items():
        for partition, replica in _replicas(broker, path):
            replicas.setdefault(partition, []).append(replica)
    problems: list[str] = []
    compared: dict[TopicPartition, tuple[int, int]] = {}
    for partition, several in sorted(replicas.items()):
        start = max(one.log_start_offset for one in several)
        end = max((ends or {}).get(partition, 0), *(one.high_watermark for one in several))
        compared[partition] = start, end
        for one in several:
            problems += (f"{partition} on broker {one.broker}: {what}" for what in one.problems)
            if one.end_offset < end and one.broker not in may_lag:
                problems.append(
                    f"{partition} on broker {one.broker} ends at {one.end_offset}, below {end}"
                )
        longest = max(several, key=lambda one: one.end_offset)
        for one in several:
            if one is not longest:
                problems += _differences(partition, longest, one, start, end)
    for partition in (ends or {}).keys() - replicas.keys():
        problems.append(f"{partition} is on none of the brokers {sorted(data_dirs)}")
    return Comparison(problems, compared)


def _differences(
    partition: TopicPartition, one: Replica, other: Replica, start: int, end: int
) -> Iterator[str]:
    end = min(end, one.end_offset, other.end_offset)
    ours, theirs = (
        {
            batch.base_offset: batch
            for batch in replica.batches
            if batch.next_offset > start and batch.base_offset < end
        }
        for replica in (one, other)
    )
    for offset in sorted(ours.keys() | theirs.keys()):
        if ours.get(offset) != theirs.get(offset):
            yield (
                f"{partition} differs at offset {offset}: broker {one.broker} has "
                f"{_shown(ours.get(offset))}, broker {other.broker} {_shown(theirs.get(offset))}"
            )
            return


def _shown(batch: StoredBatch | None) -> str:
    if batch is None:
        return "no batch that begins there"
    return f"{batch.base_offset} to {batch.next_offset} ({batch.checksum.hex()[:12]})"


def _replicas(broker: int, data_dir: Path) -> Iterator[tuple[TopicPartition, Replica]]:
    high_watermarks = _checkpoint(data_dir / HIGH_WATERMARK_FILE)
    starts = _checkpoint(data_dir / LOG_START_FILE)
    for directory in sorted(data_dir.iterdir()):
        partition = partition_of(directory.name) if directory.is_dir() else None
        if partition is None:
            continue
        batches, problems = _batches(directory)
        first = int(min(directory.glob("*.log"), default=Path("0")).stem)
        start = max(starts.get(partition, 0), first)
        high_watermark = high_watermarks.get(partition, 0)
        yield partition, Replica(broker, start, high_watermark, batches, problems)


def _checkpoint(path: Path) -> dict[TopicPartition, int]:
    return decode_offsets(path.read_bytes(), str(path)) if path.exists() else {}


def _batches(directory: Path) -> tuple[list[StoredBatch], list[str]]:
    batches: list[StoredBatch] = []
    problems: list[str] = []
    for path in sorted(directory.glob("*.log")):
        with path.open("rb") as file:
            fd = file.fileno()
            for batch in audit_batches(fd, os.fstat(fd).st_size):
                if batch.is_cut_off:
                    continue  # a torn tail, which the next start removes
                if batch.problem is not None or batch.header is None:
                    problems.append(f"{path.name}, byte {batch.position}: {batch.problem}")
                    continue
                data = os.pread(fd, batch.size_bytes, batch.position)
                batches.append(
                    StoredBatch(
                        batch.header.base_offset,
                        batch.header.last_offset + 1,
                        hashlib.sha256(data).digest(),
                    )
                )
    return batches, problems
