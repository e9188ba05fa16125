"""Addresses of brokers, as users write them and as metadata names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trioq.config.listeners import format_address, parse_address
from trioq.errors import ClientUsageError, ConfigError


class HostPort(NamedTuple):
    """A host name or IP address (without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def parse_bootstrap(bootstrap: str | Sequence[str]) -> tuple[HostPort, ...]:
    """The addresses in "host:port,host:port" or in a sequence of such; duplicates are dropped.

    Raises ClientUsageError when there is none, or one that is not HOST:PORT.
    """
    texts = [bootstrap] if isinstance(bootstrap, str) else list(bootstrap)
    found: dict[HostPort, None] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        if not text:
            continue
        try:
            address = parse_address(text, key="bootstrap")
        except ConfigError as error:
            raise ClientUsageError(str(error)) from error
        if not address.host or not address.port:
            raise ClientUsageError(f"bootstrap={text} has no host or port to connect to")
        found[HostPort(address.host, address.port)] = None
    if not found:
        raise ClientUsageError('bootstrap names no address: give "host:port", or several of them')
    return tuple(found)
