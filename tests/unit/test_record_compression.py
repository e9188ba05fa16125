"""Codecs: round trips, what other implementations write, limits, and corrupt data."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from contextlib import suppress

import cramjam
import pytest
import zstandard
from aiokafka import codec as aiokafka_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.strategies import mutated
from trioq.errors import InvalidRecord
from trioq.record.compression import RATIO_FREE_BYTES, Codec, compress, decompress

COMPRESSING = [codec for codec in Codec if codec is not Codec.NONE]
SAMPLES = [
    b"",
    b"a",
    bytes(100_000),
    b"abcdefgh" * 50_000,
    random.Random(1).randbytes(200_000),
    b"".join(b"%d," % (i * i) for i in range(60_000)),
]


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_round_trip(codec, sample):
    data = SAMPLES[sample]
    packed = compress(codec, data)
    assert decompress(codec, packed, max_bytes=len(data)) == data
    assert decompress(codec, memoryview(bytearray(packed)), max_bytes=2**40) == data


@settings(deadline=None)
@given(st.sampled_from(list(Codec)), st.binary(max_size=400))
def test_round_trip_of_anything(codec, data):
    assert decompress(codec, compress(codec, data), max_bytes=len(data)) == data


@pytest.mark.parametrize(
    ("codec", "levels"),
    [
        (Codec.GZIP, (1, 9)),
        (Codec.LZ4, (1, 9, 17)),
        (Codec.ZSTD, (-5, 1, 19)),
        (Codec.SNAPPY, (1,)),
    ],
)
def test_levels(codec, levels):
    for level in levels:
        assert decompress(codec, compress(codec, SAMPLES[5], level)) == SAMPLES[5]


ENCODERS = {
    Codec.GZIP: aiokafka_codec.gzip_encode,
    Codec.SNAPPY: aiokafka_codec.snappy_encode,
    Codec.LZ4: aiokafka_codec.lz4_encode,
    Codec.ZSTD: aiokafka_codec.zstd_encode,
}
DECODERS = {
    Codec.GZIP: aiokafka_codec.gzip_decode,
    Codec.SNAPPY: aiokafka_codec.snappy_decode,
    Codec.LZ4: aiokafka_codec.lz4_decode,
    Codec.ZSTD: aiokafka_codec.zstd_decode,
}


@pytest.mark.parametrize("codec", COMPRESSING)
def test_another_client_reads_and_writes_the_same(codec):
    for data in SAMPLES[1:]:
        assert decompress(codec, ENCODERS[codec](data)) == data
        assert bytes(DECODERS[codec](compress(codec, data))) == data


def zstd_stream(data):
    """A frame that does not state its size, as streaming writers make it."""
    made = zstandard.ZstdCompressor(level=19).compressobj()
    return made.compress(data) + made.flush()


FOREIGN = {
    "raw snappy": (Codec.SNAPPY, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "linked lz4 blocks": (Codec.LZ4, lambda data: bytes(cramjam.lz4.compress(data))),
    "gzip members": (Codec.GZIP, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "zstd stream": (Codec.ZSTD, zstd_stream),
    "zstd frames": (Codec.ZSTD, lambda data: zstd_stream(data[:9]) + zstd_stream(data[9:])),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_framings_are_read(name):
    codec, encode = FOREIGN[name]
    for data in SAMPLES[1:]:
        assert decompress(codec, encode(data), max_bytes=len(data)) == data


def test_lz4_blocks_are_independent_and_the_header_checksum_is_right():
    packed = compress(Codec.LZ4, SAMPLES[3])
    assert packed[:4] == bytes.fromhex("04224d18")
    assert packed[4] & 0x20
    assert bytes(cramjam.lz4.decompress(packed)) == SAMPLES[3]


@pytest.mark.parametrize("codec", Codec)
def test_limits(codec):
    for data in SAMPLES[1:]:
        packed = compress(codec, data)
        for limit in (0, 1, len(data) // 2, len(data) - 1):
            if limit < len(data):
                with pytest.raises(InvalidRecord, match=f"more than {limit} bytes"):
                    decompress(codec, packed, max_bytes=limit)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_bombs_stop_at_the_ratio(codec):
    size = 64 << 20
    packed = compress(codec, bytes(size))
    allowed = max(RATIO_FREE_BYTES, 10 * len(packed))
    assert allowed < size
    with pytest.raises(InvalidRecord, match=f"more than {allowed} bytes"):
        decompress(codec, packed, max_ratio=10)
    assert len(decompress(codec, packed, max_bytes=size)) == size


@pytest.mark.parametrize("codec", COMPRESSING)
def test_small_batches_may_have_any_ratio(codec):
    packed = compress(codec, bytes(RATIO_FREE_BYTES))
    assert decompress(codec, packed, max_ratio=1) == bytes(RATIO_FREE_BYTES)


def test_nested_bombs_within_one_gzip_are_one_bomb():
    packed = gzip.compress(bytes(600_000)) * 5
    with pytest.raises(InvalidRecord, match="more than 1048576 bytes"):
        decompress(Codec.GZIP, packed, max_ratio=1)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_cut_off_data_and_trailing_bytes_are_corrupt(codec):
    for data in SAMPLES[1:]:
        packed = compress(codec, data)
        for cut in {0, 1, 4, 8, len(packed) // 2, len(packed) - 1} & set(range(len(packed))):
            with pytest.raises(InvalidRecord):
                decompress(codec, packed[:cut])
        with pytest.raises(InvalidRecord):
            decompress(codec, packed + b"\0\1\2")


CORRUPT = {
    "snappy claims 4 GiB": (Codec.SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(20)),
    "snappy claim too long": (Codec.SNAPPY, b"\xff" * 20),
    "xerial block beyond the end": (
        Codec.SNAPPY,
        b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, 100) + b"x",
    ),
    "xerial negative block": (Codec.SNAPPY, b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, -1)),
    "lz4 dictionary": (Codec.LZ4, b"\x04\x22\x4d\x18\x61\x40\x00" + bytes(8)),
    "lz4 block size 3": (Codec.LZ4, b"\x04\x22\x4d\x18\x60\x30\x00" + bytes(8)),
    "lz4 block over maximum": (
        Codec.LZ4,
        b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", 70_000) + bytes(70_004),
    ),
    "lz4 header checksum": (Codec.LZ4, b"\x04\x22\x4d\x18\x60\x40\x83" + bytes(4)),
    "gzip is zlib": (Codec.GZIP, zlib.compress(b"abc")),
    "zstd window of 2 GiB": (Codec.ZSTD, b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(20)),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_data(name):
    codec, data = CORRUPT[name]
    with pytest.raises(InvalidRecord):
        decompress(codec, data)


PACKED = st.tuples(
    st.sampled_from(COMPRESSING), st.sampled_from(SAMPLES[:2] + SAMPLES[3:4])
).flatmap(lambda choice: st.tuples(st.just(choice[0]), mutated(st.just(compress(*choice)))))


@settings(deadline=None, max_examples=300)
@given(PACKED)
def test_mutated_data_gives_bytes_within_the_limit_or_invalid_record(made):
    codec, data = made
    with suppress(InvalidRecord):
        assert len(decompress(codec, data, max_bytes=500_000)) <= 500_000


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(COMPRESSING), st.binary(max_size=100), st.booleans())
def test_random_data_gives_bytes_within_the_limit_or_invalid_record(codec, data, with_magic):
    magic = {
        Codec.GZIP: b"\x1f\x8b\x08",
        Codec.SNAPPY: b"\x82SNAPPY\x00",
        Codec.LZ4: b"\x04\x22\x4d\x18",
        Codec.ZSTD: b"\x28\xb5\x2f\xfd",
    }
    with suppress(InvalidRecord):
        assert len(decompress(codec, magic[codec] * with_magic + data, max_bytes=10_000)) <= 10_000
