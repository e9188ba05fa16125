"""Request and response headers.

Request header version 2 (tagged fields) belongs to flexible versions; the client id
keeps its int16 length even there. Response header version 1 likewise, except that an
ApiVersions response always has version 0: its client knows nothing yet.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from trioq.errors import ProtocolViolation
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.kinds import NEVER
from trioq.wire.primitives import MalformedError, read_uvarint

_FIXED: Final = struct.Struct(">hhih")
_CORRELATION_ID: Final = struct.Struct(">i")

_TAGGED_FROM: Final = {
    int(key): NEVER if key == ApiKey.API_VERSIONS else api.flexible_from
    for key, api in APIS.items()
}
"""First version of each API whose response header has tagged fields."""


class RequestHeader(NamedTuple):
    """The head of a request frame; `position` is where its body starts."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    position: int


def decode_request_header(buf: memoryview, start: int, end: int) -> RequestHeader:
    """Decode the header of the frame body in buf[start:end].

    An API or version that trioq does not serve is no error here (an unknown API is taken
    to have header version 1): the caller judges it, with the correlation id at hand.

    Raises:
        ProtocolViolation: the bytes are too few or malformed.

    """
    view = buf[:end]
    try:
        api_key, api_version, correlation_id, length = _FIXED.unpack_from(view, start)
        position = start + _FIXED.size
        client_id = None
        if length >= 0:
            edge = position + length
            if edge > end:
                raise MalformedError(f"client id of {length} bytes, {end - position} bytes left")
            client_id = str(view[position:edge], "utf-8")
            position = edge
        api = APIS.get(api_key)
        if api is not None and api_version >= api.flexible_from:
            if view[position]:
                position = _skip_tagged_fields(view, position, end)
            else:
                position += 1
    except (struct.error, IndexError) as error:
        raise ProtocolViolation(f"request header cut off: {end - start} bytes") from error
    except ValueError as error:  # MalformedError, UnicodeDecodeError
        raise ProtocolViolation(f"request header: {error}") from error
    return RequestHeader(api_key, api_version, correlation_id, client_id, position)


def _skip_tagged_fields(view: memoryview, position: int, end: int) -> int:
    """The position behind a section of tagged fields."""
    count, position = read_uvarint(view, position)
    if count * 2 > end - position:
        raise MalformedError(f"{count} tagged fields, but {end - position} bytes left")
    for _ in range(count):
        _, position = read_uvarint(view, position)
        length, position = read_uvarint(view, position)
        if length > end - position:
            raise MalformedError(f"tagged field of {length} bytes, {end - position} bytes left")
        position += length
    return position


def response_header(api_key: int, api_version: int, correlation_id: int) -> bytes:
    """The header in front of a response body; `api_key` is one of the table."""
    header = _CORRELATION_ID.pack(correlation_id)
    return header + b"\0" if api_version >= _TAGGED_FROM[api_key] else header


def response_body_position(
    api_key: int, api_version: int, buf: memoryview, start: int, end: int
) -> int:
    """Where the body starts in the response frame buf[start:end] (without its length).

    Raises:
        ProtocolViolation: the frame is too short for its header.

    """
    position = start + _CORRELATION_ID.size
    try:
        if api_version >= _TAGGED_FROM[api_key]:
            position = _skip_tagged_fields(buf[:end], position, end)
    except (IndexError, MalformedError) as error:
        raise ProtocolViolation(f"response header: {error or 'cut off'}") from error
    if position > end:
        raise ProtocolViolation(f"response header cut off: {end - start} bytes")
    return position
