"""Settings of a client as a whole; those of producers and consumers stand with them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from trioq.client.address import HostPort
from trioq.client.sasl import SaslMechanism
from trioq.errors import ClientUsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What every connection of a client shares; see `trioq.connect`."""

    bootstrap: tuple[HostPort, ...]
    client_id: str = "trioq"
    tls: ssl.SSLContext | None = None
    sasl: SaslMechanism | None = None
    rack: str | None = None
    connect_timeout_ms: int = 10_000
    request_timeout_ms: int = 30_000
    call_timeout_ms: int = 60_000
    retry_backoff_ms: int = 100
    retry_backoff_max_ms: int = 1_000
    metadata_max_age_ms: int = 300_000
    unknown_topic_timeout_ms: int = 5_000
    max_in_flight: int = 5
    max_response_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in (
            "connect_timeout_ms",
            "request_timeout_ms",
            "call_timeout_ms",
            "retry_backoff_ms",
            "retry_backoff_max_ms",
            "metadata_max_age_ms",
            "unknown_topic_timeout_ms",
            "max_in_flight",
            "max_response_bytes",
        ):
            at_least_one(name, getattr(self, name))
        if len(self.client_id.encode()) > 32767:
            raise ClientUsageError("client_id is longer than 32767 bytes")

    @property
    def request_timeout_s(self) -> float:
        return self.request_timeout_ms / 1000

    @property
    def call_timeout_s(self) -> float:
        return self.call_timeout_ms / 1000


def at_least_one(name: str, value: int) -> None:
    """Raise ClientUsageError unless the setting `name` is a positive number."""
    if value < 1:
        raise ClientUsageError(f"{name}={value}: allowed is 1 or more")
