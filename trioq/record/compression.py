"""The four codecs of record batches, each bounded when it decompresses.

What Kafka's clients put on the wire: gzip (RFC 1952), snappy in Java's framing ("xerial") or raw,
LZ4 frames, Zstandard frames. Decompression holds at most about twice its limit in memory, never
allocates by a length that the data merely claims, and raises InvalidRecord for anything corrupt
or too large. Codec libraries are imported at first use. Every function may run in any thread.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal

from trioq.errors import InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

MAX_DECOMPRESSED_BYTES: Final = 256 * 1024 * 1024
"""What one batch may decompress to, where the caller names no limit of its own."""

RATIO_FREE_BYTES: Final = 1024 * 1024
"""Up to this size a batch may have any ratio: small repetitive ones pass 1:100 easily."""

_GZIP_WBITS: Final = 31
_GZIP_STEP_BYTES: Final = 64 * 1024
_GZIP_PIECE_BYTES: Final = 256 * 1024


class Codec(IntEnum):
    """Attribute bits 0 to 2."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(codec: Codec, data: Buffer, level: int | None = None) -> bytes:
    """`data` (borrowed until return) under `codec`.

    `level` is the codec's own scale (gzip 1-9, lz4 1-17, zstd -131072 to 22; snappy has none);
    None is its default. A level out of range is a ValueError or the library's own error.
    """
    return _COMPRESSORS[codec](memoryview(data).cast("B"), level)


def decompress(
    codec: Codec,
    data: Buffer,
    *,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
    max_ratio: int | None = None,
) -> bytes:
    """`data` (borrowed until return) decompressed; raises InvalidRecord as described above.

    The limit is `max_bytes` and, above RATIO_FREE_BYTES, `max_ratio` times the size of `data`.
    """
    source = memoryview(data).cast("B")
    limit = max_bytes
    if max_ratio is not None and codec is not Codec.NONE:
        limit = min(limit, max(RATIO_FREE_BYTES, max_ratio * len(source)))
    return _DECOMPRESSORS[codec](source, limit)


def _too_large(limit: int) -> InvalidRecord:
    return InvalidRecord(f"the records decompress to more than {limit} bytes")


# ---- none ----


def _store(data: memoryview, _level: int | None) -> bytes:
    return bytes(data)


def _unstore(data: memoryview, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_large(limit)
    return bytes(data)


# ---- gzip ----


def _gzip(data: memoryview, level: int | None) -> bytes:
    return zlib.compress(data, -1 if level is None else level, _GZIP_WBITS)


def _gunzip(data: memoryview, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    position = 0
    while True:  # a member of the file at a time; there is one at least
        member = zlib.decompressobj(_GZIP_WBITS)
        while not member.eof:
            fed = member.unconsumed_tail or data[position : position + _GZIP_STEP_BYTES]
            if not member.unconsumed_tail:
                position += len(fed)
            try:
                piece = member.decompress(fed, min(_GZIP_PIECE_BYTES, limit - size + 1))
            except zlib.error as error:
                raise InvalidRecord(f"gzip: {error}") from error
            if not piece and not fed and not member.eof:
                raise InvalidRecord("gzip: the data is cut off")
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
        position -= len(member.unused_data)
        if position == len(data):
            return b"".join(pieces)


# ---- snappy ----

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = struct.Struct(">8sii")
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
_BLOCK_LENGTH: Final = struct.Struct(">i")
_SNAPPY_MAX_RATIO: Final = 22  # three bytes copy 64 at most


def _snappy(data: memoryview, _level: int | None) -> bytes:
    from cramjam import snappy  # noqa: PLC0415 - imported at first use

    pieces = [_XERIAL_HEADER.pack(_XERIAL_MAGIC, 1, 1)]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        pieces.append(_BLOCK_LENGTH.pack(len(block)))
        pieces.append(block)
    return b"".join(pieces)


def _unsnappy(data: memoryview, limit: int) -> bytes:
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _unsnappy_raw(data, limit, limit)
    if len(data) < _XERIAL_HEADER.size:
        raise InvalidRecord("snappy: the header is cut off")
    pieces: list[bytes] = []
    size = 0
    position = _XERIAL_HEADER.size
    while position < len(data):
        if len(data) - position < _BLOCK_LENGTH.size:
            raise InvalidRecord("snappy: a block length is cut off")
        (length,) = _BLOCK_LENGTH.unpack_from(data, position)
        position += _BLOCK_LENGTH.size
        if length < 0 or length > len(data) - position:
            raise InvalidRecord(f"snappy: a block of {length} bytes is cut off")
        piece = _unsnappy_raw(data[position : position + length], limit - size, limit)
        size += len(piece)
        pieces.append(piece)
        position += length
    return b"".join(pieces)


def _unsnappy_raw(data: memoryview, room: int, limit: int) -> bytes:
    """One raw block into what is left, `room`, of `limit`."""
    from cramjam import DecompressionError, snappy  # noqa: PLC0415 - imported at first use

    claimed = _snappy_claim(data)
    if claimed > _SNAPPY_MAX_RATIO * len(data):
        raise InvalidRecord(f"snappy: {len(data)} bytes cannot hold {claimed}")
    if claimed > room:
        raise _too_large(limit)
    try:
        return bytes(snappy.decompress_raw(data))
    except DecompressionError as error:
        raise InvalidRecord(f"snappy: {error}") from error


def _snappy_claim(data: memoryview) -> int:
    """The uncompressed length that a raw block starts with."""
    claimed = 0
    for index, byte in enumerate(data[:5]):
        claimed |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return claimed
    raise InvalidRecord("snappy: the block has no valid length")


# ---- lz4 ----

_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_LZ4_HEADER: Final = _LZ4_MAGIC + b"\x60\x40\x82"
"""Version 1, independent blocks (Java's client reads no others) of 64 KiB, no checksums."""
_LZ4_BLOCK_BYTES: Final = 64 * 1024
_LZ4_STORED: Final = 1 << 31
_LZ4_END_MARK: Final = bytes(4)
_LZ4_WORD: Final = struct.Struct("<I")
_LZ4_MAX_RATIO: Final = 255
_LZ4_MAX_BLOCK_BYTES: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}


def _lz4(data: memoryview, level: int | None) -> bytes:
    from cramjam import lz4  # noqa: PLC0415 - imported at first use

    mode: Literal["default", "high_compression"]
    mode = "default" if level is None else "high_compression"
    pieces = [_LZ4_HEADER]
    for start in range(0, len(data), _LZ4_BLOCK_BYTES):
        stored = data[start : start + _LZ4_BLOCK_BYTES]
        block = bytes(lz4.compress_block(stored, store_size=False, mode=mode, compression=level))
        if len(block) < len(stored):
            pieces += (_LZ4_WORD.pack(len(block)), block)
        else:
            pieces += (_LZ4_WORD.pack(len(stored) | _LZ4_STORED), bytes(stored))
    pieces.append(_LZ4_END_MARK)
    return b"".join(pieces)


def _unlz4(data: memoryview, limit: int) -> bytes:
    from cramjam import DecompressionError, lz4  # noqa: PLC0415 - imported at first use

    room = min(_lz4_bound(data), limit)
    out = bytearray(room)
    try:
        size = lz4.decompress_into(data, out)
    except DecompressionError as error:
        if room == limit and "whole buffer" in str(error):
            raise _too_large(limit) from error
        raise InvalidRecord(f"lz4: {error}") from error
    with memoryview(out) as whole:
        return bytes(whole[:size])


def _lz4_bound(data: memoryview) -> int:
    """The most that the one frame in `data` can hold, from the sizes of the blocks that are there.

    Checks the frame's structure up to the end mark, which must end `data`.
    """
    try:
        flags, block_maximum = data[4], (data[5] >> 4) & 7
        if bytes(data[:4]) != _LZ4_MAGIC or flags >> 6 != 1 or flags & 1:
            raise InvalidRecord("lz4: not a frame of version 1 without dictionary")
        most = _LZ4_MAX_BLOCK_BYTES[block_maximum]
        position = 7 + (8 if flags & 0x08 else 0)
        bound = 0
        while True:
            (word,) = _LZ4_WORD.unpack_from(data, position)
            position += 4
            if word == 0:
                break
            length = word & ~_LZ4_STORED
            if length > most:
                raise InvalidRecord(f"lz4: a block of {length} bytes is over the frame's maximum")
            bound += length if word & _LZ4_STORED else min(most, _LZ4_MAX_RATIO * length)
            position += length + (4 if flags & 0x10 else 0)
    except (IndexError, KeyError, struct.error) as error:
        raise InvalidRecord("lz4: the frame is cut off or its header is invalid") from error
    if position + (4 if flags & 0x04 else 0) != len(data):
        raise InvalidRecord("lz4: the frame does not end where the data ends")
    return bound


# ---- zstd ----

_ZSTD_MAX_RATIO: Final = 32 * 1024  # a block of four bytes repeats one byte 128 KiB times
_ZSTD_LEAST_STEP: Final = 256
_ZSTD_MAX_WINDOW: Final = 1 << 27  # what level 22 uses; reserved by the library, not filled


def _zstd(data: memoryview, level: int | None) -> bytes:
    from zstandard import ZstdCompressor  # noqa: PLC0415 - imported at first use

    return ZstdCompressor(level=3 if level is None else level).compress(data)


def _unzstd(data: memoryview, limit: int) -> bytes:
    from zstandard import ZstdDecompressor, ZstdError  # noqa: PLC0415 - imported at first use

    pieces: list[bytes] = []
    size = 0
    decompressor = ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    while True:  # a frame at a time; there is one at least
        frame = decompressor.decompressobj()
        position = 0
        while not frame.eof:
            if position == len(data):
                raise InvalidRecord("zstd: the data is cut off")
            # Small steps near the limit: each can give no more than _ZSTD_MAX_RATIO times its size.
            step = max(_ZSTD_LEAST_STEP, (limit - size) // _ZSTD_MAX_RATIO)
            try:
                piece = frame.decompress(data[position : position + step])
            except ZstdError as error:
                raise InvalidRecord(f"zstd: {error}") from error
            position = min(position + step, len(data))
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
        data = data[position - len(frame.unused_data) :]
        if not data:
            return b"".join(pieces)


_COMPRESSORS: Final[dict[Codec, Callable[[memoryview, int | None], bytes]]] = {
    Codec.NONE: _store,
    Codec.GZIP: _gzip,
    Codec.SNAPPY: _snappy,
    Codec.LZ4: _lz4,
    Codec.ZSTD: _zstd,
}

_DECOMPRESSORS: Final[dict[Codec, Callable[[memoryview, int], bytes]]] = {
    Codec.NONE: _unstore,
    Codec.GZIP: _gunzip,
    Codec.SNAPPY: _unsnappy,
    Codec.LZ4: _unlz4,
    Codec.ZSTD: _unzstd,
}
