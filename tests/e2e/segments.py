"""Segments as decoders that are not ours see them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from kafka.record.memory_records import MemoryRecords

from tests.e2e.message import Received

CODEC_NUMBERS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class StoredBatch(NamedTuple):
    """The parts of a stored batch's header that tests look at."""

    base_offset: int
    leader_epoch: int
    codec: int
    timestamp_type: int
    producer_id: int
    records: int


def _received(record: Any) -> Received:
    return Received(
        record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )


def read_with_kafka_python(paths: list[Path]) -> tuple[list[StoredBatch], list[Received]]:
    """Decode segments with kafka-python; every batch's CRC has to be right."""
    batches: list[StoredBatch] = []
    found: list[Received] = []
    for path in paths:
        records = MemoryRecords(path.read_bytes())
        while (batch := records.next_batch()) is not None:
            assert batch.validate_crc()
            batches.append(
                StoredBatch(
                    batch.base_offset,
                    batch.leader_epoch,
                    batch.compression_type,
                    batch.timestamp_type,
                    batch.producer_id,
                    batch.records_count,
                )
            )
            found += [_received(record) for record in batch]
        assert records.valid_bytes() == records.size_in_bytes()
    return batches, found


def read_with_aiokafka(paths: list[Path]) -> list[Received]:
    """Decode segments with aiokafka's native decoder."""
    found: list[Received] = []
    for path in paths:
        data = path.read_bytes()
        position = 0
        while position < len(data):
            (length,) = struct.unpack_from(">i", data, position + 8)
            batch = AiokafkaBatch(bytearray(data[position : position + 12 + length]))
            assert batch.validate_crc()
            found += [_received(record) for record in batch]
            position += 12 + length
    return found
