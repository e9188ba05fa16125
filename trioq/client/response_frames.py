"""Cuts a stream of bytes into response frames."""

from __future__ import annotations

import struct
from typing import Final

from trioq.errors import ProtocolViolation

_LENGTH: Final = struct.Struct(">i")
_LEAST_BYTES: Final = 4  # the correlation id


class ResponseFrames:
    """Takes bytes as they come and gives whole frames, without their length prefix.

    Memory grows with the bytes that came, never with a length that a frame merely claims.
    Frames that came in one piece share its memory.
    """

    __slots__ = ("_held_bytes", "_max_bytes", "_needed_bytes", "_pieces")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes | memoryview] = []
        self._held_bytes = 0
        self._needed_bytes = _LENGTH.size

    def feed(self, data: bytes) -> list[memoryview]:
        """The frames that `data` completes, in order.

        Raises ProtocolViolation for a length that no response has.
        """
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._needed_bytes:
            return []
        whole = memoryview(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        frames = []
        position, end = 0, len(whole)
        self._needed_bytes = _LENGTH.size
        while end - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(whole, position)
            if not _LEAST_BYTES <= length <= self._max_bytes:
                raise ProtocolViolation(
                    f"a response of {length} bytes, allowed are {self._max_bytes}: is this a Kafka "
                    "broker, and is TLS on or off on both sides?"
                )
            if end - position < _LENGTH.size + length:
                self._needed_bytes = _LENGTH.size + length
                break
            position += _LENGTH.size
            frames.append(whole[position : position + length])
            position += length
        # The rest is copied, so that it does not keep the memory of frames that were given out.
        self._pieces = [bytes(whole[position:])] if position < end else []
        self._held_bytes = end - position
        return frames
