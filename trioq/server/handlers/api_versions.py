"""ApiVersions (key 18), versions 0-4.

Behavior:
- lists what the registry serves, at the ranges of trioq.wire.api_keys, and nothing else
- an unknown version is answered in version 0 with UNSUPPORTED_VERSION and the range of this
  API (KIP-511); the connection stays open

Version notes: 3 flexible, with the client's software name and version, which must look like
names (INVALID_REQUEST otherwise); 4 may list features that start at version 0 (there are none).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from trioq.errors import InvalidRequest, UnsupportedVersion
from trioq.server.handlers.registry import served_apis
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.messages.api_versions import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    ApiVersionsResponseKey,
)

if TYPE_CHECKING:
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot

_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_FIRST_VERSION_WITH_SOFTWARE: Final = 3


def handle_api_versions(ctx: Context, request: Request, slot: Slot) -> ApiVersionsResponse | None:
    """Answer at once, from the tables."""
    version = request.api_version
    software = None
    if version >= _FIRST_VERSION_WITH_SOFTWARE or request.position != request.end:
        message = request.decode(ApiVersionsRequest)
        if version >= _FIRST_VERSION_WITH_SOFTWARE:
            software = message.client_software_name, message.client_software_version
            if not all(map(_SOFTWARE.fullmatch, software)):
                return ApiVersionsResponse(error_code=InvalidRequest.code)
            request.connection.client_software = software
    encoded = _encoded(version)
    asked = request.body[request.position : request.end]
    ctx.kept_versions.keep(
        None, request.connection.listener_name, version, asked, encoded, software
    )
    slot.complete_raw([encoded])
    return None


@functools.cache
def _encoded(version: int) -> bytes:
    return ApiVersionsResponse(api_keys=_served()).encode(version)


def unsupported_version_body() -> bytes:
    """The body, in version 0, that answers a version which is not known here."""
    only = [key for key in _served() if key.api_key == ApiKey.API_VERSIONS]
    return ApiVersionsResponse(error_code=UnsupportedVersion.code, api_keys=only).encode(0)


@functools.cache
def _served() -> list[ApiVersionsResponseKey]:
    return [
        ApiVersionsResponseKey(
            api_key=key, min_version=APIS[key].min_version, max_version=APIS[key].max_version
        )
        for key in sorted(served_apis())
        if APIS[key].advertised
    ]
