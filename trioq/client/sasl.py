"""SASL mechanisms: how a client proves who it is, over SaslAuthenticate requests."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import anyio

from trioq.errors import AuthenticationFailed, ClientUsageError

Exchange = Callable[[bytes], Awaitable[bytes]]
"""Sends a token to the broker and returns the broker's; raises AuthenticationFailed."""

_SEPARATOR: Final = "\x01"


class SaslMechanism(Protocol):
    """What a connection needs to know of a mechanism."""

    @property
    def mechanism(self) -> str:
        """Its registered name."""
        ...

    async def authenticate(self, exchange: Exchange) -> None:
        """Exchange tokens until both sides are satisfied; raises AuthenticationFailed."""
        ...


@dataclass(frozen=True, slots=True)
class SaslPlain:
    """PLAIN (RFC 4616): the password itself, hence for TLS connections only."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _refuse_nul(self.username, self.password)

    @property
    def mechanism(self) -> str:
        return "PLAIN"

    async def authenticate(self, exchange: Exchange) -> None:
        await exchange(f"\0{self.username}\0{self.password}".encode())


@dataclass(frozen=True, slots=True)
class SaslScram:
    """SCRAM (RFC 5802): proof of the password without sending it; the broker proves itself too."""

    username: str
    password: str = field(repr=False)
    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"

    def __post_init__(self) -> None:
        if self.mechanism not in {"SCRAM-SHA-256", "SCRAM-SHA-512"}:
            raise ClientUsageError(
                f"mechanism={self.mechanism!r}: allowed are SCRAM-SHA-256 and SCRAM-SHA-512"
            )

    async def authenticate(self, exchange: Exchange) -> None:
        from scramp import ScramClient, ScramException  # noqa: PLC0415  few clients need it

        client = ScramClient([self.mechanism], self.username, self.password)
        server_first = await exchange(client.get_client_first().encode())
        try:
            # Thousands of hash rounds, by the broker's choice: not on the loop.
            await anyio.to_thread.run_sync(client.set_server_first, server_first.decode())
            server_final = await exchange(client.get_client_final().encode())
            client.set_server_final(server_final.decode())
        except (ScramException, ValueError) as error:
            raise AuthenticationFailed(
                f"{self.mechanism} for {self.username!r} failed: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class SaslOAuthBearer:
    """OAUTHBEARER (RFC 7628, KIP-255) with a token, or a function that gets a fresh one.

    The function is called for each connection, also when a session has to be renewed; it may
    be async. `extensions` are sent along (KIP-342).
    """

    token: str | Callable[[], str | Awaitable[str]] = field(repr=False)
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def mechanism(self) -> str:
        return "OAUTHBEARER"

    async def authenticate(self, exchange: Exchange) -> None:
        token = self.token if isinstance(self.token, str) else self.token()
        if inspect.isawaitable(token):
            token = await token
        pairs = [
            f"auth=Bearer {token}",
            *(f"{key}={self.extensions[key]}" for key in self.extensions),
        ]
        message = f"n,,{_SEPARATOR}{_SEPARATOR.join(pairs)}{_SEPARATOR}{_SEPARATOR}"
        complaint = await exchange(message.encode())
        if complaint:  # then the broker waits for this before it closes with its error
            await exchange(_SEPARATOR.encode())
            raise AuthenticationFailed(
                f"the broker refused the token: {complaint.decode(errors='replace')}"
            )


def _refuse_nul(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise ClientUsageError("PLAIN has no way to send a NUL in a user name or password")
