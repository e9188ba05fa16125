"""Decompression: any bytes, limits kept; and what is compressed comes back."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from trioq.errors import InvalidRecord
from trioq.record.compression import RATIO_FREE_BYTES, Codec, compress, decompress

CODECS = (Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD)
_LIMITS = (0, 1, 100, 1 << 12, 1 << 16, RATIO_FREE_BYTES + 1, 1 << 22)


def check_codec(codec: Codec, data: bytes) -> None:
    choices = Choices(data)
    mode = choices.byte()
    payload = choices.rest()
    if mode == 0xFF:
        packed = compress(codec, payload)
        assert decompress(codec, packed, max_bytes=len(payload)) == payload
        return
    limit = _LIMITS[mode % len(_LIMITS)]
    ratio = None if mode & 0x40 else 1 + (mode >> 3 & 7)
    found = outcome(InvalidRecord, decompress, codec, payload, max_bytes=limit, max_ratio=ratio)
    if isinstance(found, Raised):
        return
    assert len(found) <= limit
    if ratio is not None:
        assert len(found) <= max(RATIO_FREE_BYTES, ratio * len(payload))
    # What fits is the same under any larger limit, and does not fit under a smaller one.
    assert decompress(codec, payload, max_bytes=1 << 24) == found
    assert decompress(codec, payload, max_bytes=len(found)) == found
    if found:
        smaller = outcome(InvalidRecord, decompress, codec, payload, max_bytes=len(found) - 1)
        assert smaller == Raised(InvalidRecord)


def _seeds(codec: Codec) -> Iterator[bytes]:
    chance = seeded("codecs")
    texts = [b"", b"a", b"abc" * 50, bytes(5000), chance.randbytes(300), bytes(2 << 20)]
    for text in texts:
        packed = compress(codec, text)
        for mode in (4, 6, 0x44, 3):
            yield bytes([mode]) + packed
        yield bytes([6]) + packed + packed
        yield b"\xff" + text[:300]
    yield from _foreign_seeds(codec)


def _foreign_seeds(codec: Codec) -> Iterator[bytes]:
    """What other encoders write."""
    import cramjam

    text = b"the quick brown fox " * 40
    if codec is Codec.SNAPPY:
        yield b"\x04" + bytes(cramjam.snappy.compress_raw(text))
    elif codec is Codec.LZ4:
        yield b"\x04" + bytes(cramjam.lz4.compress(text))
    elif codec is Codec.ZSTD:
        yield b"\x04" + bytes(cramjam.zstd.compress(text, level=19))


TARGETS = tuple(
    Target(
        codec.name.lower(),
        functools.partial(check_codec, codec),
        functools.partial(_seeds, codec),
        1 << 14,
    )
    for codec in CODECS
)
