"""Frames: an int32 length, then that many bytes of header and body."""

from __future__ import annotations

import struct
from typing import Final

from trioq.wire.header import response_header
from trioq.wire.primitives import Part, records_length
from trioq.wire.schema import Message

LENGTH_BYTES: Final = 4
"""Size of the length in front of each frame; it does not count itself."""

_LENGTH: Final = struct.Struct(">i")


def length_prefix(length: int) -> bytes:
    """The four bytes in front of a frame of `length` bytes."""
    return _LENGTH.pack(length)


def response_frame(
    api_key: int, api_version: int, correlation_id: int, message: Message
) -> list[Part]:
    """A whole response frame as pieces to send in order; usually one.

    `records` are pieces of their own, not copied; file regions are passed on with their
    reference.

    Raises:
        EncodeError: the version cannot express the message.

    """
    out = bytearray(LENGTH_BYTES)
    out += response_header(api_key, api_version, correlation_id)
    return _finish(out, message, api_version)


def request_frame(
    api_key: int, api_version: int, correlation_id: int, client_id: str | None, message: Message
) -> list[Part]:
    """A whole request frame as pieces to send in order, as `response_frame`."""
    out = bytearray(LENGTH_BYTES)
    out += struct.pack(">hhi", api_key, api_version, correlation_id)
    if client_id is None:
        out += b"\xff\xff"
    else:
        encoded = client_id.encode()
        out += struct.pack(">h", len(encoded))
        out += encoded
    if api_version >= type(message).FLEXIBLE_FROM:
        out.append(0)
    return _finish(out, message, api_version)


def _finish(out: bytearray, message: Message, api_version: int) -> list[Part]:
    """Append the body to the prefix and header in `out`, and put the length in front."""
    parts: list[Part] = []
    message.encode_into(out, parts, api_version)
    if not parts:
        _LENGTH.pack_into(out, 0, len(out) - LENGTH_BYTES)
        return [bytes(out)]
    if out:
        parts.append(bytes(out))
    first = parts[0]
    assert isinstance(first, bytes), "prefix and header come before the first records"
    parts[0] = length_prefix(records_length(parts) - LENGTH_BYTES) + first[LENGTH_BYTES:]
    return parts
