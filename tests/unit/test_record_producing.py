"""Producers' batches: by example, and against the plain-Python reference."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import batch as reference
from tests.reference.strategies import FIELDS, INT16, INT32, INT64, NEW_RECORDS, TIMESTAMPS
from trioq._native import batch as native
from trioq.errors import CorruptMessage, InvalidRecord, MessageTooLarge
from trioq.record.batch import read_records
from trioq.record.builder import build_batch
from trioq.record.compression import Codec
from trioq.record.producing import BatchBuilder, restamp, split
from trioq.record.validate import check_produced

EMPTY = 61


def filled(count, *, size=10, batch_bytes=1 << 20):
    builder = BatchBuilder(batch_bytes)
    for index in range(count):
        assert builder.append(b"k%d" % index, bytes(size), (), 1000 + index) == index
    return builder


# ---- filling ----


def test_an_empty_builder():
    builder = BatchBuilder(1000)
    assert (builder.size_bytes, builder.record_count, len(builder)) == (EMPTY, 0, 0)
    assert (builder.base_timestamp, builder.max_timestamp) == (-1, -1)
    assert (builder.batch_bytes, builder.max_bytes) == (1000, 0x7FFFFFFF)
    assert not builder.is_closed
    with pytest.raises(ValueError, match="one record"):
        builder.close()
    assert not builder.is_closed


def test_records_until_the_batch_is_full():
    builder = BatchBuilder(200)
    assert builder.append(None, bytes(50), (), 5) == 0
    assert builder.append(None, bytes(50), (), 9) == 1
    size = builder.size_bytes
    assert builder.append(None, bytes(50), (), 11) == -1
    assert (builder.size_bytes, builder.record_count) == (size, 2)
    assert (builder.base_timestamp, builder.max_timestamp) == (5, 9)
    room = 200 - size
    assert builder.append(None, bytes(room - 6), (), 7) == -1
    assert builder.append(None, bytes(room - 7), (), 7) == 2  # to the byte
    assert builder.size_bytes == 200
    batch = builder.close()
    assert len(batch) == 200
    assert [len(record.value) for record in read_records(batch)] == [50, 50, room - 7]


def test_a_first_record_may_be_larger_than_the_batch():
    builder = BatchBuilder(100, 1000)
    assert builder.append(None, bytes(500), (), 1) == 0
    assert builder.append(None, b"", (), 1) == -1
    assert builder.size_bytes > 500


def test_a_record_too_large_for_any_batch():
    builder = BatchBuilder(100, 200)
    with pytest.raises(MessageTooLarge, match="a batch of 270 bytes: at most 200 are allowed"):
        builder.append(None, bytes(200), (), 1)
    assert (builder.record_count, builder.size_bytes) == (0, EMPTY)
    assert builder.append(None, b"small", (), 1) == 0
    assert builder.append(None, bytes(200), (), 1) == -1


def test_headers_and_buffers():
    builder = BatchBuilder(1000)
    builder.append(bytearray(b"k"), memoryview(b"v"), [("h", None), ("ü", bytearray(b"1"))], 1)
    (record,) = read_records(builder.close())
    assert record[2:] == (b"k", b"v", (("h", None), ("ü", b"1")))


@pytest.mark.parametrize(
    ("key", "value", "headers", "timestamp"),
    [
        ("text", b"", (), 1),
        (None, "text", (), 1),
        (None, 7, (), 1),
        (None, b"", None, 1),
        (None, b"", [("one",)], 1),
        (None, b"", [(b"bytes", b"")], 1),
        (None, b"", [("h", "text")], 1),
        (None, b"", (), None),
        (None, b"", (), 2**63),
        (None, b"", [("\ud800", b"")], 1),
    ],
)
def test_what_is_no_record_changes_nothing(key, value, headers, timestamp):
    builder = filled(2)
    size = builder.size_bytes
    with pytest.raises((TypeError, ValueError, OverflowError)):
        builder.append(key, value, headers, timestamp)
    assert (builder.size_bytes, builder.record_count) == (size, 2)
    assert len(read_records(builder.close())) == 2


def test_many_at_once():
    values = [b"%d" % i for i in range(10)]
    keys = [None if i % 2 else b"k%d" % i for i in range(10)]
    builder = BatchBuilder(EMPTY + 5 * 8)
    taken = builder.append_many(values, 7)
    assert taken == builder.record_count == 5
    second = BatchBuilder(1000)
    assert second.append_many(tuple(values), 7, keys=keys, start=taken) == 5
    found = [*read_records(builder.close()), *read_records(second.close())]
    assert [record.value for record in found] == values
    assert [record.key for record in found] == [None] * 5 + keys[5:]
    assert {record.timestamp for record in found} == {7}
    assert second.is_closed


def test_many_none_and_mistakes():
    builder = BatchBuilder(1000)
    assert builder.append_many([], 1) == 0
    assert builder.append_many([b"a"], 1, start=1) == 0
    assert builder.append_many([b"a"], 1, start=5) == 0
    with pytest.raises(ValueError, match="-1"):
        builder.append_many([b"a"], 1, start=-1)
    with pytest.raises(ValueError, match="as many keys"):
        builder.append_many([b"a"], 1, keys=[])
    with pytest.raises(TypeError, match="sequence"):
        builder.append_many(5, 1)
    assert builder.record_count == 0
    with pytest.raises(TypeError):
        builder.append_many([b"a", b"b", "text", b"c"], 1)
    assert builder.record_count == 2


def test_nothing_after_the_end():
    builder = filled(1)
    builder.close()
    for call in (
        lambda: builder.append(None, b"", (), 1),
        lambda: builder.append_many([b""], 1),
        builder.close,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_limits_of_limits():
    for limit in (60, 2**31):
        with pytest.raises(ValueError, match=str(limit)):
            BatchBuilder(100, limit)
    tiny = BatchBuilder(-5)
    assert tiny.append(None, b"v", (), 1) == 0
    assert tiny.append(None, b"v", (), 1) == -1


def test_a_codec_that_fails_leaves_the_builder_as_it_was():
    builder = filled(3)
    with pytest.raises(zlib.error):
        builder.close(Codec.GZIP, level=77)
    assert builder.append(None, b"more", (), 1) == 3
    assert len(read_records(builder.close(Codec.GZIP))) == 4
    builder = filled(1)
    with pytest.raises(ValueError, match="go together"):
        builder.finish(attributes=1)
    with pytest.raises(ValueError, match="go together"):
        builder.finish(compress=bytes)


def test_a_value_that_appends_while_it_is_read():
    """Nothing sensible, and nothing beyond the buffer."""
    builder = BatchBuilder(1 << 20)

    class Odd(list):
        def __iter__(self):
            builder.append_many([bytes(3000)] * 3, 1)
            return super().__iter__()

    builder.append(None, b"v", Odd([("h", b"x")]), 1)
    builder.append(None, b"v", (), 1)
    builder.close()


# ---- finishing ----


@pytest.mark.parametrize("codec", Codec)
def test_a_finished_batch_passes_the_broker(codec):
    batch = filled(20).close(
        codec, producer_id=7, producer_epoch=2, base_sequence=30, is_transactional=True
    )
    header = check_produced(bytes(batch), strict=True)
    assert (header.codec, header.is_transactional, header.record_count) == (codec, True, 20)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, 30)
    assert (header.base_timestamp, header.max_timestamp) == (1000, 1019)
    assert [record.key for record in read_records(batch)] == [b"k%d" % i for i in range(20)]


@settings(deadline=None, max_examples=200)
@given(NEW_RECORDS, INT64, INT16, INT32, st.booleans())
def test_like_the_reference(made, producer_id, producer_epoch, base_sequence, transactional):
    builder = BatchBuilder(1 << 20)
    for index, (timestamp, key, value, headers) in enumerate(made):
        assert builder.append(key, value, headers, timestamp) == index
    size = builder.size_bytes
    assert builder.max_timestamp == max(record[0] for record in made)
    options = {
        "producer_id": producer_id,
        "producer_epoch": producer_epoch,
        "base_sequence": base_sequence,
    }
    batch = builder.close(**options, is_transactional=transactional)
    assert size == len(batch)
    assert batch == reference.build(made, attributes=0x10 if transactional else 0, **options)


@settings(deadline=None, max_examples=100)
@given(st.lists(FIELDS, max_size=12), TIMESTAMPS, st.integers(0, 700), st.booleans())
def test_many_are_as_one_by_one(values, timestamp, batch_bytes, with_keys):
    many = BatchBuilder(batch_bytes)
    single = BatchBuilder(batch_bytes)
    keys = values[::-1] if with_keys else None
    count = many.append_many(values, timestamp, keys=keys)
    for index, value in enumerate(values):
        key = keys[index] if keys else None
        expected = index if index < count else -1
        assert single.append(key, value, (), timestamp) == expected
        if expected < 0:
            break
    assert count == single.record_count
    if values:
        assert many.close() == single.close()


# ---- afterwards ----


@settings(deadline=None, max_examples=60)
@given(NEW_RECORDS, st.sampled_from(Codec), INT64, INT16, INT32)
def test_restamp(made, codec, producer_id, producer_epoch, base_sequence):
    batch = build_batch(made, codec=codec, producer_id=1, producer_epoch=1, base_sequence=1)
    before = bytes(batch)
    stamped = restamp(
        batch, producer_id=producer_id, producer_epoch=producer_epoch, base_sequence=base_sequence
    )
    assert batch == before
    header = native.validate(stamped)
    assert (header.producer_id, header.producer_epoch) == (producer_id, producer_epoch)
    assert header.base_sequence == base_sequence
    assert read_records(stamped) == read_records(batch)


@settings(deadline=None, max_examples=60)
@given(NEW_RECORDS, st.sampled_from(Codec), st.booleans(), st.integers(-1, 2**31 - 1))
def test_split(made, codec, transactional, base_sequence):
    batch = build_batch(
        made,
        codec=codec,
        producer_id=8,
        producer_epoch=3,
        base_sequence=base_sequence,
        is_transactional=transactional,
    )
    if len(made) == 1:
        with pytest.raises(ValueError, match="one record"):
            split(batch)
        return
    halves = split(batch)
    headers = [native.validate(half) for half in halves]
    assert [record[1:] for half in halves for record in read_records(half)] == [
        record[1:] for record in read_records(batch)
    ]
    for header in headers:
        assert (header.codec, header.is_transactional) == (codec, transactional)
        assert (header.producer_id, header.producer_epoch) == (8, 3)
        assert header.record_count >= 1
    assert headers[0].base_sequence == base_sequence
    if base_sequence < 0:
        assert headers[1].base_sequence == -1
    else:
        assert headers[1].base_sequence == (base_sequence + headers[0].record_count) % 2**31


def test_halves_are_about_equal_in_bytes():
    batch = build_batch([(1, None, bytes(size), ()) for size in (1000, 10, 10, 10, 500, 500)])
    assert [len(read_records(half)) for half in split(batch)] == [2, 4]
    for sizes in ([5000, 1], [1, 5000], [0, 0]):
        batch = build_batch([(1, None, bytes(size), ()) for size in sizes])
        assert [len(read_records(half)) for half in split(batch)] == [1, 1]
    first, second = split(build_batch([(1, None, None, ())] * 100))
    assert [len(read_records(half)) for half in (first, second)] == [50, 50]


def test_split_and_restamp_take_whole_batches():
    batch = bytes(filled(4).close())
    for call in (
        split,
        lambda data: restamp(data, producer_id=1, producer_epoch=1, base_sequence=1),
    ):
        with pytest.raises(CorruptMessage):
            call(batch[:-1])
    broken = bytearray(batch)
    broken[61] = 0x7F
    with pytest.raises(InvalidRecord):
        split(broken)
