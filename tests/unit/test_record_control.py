"""Control batches: what ends a transaction."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch

from trioq._native import batch as native
from trioq.errors import InvalidRecord
from trioq.record.builder import NewRecord, build_batch
from trioq.record.control import (
    ControlType,
    build_end_transaction,
    control_type,
    read_end_transaction,
)


def marker(*, committed):
    return build_end_transaction(
        committed=committed,
        coordinator_epoch=4,
        producer_id=7,
        producer_epoch=1,
        timestamp_ms=1000,
        base_offset=30,
        leader_epoch=2,
    )


@pytest.mark.parametrize("committed", [True, False])
def test_markers(committed):
    built = marker(committed=committed)
    header = native.validate(built)
    assert header.is_control
    assert header.is_transactional
    assert (header.base_sequence, header.leader_epoch, header.record_count) == (-1, 2, 1)
    assert (header.producer_id, header.producer_epoch) == (7, 1)
    assert read_end_transaction(built) == (30, 1000, committed, 4)


def test_bytes_of_a_marker():
    (record,) = AiokafkaBatch(bytes(marker(committed=True)))
    assert record.key == bytes.fromhex("00000001")
    assert record.value == bytes.fromhex("000000000004")


def test_other_control_records_are_passed_over():
    other = build_batch([NewRecord(1, bytes.fromhex("00000002"), b"?")], is_control=True)
    assert read_end_transaction(other) is None
    assert control_type(bytes.fromhex("00000002")) == ControlType.LEADER_CHANGE
    assert control_type(bytes.fromhex("000000ff")) == 255


@pytest.mark.parametrize("key", [None, b"", b"\0\0\0", b"\xff\xff\0\1"])
def test_malformed_keys(key):
    with pytest.raises(InvalidRecord):
        control_type(key)


def test_malformed_markers():
    key = bytes.fromhex("00000001")
    for records in (
        [NewRecord(1, key, None)],
        [NewRecord(1, key, b"\0\0\0\0\0")],
        [NewRecord(1, key, bytes(6))] * 2,
    ):
        with pytest.raises(InvalidRecord):
            read_end_transaction(build_batch(records, is_control=True))
