"""What a client may produce, and re-encoding under another codec."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import batch as reference
from tests.reference.strategies import broken_batches, outcome
from trioq._native import batch as native
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    InvalidTimestamp,
    KafkaError,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)
from trioq.record.batch import read_records
from trioq.record.builder import NewRecord, build_batch
from trioq.record.compression import Codec
from trioq.record.validate import check_produced, recompress

COMPRESSING = [codec for codec in Codec if codec is not Codec.NONE]
RECORDS = [NewRecord(1000 + i, b"k%d" % i, b"v" * i, [("h", b"x")]) for i in range(40)]


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("strict", [False, True])
def test_good_batches_pass(codec, strict):
    built = build_batch(RECORDS, codec=codec, producer_id=1, producer_epoch=0, base_sequence=0)
    header = check_produced(memoryview(built), strict=strict)
    assert (header.record_count, header.codec) == (40, codec)


def with_field(form, position, value, **options):
    built = build_batch(RECORDS, **options)
    struct.pack_into(form, built, position, value)
    return reference.seal(built)


REFUSED = {
    "flipped bit": (build_batch(RECORDS)[:-1] + b"?", CorruptMessage),
    "cut off": (build_batch(RECORDS)[:-1], CorruptMessage),
    "nothing": (b"", CorruptMessage),
    "two batches": (build_batch(RECORDS) * 2, InvalidRecord),
    "trailing byte": (build_batch(RECORDS) + b"\0", InvalidRecord),
    "old format": (with_field(">b", 16, 1), UnsupportedForMessageFormat),
    "unknown format": (with_field(">b", 16, 3), CorruptMessage),
    "unknown codec": (with_field(">h", 21, 6), UnsupportedCompressionType),
    "unused attribute": (with_field(">h", 21, 0x100), InvalidRecord),
    "no records": (with_field(">i", 57, 0), InvalidRecord),
    "fewer records than offsets": (with_field(">i", 57, 39), InvalidRecord),
    "append time": (with_field(">h", 21, 0x08), InvalidTimestamp),
    "delete horizon": (with_field(">h", 21, 0x40), InvalidRecord),
    "control": (build_batch(RECORDS[:1], is_control=True), InvalidRecord),
    "producer without sequence": (
        build_batch(RECORDS, producer_id=1, producer_epoch=0),
        InvalidRecord,
    ),
    "producer without epoch": (build_batch(RECORDS, producer_id=1, base_sequence=0), InvalidRecord),
    "transaction without producer": (build_batch(RECORDS, is_transactional=True), InvalidRecord),
    "malformed record": (reference.seal(build_batch(RECORDS)[:-2] + b"\x7fx"), InvalidRecord),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("strict", [False, True])
def test_refused(name, strict):
    data, error = REFUSED[name]
    with pytest.raises(error):
        check_produced(data, strict=strict)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_compressed_records_are_opened_only_when_strict(codec):
    built = build_batch(RECORDS, codec=codec)
    junk = reference.seal(built[:61] + b"junk")
    fewer = bytearray(built)
    struct.pack_into(">i", fewer, 57, 39)
    struct.pack_into(">i", fewer, 23, 38)
    for data in (junk, reference.seal(fewer)):
        check_produced(data, strict=False)
        with pytest.raises(InvalidRecord):
            check_produced(data, strict=True)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_bombs_are_refused_when_strict(codec):
    built = build_batch([NewRecord(1, None, bytes(5_000_000))], codec=codec)
    check_produced(built, strict=False)
    check_produced(built, strict=True)
    for limits in ({"max_bytes": 4_000_000}, {"max_ratio": 5}):
        with pytest.raises(InvalidRecord, match="decompress to more than"):
            check_produced(built, strict=True, **limits)


@settings(deadline=None, max_examples=300)
@given(broken_batches(), st.booleans())
def test_anything_else_is_a_kafka_error(data, strict):
    result = outcome(check_produced, data, strict=strict)
    if isinstance(result, type):
        assert issubclass(result, KafkaError)
    else:
        assert result.size_bytes == len(data)


@pytest.mark.parametrize("source", Codec)
@pytest.mark.parametrize("target", Codec)
def test_recompression_keeps_everything_but_the_codec(source, target):
    built = build_batch(
        RECORDS,
        codec=source,
        base_offset=5,
        producer_id=1,
        producer_epoch=2,
        base_sequence=3,
        is_transactional=True,
    )
    again = recompress(built, target)
    header, before = native.validate(again), native.validate(built)
    assert header.codec == target
    assert read_records(again) == read_records(built)
    assert again[:8] == built[:8]
    assert again[23:61] == built[23:61]
    assert header.attributes & ~7 == before.attributes & ~7
    assert native.validate(recompress(built, target, None)).crc == header.crc


def test_recompression_refuses_corrupt_and_oversized_records():
    built = build_batch(RECORDS, codec=Codec.GZIP)
    with pytest.raises(InvalidRecord):
        recompress(reference.seal(built[:61] + b"junk"), Codec.LZ4)
    with pytest.raises(InvalidRecord):
        recompress(built, Codec.LZ4, max_bytes=10)
    with pytest.raises(CorruptMessage):
        recompress(built[:-1], Codec.LZ4)
