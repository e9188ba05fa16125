"""Reading the records of Fetch responses: by example."""

from __future__ import annotations

import copy
import gc
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from trioq._native import batch as native
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)
from trioq.record import layout
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import Codec
from trioq.record.control import build_end_transaction
from trioq.record.fetched import Record, RecordBatchView, read_fetched

MAX_BYTES = 1 << 16


def records(count, start=0):
    return [
        NewRecord(1000 + i, b"k%d" % i, b"v%d" % i, [("h", b"%d" % i)] if i % 2 else ())
        for i in range(start, start + count)
    ]


def log(*batches):
    """The batches with offsets one after another."""
    out = bytearray()
    offset = 0
    for batch in batches:
        stamped = bytearray(batch)
        native.stamp(stamped, 0, offset, 5)
        offset = native.peek(stamped).next_offset
        out += stamped
    return bytes(out)


def read(data, start_offset=0, **options):
    return read_fetched(data, topic="t", partition=3, start_offset=start_offset, **options)


def transactional(count, producer_id, **options):
    return build_batch(
        records(count),
        producer_id=producer_id,
        producer_epoch=0,
        base_sequence=0,
        is_transactional=True,
        **options,
    )


def marker(producer_id, *, committed):
    return build_end_transaction(
        committed=committed,
        coordinator_epoch=0,
        producer_id=producer_id,
        producer_epoch=0,
        timestamp_ms=1,
    )


def offsets(found):
    return [offset for batch in found.batches for offset in batch.offsets]


@pytest.mark.parametrize("codec", Codec)
def test_what_a_record_has(codec):
    data = log(build_batch(records(3), codec=codec), build_batch(records(2, 3), codec=codec))
    found = read(data)
    assert (len(found.batches), found.next_offset, found.is_truncated) == (2, 5, False)
    made = [record for batch in found.batches for record in batch]
    assert [(r.topic, r.partition, r.offset, r.timestamp, r.timestamp_type) for r in made] == [
        ("t", 3, i, 1000 + i, 0) for i in range(5)
    ]
    assert [(r.key, r.value) for r in made] == [(b"k%d" % i, b"v%d" % i) for i in range(5)]
    assert [r.headers for r in made] == [(), (("h", b"1"),), (), (("h", b"3"),), ()]
    assert {r.leader_epoch for r in made} == {5}
    assert made[0].batch is found.batches[0]
    assert made[1].key is made[1].key


def test_a_batch_in_bulk():
    (batch,) = read(log(build_batch(records(4)))).batches
    assert len(batch) == 4
    assert batch.offsets == range(4)
    assert batch.keys() == [b"k0", b"k1", b"k2", b"k3"]
    assert batch.values() == [b"v0", b"v1", b"v2", b"v3"]
    assert batch.timestamps() == [1000, 1001, 1002, 1003]
    assert batch.headers() == [(), (("h", b"1"),), (), (("h", b"3"),)]
    assert (batch.topic, batch.partition, batch.leader_epoch) == ("t", 3, 5)
    assert (batch.start_offset, batch.last_offset, batch.next_offset) == (0, 3, 4)
    assert batch.size_bytes == batch.header.size_bytes


def test_nulls_stay_null():
    (batch,) = read(
        log(build_batch([NewRecord(-1), NewRecord(-1, b"", b"", [("n", None)])])),
        key_deserializer=len,
        value_deserializer=len,
    ).batches
    assert batch.keys() == [None, 0]
    assert [(r.key, r.value, r.raw_key, r.timestamp) for r in batch] == [
        (None, None, None, -1),
        (0, 0, b"", -1),
    ]
    assert batch.headers()[1] == (("n", None),)


def test_deserializers_run_once_and_when_touched():
    calls = []

    def deserialize(data):
        calls.append(data)
        return data.decode().upper()

    (batch,) = read(log(build_batch(records(2))), value_deserializer=deserialize).batches
    made = list(batch)
    assert calls == []
    assert [made[1].value, made[1].value, made[1].raw_value, made[1].key] == [
        "V1",
        "V1",
        b"v1",
        b"k1",
    ]
    assert calls == [b"v1"]
    assert batch.values() == ["V0", "V1"]


def test_a_deserializer_that_raises_does_so_at_each_touch():
    (batch,) = read(log(build_batch([NewRecord(1, None, b"x")])), value_deserializer=int).batches
    (record,) = batch
    for _ in range(2):
        with pytest.raises(ValueError):
            _ = record.value
    assert record.raw_value == b"x"


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_start_in_the_middle(codec):
    data = log(*(build_batch(records(3), codec=codec) for _ in range(3)))
    for start in range(10):
        found = read(data, start)
        assert offsets(found) == list(range(start, 9))
        assert [r.offset for b in found.batches for r in b] == list(range(start, 9))
        assert sum(len(b) for b in found.batches) == 9 - start
        assert found.next_offset == 9


def test_a_compacted_batch_has_gaps():
    batch = bytearray(build_batch(records(6)))
    payload = reference_payload([1, 4])
    batch[layout.HEADER_BYTES :] = payload
    struct.pack_into(">i", batch, layout.RECORD_COUNT_AT, 2)
    native.seal(batch)
    for start, left in ((0, [1, 4]), (1, [1, 4]), (2, [4]), (5, [])):
        found = read(bytes(batch), start)
        (view,) = found.batches
        assert len(view) == len(left)
        assert view.offsets == left
        assert [r.offset for r in view] == left
        assert found.next_offset == 6


def reference_payload(deltas):
    from tests.reference import records as reference_records

    return b"".join(
        reference_records.encode_record(
            reference_records.RawRecord(0, delta, b"k", b"v%d" % delta, ())
        )
        for delta in deltas
    )


def test_append_time():
    batch = bytearray(build_batch(records(2)))
    native.stamp_append_time(batch, 0, 777)
    (view,) = read(batch).batches
    assert view.timestamps() == [777, 777]
    assert [(r.timestamp, r.timestamp_type) for r in view] == [(777, 1), (777, 1)]


def test_control_batches_are_not_shown_but_passed():
    found = read(log(transactional(2, 9), marker(9, committed=True)))
    assert offsets(found) == [0, 1]
    assert found.next_offset == 3
    found = read(log(marker(9, committed=True)))
    assert (found.batches, found.next_offset) == ([], 1)


def test_aborted_transactions():
    data = log(
        transactional(2, 1),  # 0, 1: aborted
        transactional(2, 2),  # 2, 3: committed
        build_batch(records(1)),  # 4
        marker(1, committed=False),  # 5
        transactional(1, 1),  # 6: committed
        marker(2, committed=True),  # 7
        marker(1, committed=True),  # 8
        transactional(1, 1, codec=Codec.GZIP),  # 9: aborted
        marker(1, committed=False),  # 10
    )
    assert offsets(read(data)) == [0, 1, 2, 3, 4, 6, 9]
    found = read(data, aborted=[(1, 9), (1, 0)])
    assert offsets(found) == [2, 3, 4, 6]
    assert found.next_offset == 11
    assert offsets(read(data, aborted=[])) == offsets(read(data))
    assert offsets(read(data, 1, aborted=[(1, 0), (1, 9)])) == [2, 3, 4, 6]


def test_a_cut_off_batch_is_left_for_the_next_fetch():
    whole = log(build_batch(records(2)), build_batch(records(2)))
    first = native.peek(whole).size_bytes
    for end in range(first + 1, len(whole)):
        found = read(whole[:end])
        assert (offsets(found), found.next_offset, found.is_truncated) == ([0, 1], 2, True)
    for end in range(1, first):
        found = read(whole[:end])
        assert (found.batches, found.next_offset, found.is_truncated) == ([], 0, True)
    for nothing in (b"", None):
        assert read(nothing, 7) == ([], 7, False)


def corrupted(batch, form, position, value, *, seal=True):
    out = bytearray(batch)
    struct.pack_into(form, out, position, value)
    if seal:
        native.seal(out)
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (corrupted(build_batch(records(2)), ">b", 70, 1, seal=False), CorruptMessage, "CRC"),
        (corrupted(build_batch(records(2)), ">b", layout.MAGIC_AT, 3), CorruptMessage, "magic 3"),
        (
            corrupted(build_batch(records(2)), ">b", layout.MAGIC_AT, 1),
            UnsupportedForMessageFormat,
            "format 1",
        ),
        (
            corrupted(build_batch(records(2)), ">i", layout.RECORD_COUNT_AT, 3),
            CorruptMessage,
            "3 records",
        ),
        (
            corrupted(build_batch(records(2)), ">i", layout.RECORD_COUNT_AT, -1),
            CorruptMessage,
            "-1 records",
        ),
        (corrupted(build_batch(records(2)), ">q", 0, -1), CorruptMessage, "base offset -1"),
        (corrupted(build_batch(records(2)), ">q", 0, 2**63 - 2), CorruptMessage, "impossible"),
        (
            corrupted(build_batch(records(2)), ">i", 8, 48, seal=False),
            CorruptMessage,
            "60 bytes",
        ),
        (
            corrupted(build_batch(records(2)), ">h", layout.ATTRIBUTES_AT, 6),
            UnsupportedCompressionType,
            "codec 6",
        ),
    ],
)
def test_what_cannot_be_read_says_where(data, error, says):
    with pytest.raises(error, match=rf"t-3, fetched from offset 0: .*{says}"):
        read(data)
    good = log(build_batch(records(2)))
    found = read(good + data)
    assert (offsets(found), found.next_offset, found.is_truncated) == ([0, 1], 2, False)
    with pytest.raises(error):  # what is before the asked offset brings no one forward
        read(good + data, 2)


def test_crc_may_be_left_unchecked():
    data = corrupted(build_batch(records(2)), ">i", layout.CRC_AT, 1, seal=False)
    assert offsets(read(data, check_crc=False)) == [0, 1]


def test_corrupt_records_are_met_when_the_batch_is_opened():
    broken = bytearray(build_batch(records(2)))
    broken[layout.HEADER_BYTES] = 0x7F
    native.seal(broken)
    (view,) = read(broken).batches
    for touch in (view.open, view.keys, view.values, view.headers, view.timestamps, view.__iter__):
        with pytest.raises(InvalidRecord, match="t-3, batch at offset 0: record 0: "):
            touch()


def test_corrupt_compression():
    broken = bytearray(build_batch(records(2), codec=Codec.GZIP))
    broken[layout.HEADER_BYTES + 4] ^= 0xFF
    broken[layout.HEADER_BYTES + 12] ^= 0xFF
    native.seal(broken)
    (view,) = read(broken).batches
    with pytest.raises(InvalidRecord, match="t-3, batch at offset 0: gzip"):
        view.open()


def test_decompression_is_bounded():
    big = build_batch([NewRecord(1, None, bytes(100_000))], codec=Codec.ZSTD)
    (view,) = read(big, max_bytes=1000).batches
    with pytest.raises(InvalidRecord, match="more than 1000 bytes"):
        list(view)
    assert read(big).batches[0].values() == [bytes(100_000)]


def test_views_and_records_keep_the_bytes():
    values = [
        record
        for codec in (Codec.NONE, Codec.LZ4)
        for record in read(bytearray(log(build_batch(records(3), codec=codec)))).batches[0]
    ]
    gc.collect()
    assert [r.value for r in values] == [b"v0", b"v1", b"v2"] * 2
    assert [r.headers for r in values] == [(), (("h", b"1"),), ()] * 2


def test_bytes_that_change_under_a_view_break_nothing():
    data = bytearray(log(build_batch(records(3))))
    (view,) = read(data).batches
    made = iter(view)
    kept = next(made)
    data[layout.HEADER_BYTES :] = b"\xff" * (len(data) - layout.HEADER_BYTES)
    with pytest.raises(InvalidRecord, match="changed"):
        next(made)
    with pytest.raises(InvalidRecord, match="changed"):
        view.values()
    assert len(kept.value) == 2


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP])
def test_large_batches_are_opened_by_several_threads(codec):
    """Checking them releases the interpreter lock, so that the threads meet."""
    values = [bytes([number % 256]) * 1000 for number in range(300)]
    data = build_batch([NewRecord(1, None, value) for value in values], codec=codec)
    (view,) = read(data).batches
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(call) for call in (view.values, view.open, view.values, view.open)]
        assert [one.result() for one in found] == [values, None, values, None]
    assert view.values() == values


def test_records_are_not_copied_to_other_processes():
    (record,) = read(build_batch(records(1))).batches[0]
    for one in (record, record.batch):
        for call in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                call(one)


@pytest.mark.parametrize("cls", [Record, RecordBatchView])
def test_empty_ones_break_nothing(cls):
    empty = cls.__new__(cls)
    for name in dir(cls):
        if not name.startswith("__") or name in {"__len__", "__iter__", "__repr__"}:
            try:
                value = getattr(empty, name)
                if callable(value):
                    value()
            except AttributeError:
                continue


def test_nobody_else_makes_them():
    for cls in (Record, RecordBatchView):
        with pytest.raises(TypeError, match="comes from"):
            cls()
        assert cls[str, int].__origin__ is cls
    with pytest.raises(ValueError, match="-1"):
        read(b"", -1)
        read(log(build_batch(records(1))), -1)


def test_representations():
    (view,) = read(log(build_batch([NewRecord(1, None, bytes(50))]))).batches
    assert repr(view) == "<RecordBatchView t-3 offsets 0 to 0>"
    (record,) = view
    assert repr(record).startswith("<Record t-3 offset 0: key None, value b'\\x00")
    assert "(50 bytes)" in repr(record)
