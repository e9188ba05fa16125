"""Reads back every record that a run wrote, and checks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from bench.errors import BenchError
from bench.path.ask import Asker
from bench.path.loadgen import Load
from bench.path.work import Work
from trioq._native import batch as native
from trioq.errors import CorruptMessage, InvalidRecord
from trioq.record.compression import Codec, decompress
from trioq.wire.messages.fetch import FetchRequest, FetchRequestPartition, FetchRequestTopic

FETCH_BYTES = 16 << 20
SEQUENCES = 1 << 31


class Verified(NamedTuple):
    """What was read back."""

    records: int
    batches: int
    bytes: int


def verify(asker: Asker, topic: str, work: Work, loads: list[Load]) -> Verified:
    """Read all partitions of `topic` and compare with what the generator was told.

    Checked are: offsets without gap from 0 to the end; every batch's CRC, counts and record
    structure (after decompression, with a codec); of each producer the sequences, so that order
    is kept and nothing is there twice; at least what was acknowledged, at most what was sent.
    Raises BenchError at the first thing that is wrong.
    """
    total = Verified(0, 0, 0)
    for partition in range(work.partitions):
        found = _verify_partition(asker, topic, partition)
        total = Verified(*(sum(pair) for pair in zip(total, found, strict=True)))
    least = sum(load.acknowledged for load in loads) * work.records if work.acks else 0
    most = sum(load.sent + load.unanswered for load in loads) * work.records
    if not least <= total.records <= most:
        raise BenchError(
            f"{total.records} records were read back, but {least} were acknowledged and {most} sent"
        )
    return total


def _verify_partition(asker: Asker, topic: str, partition: int) -> Verified:
    end = asker.end_offset(topic, partition)
    next_sequence: dict[int, int] = {}
    offset = batches = size = 0
    while offset < end:
        data = _fetched(asker, topic, partition, offset)
        before = offset
        for header in _batches(data, f"{topic}-{partition}"):
            if header.base_offset != offset:
                raise BenchError(f"{topic}-{partition}: offset {header.base_offset} at {offset}")
            if header.has_producer_id:
                expected = next_sequence.get(header.producer_id, 0)
                if header.base_sequence != expected:
                    raise BenchError(
                        f"{topic}-{partition}: producer {header.producer_id} has sequence "
                        f"{header.base_sequence} at {offset}, {expected} was expected"
                    )
                following = expected + header.record_count
                next_sequence[header.producer_id] = following % SEQUENCES
            offset = header.next_offset
            batches += 1
            size += header.size_bytes
        if offset == before:
            raise BenchError(f"{topic}-{partition}: no batch at offset {offset} of {end}")
    return Verified(offset, batches, size)


def _fetched(asker: Asker, topic: str, partition: int, offset: int) -> memoryview:
    asked = FetchRequestPartition(
        partition=partition, fetch_offset=offset, partition_max_bytes=FETCH_BYTES
    )
    response = asker.fetch(
        FetchRequest(
            max_wait_ms=500,
            min_bytes=1,
            max_bytes=FETCH_BYTES,
            topics=[FetchRequestTopic(topic=topic, topic_id=UUID(int=0), partitions=[asked])],
        )
    )
    found = response.responses[0].partitions[0]
    if response.error_code or found.error_code:
        raise BenchError(f"fetching offset {offset}: error {found.error_code}")
    assert isinstance(found.records, memoryview)
    return found.records


def _batches(data: memoryview, name: str) -> Iterator[native.BatchHeader]:
    """The whole batches in `data`, each checked; the last may be cut off."""
    position = 0
    while len(data) - position >= native.LOG_OVERHEAD:
        length = int.from_bytes(data[position + 8 : position + native.LOG_OVERHEAD], "big")
        if position + native.LOG_OVERHEAD + length > len(data):
            return
        try:
            header = native.validate(data, position)
            if header.codec:
                start, end = position + native.HEADER_BYTES, position + header.size_bytes
                records = decompress(Codec(header.codec), data[start:end])
                native.walk_records(records, header.record_count)
        except (CorruptMessage, InvalidRecord) as error:
            raise BenchError(f"{name}: a batch that was read back is broken: {error}") from error
        yield header
        position += header.size_bytes
