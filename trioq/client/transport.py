"""Byte streams to brokers: TCP, and TLS over it, under whichever loop is running."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from trioq.client.address import HostPort
from trioq.errors import AuthenticationFailed, ConnectionFailed

RECEIVE_BYTES: Final = 256 * 1024
"""What one receive may take; what asyncio's transports take at most, too."""


async def open_stream(
    address: HostPort, *, tls: ssl.SSLContext | None, timeout_s: float
) -> ByteStream:
    """Connect to `address`, resolving its name anew; the caller closes the stream.

    Raises ConnectionFailed, or AuthenticationFailed when the broker's certificate does not
    verify. Cancellation leaves nothing open.
    """
    try:
        with anyio.fail_after(timeout_s):
            stream: ByteStream = await anyio.connect_tcp(address.host, address.port)
            stream.extra(SocketAttribute.raw_socket).setsockopt(  # noqa: S610  no Django
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
            return stream if tls is None else await _with_tls(stream, tls, address.host)
    except TimeoutError as error:
        raise ConnectionFailed(
            f"no connection to {address} within {timeout_s:g} s: is the address right, "
            f"{'and is it a TLS listener' if tls else 'and does nothing between drop packets'}?"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise AuthenticationFailed(
            f"the certificate of {address} does not verify ({error.verify_message}): give the "
            "CA that signed it in the SSL context"
        ) from error
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        hint = "" if tls is None else ": is it a TLS listener?"
        raise ConnectionFailed(f"no connection to {address} ({reason(error)}){hint}") from error


async def _with_tls(stream: ByteStream, tls: ssl.SSLContext, host: str) -> ByteStream:
    """TLS over `stream`, which is closed if that fails."""
    wrapped: ByteStream | None = None
    try:
        wrapped = await TLSStream.wrap(
            stream, hostname=host, ssl_context=tls, standard_compatible=False
        )
        return wrapped
    finally:
        if wrapped is None:
            await anyio.aclose_forcefully(stream)


def reason(error: BaseException) -> str:
    """The text of an I/O error, for the end of a message."""
    if isinstance(error, BaseExceptionGroup):
        return reason(error.exceptions[0])
    if error.__cause__ is not None and isinstance(error, (OSError, anyio.BrokenResourceError)):
        return reason(error.__cause__)
    if isinstance(error, (anyio.EndOfStream, anyio.BrokenResourceError)):
        return "closed by the other side"
    if isinstance(error, anyio.ClosedResourceError):
        return "closed"
    if isinstance(error, OSError):
        if error.errno is not None and not isinstance(error, (socket.gaierror, ssl.SSLError)):
            return os.strerror(error.errno)  # asyncio puts texts of its own into strerror
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__
