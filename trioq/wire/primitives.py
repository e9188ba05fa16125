"""The small functions that generated code calls, and the errors it raises."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trioq.errors import ProtocolViolation, TrioqError
from trioq.types import FileRegion

if TYPE_CHECKING:
    from types import TracebackType

Part = bytes | bytearray | memoryview | FileRegion
"""A piece of an encoded message, to be sent as it is: in memory or in a file."""

Records = Part | list[Part] | None
"""What a `records` field may hold on encode; on decode it holds a memoryview or None."""


class EncodeError(TrioqError):
    """A message cannot be written in the version asked for; the message names field and version."""


class MalformedError(ValueError):
    """What is wrong with the bytes at hand; becomes a ProtocolViolation with its place."""


def read_uvarint(view: memoryview, position: int) -> tuple[int, int]:
    """Read an unsigned 32-bit varint; returns it and the position behind it.

    Raises MalformedError when it takes more than 5 bytes or does not fit 32 bits, IndexError
    at the end of `view`.
    """
    value = 0
    for shift in (0, 7, 14, 21, 28):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                break
            return value, position
    raise MalformedError("varint of more than 32 bits")


def write_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned varint."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


@functools.lru_cache(maxsize=4096)
def uuid_from_bytes(data: bytes) -> uuid.UUID:
    """Topic ids come again and again; making a UUID is slow."""
    return uuid.UUID(bytes=data)


def records_length(records: Part | list[Part]) -> int:
    """Bytes that a `records` value stands for."""
    if isinstance(records, list):
        return sum(map(records_length, records))
    return records.length if isinstance(records, FileRegion) else len(records)


def splice(out: bytearray, parts: list[Part] | None, records: Part | list[Part]) -> None:
    """Put `records` behind what `out` holds.

    With `parts`, what `out` holds so far and then the records become parts of their own
    (regions and buffers are not copied, empty ones left out) and `out` starts again.
    Without, the records are copied, and a FileRegion raises EncodeError.
    """
    for piece in records if isinstance(records, list) else (records,):
        if parts is None:
            if isinstance(piece, FileRegion):
                raise EncodeError("a file region can only be encoded as a part of its own")
            out += piece
        elif records_length(piece):
            if out:
                parts.append(bytes(out))
                out.clear()
            parts.append(piece)


def violation(
    message: str,
    version: int,
    paths: Mapping[int, str],
    error: Exception,
    position: int,
) -> ProtocolViolation:
    """The error for malformed bytes: which message, version, field and byte of the body.

    `paths` names the field that each line of the generated function reads; the line is
    the one where `error` left it.
    """
    path = paths.get(_line(error.__traceback__), "the body")
    reason = str(error) if isinstance(error, (MalformedError, UnicodeDecodeError)) else "cut off"
    return ProtocolViolation(f"{message} v{version}: {path}, byte {position}: {reason}")


def _line(traceback: TracebackType | None) -> int:
    return traceback.tb_lineno if traceback is not None else 0
