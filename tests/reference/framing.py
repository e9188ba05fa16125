"""Request frames: a 4-byte length, then as many bytes."""

from __future__ import annotations

import struct

from trioq.errors import ProtocolViolation


def split(buf: bytes, start: int, end: int, max_frame_bytes: int, max_frames: int):
    frames = []
    while end - start >= 4:
        (length,) = struct.unpack_from(">i", buf, start)
        if not 0 < length <= max_frame_bytes:
            raise ProtocolViolation(f"length {length}")
        if len(frames) == max_frames or end - start - 4 < length:
            return frames, start, 4 + length
        frames.append((start + 4, start + 4 + length))
        start += 4 + length
    return frames, start, 0
