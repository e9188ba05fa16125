"""The first words on a connection: which versions the broker serves, and who the client is."""

from __future__ import annotations

import struct
from typing import Final

import anyio

from trioq import __version__
from trioq.client.connection import Connection
from trioq.client.sasl import SaslMechanism
from trioq.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ProtocolViolation,
    UnsupportedByBroker,
    UnsupportedVersion,
    error_class,
)
from trioq.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from trioq.wire.messages.sasl_authenticate import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
)
from trioq.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

_ERROR_CODE: Final = struct.Struct(">h")
_API_VERSIONS: Final = 18
_SESSION_SHARE: Final = 0.85
"""A connection is replaced after this share of its session, as Java's client does (KIP-368)."""


async def greet(connection: Connection, *, sasl: SaslMechanism | None, timeout_s: float) -> None:
    """Make a running connection ready for use: `versions` known, session authenticated.

    Raises ConnectionFailed, AuthenticationFailed or UnsupportedByBroker; the connection is then
    of no use. `timeout_s` is for each request.
    """
    connection.versions = await _served_versions(connection, timeout_s)
    if sasl is not None:
        await _authenticate(connection, sasl, timeout_s)


async def _served_versions(connection: Connection, timeout_s: float) -> dict[int, tuple[int, int]]:
    request = ApiVersionsRequest(client_software_name="trioq", client_software_version=__version__)
    version: int | None = ApiVersionsRequest.LAST_VERSION
    while version is not None:
        body = await connection.call_raw(request, ApiVersionsResponse, version, timeout_s=timeout_s)
        try:
            (error_code,) = _ERROR_CODE.unpack_from(body)
            if error_code == UnsupportedVersion.code:
                version = _next_version(body, version)
                continue
            response = ApiVersionsResponse.decode(body, 0, len(body), version)
        except (ProtocolViolation, struct.error) as error:
            failure = ConnectionFailed(
                f"{connection.address} does not speak Kafka's protocol: {error}"
            )
            connection.fail(failure)
            raise failure from error
        if error_code:
            raise ConnectionFailed(
                f"{connection.address} refuses to say which versions it serves: "
                f"{error_class(error_code).kafka_name}"
            )
        return {key.api_key: (key.min_version, key.max_version) for key in response.api_keys}
    raise UnsupportedByBroker(
        f"{connection.address} serves no version of ApiVersions: is it older than Kafka 0.10?"
    )


def _next_version(body: memoryview, refused: int) -> int | None:
    """The version to ask in after `refused` was; None when there is none left.

    The refusal is in version 0 and names the versions of this API there are (KIP-511); some
    brokers, librdkafka's mock for one, send something else instead.
    """
    try:
        response = ApiVersionsResponse.decode(body, 0, len(body), 0)
    except ProtocolViolation:
        offered = []
    else:
        offered = [key.max_version for key in response.api_keys if key.api_key == _API_VERSIONS]
    lower = [version for version in (*offered, refused - 1) if 0 <= version < refused]
    return min(lower) if lower else None


async def _authenticate(connection: Connection, sasl: SaslMechanism, timeout_s: float) -> None:
    answer = await connection.call(
        SaslHandshakeRequest(mechanism=sasl.mechanism),
        SaslHandshakeResponse,
        timeout_s=timeout_s,
        at_least=1,
    )
    if answer.error_code:
        raise AuthenticationFailed(
            f"{connection.address} does not accept {sasl.mechanism}: it offers "
            f"{', '.join(answer.mechanisms) or 'none'}"
        )
    begun_at_s = anyio.current_time()
    lifetime_ms = 0

    async def exchange(token: bytes) -> bytes:
        nonlocal lifetime_ms
        response = await connection.call(
            SaslAuthenticateRequest(auth_bytes=token),
            SaslAuthenticateResponse,
            timeout_s=timeout_s,
        )
        if response.error_code:
            message = response.error_message or error_class(response.error_code).kafka_name
            raise AuthenticationFailed(
                f"{connection.address} refused the {sasl.mechanism} credentials: {message}"
            )
        lifetime_ms = response.session_lifetime_ms
        return response.auth_bytes

    try:
        await sasl.authenticate(exchange)
    except UnsupportedByBroker as error:
        raise AuthenticationFailed(
            f"{connection.address} is no broker with SASL over SaslAuthenticate: {error}"
        ) from error
    if lifetime_ms > 0:
        connection.expires_at_s = begun_at_s + _SESSION_SHARE * lifetime_ms / 1000
