"""Building and reading batches, alone and against other clients' record code."""

from __future__ import annotations

import warnings

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import batch as reference
from tests.reference import records as reference_records
from tests.reference.strategies import NEW_RECORDS
from trioq._native import batch as native
from trioq.errors import InvalidRecord
from trioq.record.batch import (
    Record,
    max_timestamp,
    offset_for_timestamp,
    read_records,
    record_bytes,
)
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import Codec

with warnings.catch_warnings():  # its imports use a deprecated way to read its resources
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.record.default_records import DefaultRecordBatch as KafkaPythonBatch

RECORDS = [
    NewRecord(1000, b"key", b"value", [("h", b"x"), ("none", None)]),
    NewRecord(1003, None, b""),
    NewRecord(1001, b"", None),
    NewRecord(1003, b"k", b"v" * 300, [("é", b"")]),
    NewRecord(1002, b"last", b"one"),
]


@pytest.mark.parametrize("codec", Codec)
def test_records_come_back(codec):
    built = build_batch(RECORDS, codec=codec, base_offset=50)
    assert read_records(built) == [
        Record(50 + i, r.timestamp, r.key, r.value, tuple(r.headers)) for i, r in enumerate(RECORDS)
    ]
    header = native.validate(built)
    assert (header.base_timestamp, header.max_timestamp) == (1000, 1003)
    body = record_bytes(built, header)
    assert bytes(body) == bytes(native.build([tuple(r) for r in RECORDS])[61:])


@settings(deadline=None)
@given(NEW_RECORDS, st.sampled_from(list(Codec)), st.integers(0, 2**40))
def test_any_records_come_back(made, codec, base_offset):
    built = build_batch(made, codec=codec, base_offset=base_offset)
    expected = [
        (base_offset + i, timestamp, key, value, tuple(headers))
        for i, (timestamp, key, value, headers) in enumerate(made)
    ]
    assert read_records(built) == expected


def test_header_options():
    built = build_batch(
        RECORDS,
        leader_epoch=3,
        producer_id=7,
        producer_epoch=1,
        base_sequence=9,
        base_timestamp=900,
        is_transactional=True,
        is_control=True,
    )
    header = native.validate(built)
    assert (header.leader_epoch, header.base_timestamp) == (3, 900)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 9)
    assert header.is_transactional
    assert header.is_control
    assert read_records(built)[0].timestamp == 1000


def foreign_records(batch):
    assert batch.validate_crc()
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch]


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("reader", [AiokafkaBatch, KafkaPythonBatch])
def test_other_clients_read_what_is_built(codec, reader):
    built = build_batch(RECORDS, codec=codec, base_offset=50)
    assert foreign_records(reader(bytes(built))) == [
        (50 + i, r.timestamp, r.key, r.value, list(r.headers)) for i, r in enumerate(RECORDS)
    ]


@pytest.mark.parametrize("codec", Codec)
def test_what_another_client_builds_is_read(codec):
    builder = AiokafkaBuilder(2, int(codec), 0, -1, -1, -1, 1 << 20)
    for index, record in enumerate(RECORDS * 50):
        builder.append(index, record.timestamp, record.key, record.value, list(record.headers))
    found = read_records(builder.build())
    assert [(r.timestamp, r.key, r.value, list(r.headers)) for r in found] == [
        (r.timestamp, r.key, r.value, list(r.headers)) for r in RECORDS * 50
    ]


@pytest.mark.parametrize("codec", Codec)
def test_search_by_time(codec):
    built = build_batch(RECORDS, codec=codec, base_offset=50)
    assert offset_for_timestamp(built, -1) == (50, 1000)
    assert offset_for_timestamp(built, 1000) == (50, 1000)
    assert offset_for_timestamp(built, 1001) == (51, 1003)
    assert offset_for_timestamp(built, 1003) == (51, 1003)
    assert offset_for_timestamp(built, 1004) is None
    assert max_timestamp(built) == (51, 1003)


@pytest.mark.parametrize("codec", Codec)
def test_append_time_is_the_time_of_every_record(codec):
    built = build_batch(RECORDS, codec=codec, base_offset=50)
    native.stamp_append_time(built, 0, 5000)
    assert {record.timestamp for record in read_records(built)} == {5000}
    assert offset_for_timestamp(built, 1004) == (50, 5000)
    assert offset_for_timestamp(built, 5001) is None
    assert max_timestamp(built) == (50, 5000)


def compacted(offset_deltas, *, attributes=0):
    """A batch of ten offsets of which compaction kept some."""
    whole = reference.build([(1000 + i, b"k", b"%d" % i, ()) for i in range(10)], base_offset=50)
    header = reference.peek(whole)._replace(record_count=len(offset_deltas), attributes=attributes)
    body = b"".join(
        reference_records.encode_record(
            reference_records.RawRecord(delta, delta, b"k", b"%d" % delta, ())
        )
        for delta in offset_deltas
    )
    return reference.seal(reference.FIELDS.pack(*header) + body)


def test_compacted_batches_keep_their_offsets():
    batch = compacted([2, 5, 9])
    assert [record.offset for record in read_records(batch)] == [52, 55, 59]
    assert offset_for_timestamp(batch, 1003) == (55, 1005)
    assert max_timestamp(batch) == (59, 1009)
    appended = compacted([2, 5], attributes=0x08)
    assert offset_for_timestamp(appended, 0) == max_timestamp(appended) == (52, 1009)
    empty = compacted([])
    assert read_records(empty) == []
    assert offset_for_timestamp(empty, 0) is None
    assert max_timestamp(empty) is None


@pytest.mark.parametrize("deltas", [[5, 5], [5, 2], [-1, 2], [2, 10]])
def test_offsets_out_of_order_are_refused(deltas):
    with pytest.raises(InvalidRecord):
        read_records(compacted(deltas))


def test_reading_is_bounded():
    built = build_batch([NewRecord(1, None, bytes(1_000_000))], codec=Codec.ZSTD)
    for read in (
        lambda: read_records(built, max_bytes=999_999),
        lambda: offset_for_timestamp(built, 0, max_bytes=999_999),
        lambda: max_timestamp(built, max_bytes=999_999),
    ):
        with pytest.raises(InvalidRecord):
            read()


@pytest.mark.parametrize("codec", Codec)
def test_search_by_time_passes_over_what_lies_below_the_start(codec: Codec) -> None:
    records = [NewRecord(100 + 10 * index, b"k") for index in range(5)]
    batch = build_batch(records, codec=codec, base_offset=1000)
    assert offset_for_timestamp(batch, 105) == (1001, 110)
    assert offset_for_timestamp(batch, 105, start_offset=900) == (1001, 110)
    assert offset_for_timestamp(batch, 105, start_offset=1003) == (1003, 130)
    assert offset_for_timestamp(batch, 105, start_offset=1005) is None
    native.stamp_append_time(batch, 0, 500)
    assert offset_for_timestamp(batch, 105, start_offset=1003) == (1003, 500)
    assert offset_for_timestamp(batch, 105, start_offset=1005) is None
