"""Addresses: what a broker listens on, and what it tells its clients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from trioq.errors import ConfigError

DEFAULT_LISTENER_NAME = "PLAINTEXT"

_WILDCARDS = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104  refused, not bound
_PROTOCOLS_NOT_SPOKEN = frozenset({"SSL", "SASL_PLAINTEXT", "SASL_SSL"})
_LISTENER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?\.?")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?)\]")


class Listener(NamedTuple):
    """An address to listen on with the one that clients are told."""

    name: str
    host: str
    """Host name or address without brackets; empty for every address."""

    port: int
    """0 takes a free port."""

    advertised_host: str
    advertised_port: int
    """0 stands for the port that is bound in the end."""


class Address(NamedTuple):
    """One parsed HOST:PORT or NAME://HOST:PORT."""

    name: str | None
    host: str
    port: int


def parse_address(text: str, *, key: str) -> Address:
    """Parse HOST:PORT, [IPV6]:PORT, each with or without NAME:// before it.

    `key` is what an error names as the culprit. Raises ConfigError.
    """
    prefix, separator, rest = text.strip().rpartition("://")
    name = prefix if separator else None
    host_text, colon, port_text = rest.rpartition(":")
    bracketed = _BRACKETED.fullmatch(host_text)
    host = bracketed[1] if bracketed else host_text
    valid = (
        colon == ":"
        and (name is None or _LISTENER_NAME.fullmatch(name) is not None)
        and (bracketed or host in _WILDCARDS - {"::"} or _HOST.fullmatch(host) is not None)
        and re.fullmatch(r"[0-9]{1,5}", port_text) is not None
        and int(port_text) <= 65535
    )
    if not valid:
        hint = "; an IPv6 address needs brackets" if rest.count(":") > 1 and not bracketed else ""
        raise ConfigError(
            f"{key}={text} is not valid: allowed is HOST:PORT or NAME://HOST:PORT with a port from "
            f"0 to 65535{hint}"
        )
    return Address(name, "" if host == "*" else host, int(port_text))


def format_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listeners(listeners: Sequence[str], advertised: Sequence[str]) -> tuple[Listener, ...]:
    """Match the addresses to listen on with those to advertise.

    An unnamed listener is called PLAINTEXT, a second one PLAINTEXT-2, and so on. Advertised
    addresses with names go to the listeners of those names, unnamed ones by position.
    A name that promises encryption or authentication is refused, as no listener has either.
    Raises ConfigError.
    """
    bound = [parse_address(text, key="listeners") for text in listeners]
    names = _listener_names(bound)
    told = _advertised_by_name(names, advertised)
    result = []
    for text, name, address in zip(listeners, names, bound, strict=True):
        public = told.pop(name, None)
        if public is None and address.host in _WILDCARDS:
            raise ConfigError(
                f"listeners={text} listens on every address, which says nothing to a client: state "
                "the one that clients can reach with --advertised HOST:PORT (advertised.listeners)"
            )
        public = public or address
        result.append(Listener(name, address.host, address.port, public.host, public.port))
    return tuple(result)


def _listener_names(addresses: Sequence[Address]) -> list[str]:
    names: list[str] = []
    unnamed = 0
    for address in addresses:
        name = address.name
        if name is None:
            unnamed += 1
            name = DEFAULT_LISTENER_NAME if unnamed == 1 else f"{DEFAULT_LISTENER_NAME}-{unnamed}"
        if name.upper() in _PROTOCOLS_NOT_SPOKEN:
            raise ConfigError(
                f"listeners={name}://... is not valid: this version of trioq listens without "
                "encryption and authentication only. Name it PLAINTEXT and let only those reach it "
                "who may read and write everything, by a firewall or a private network"
            )
        if name in names:
            raise ConfigError(f"listeners is not valid: two listeners are named {name}")
        names.append(name)
    return names


def _advertised_by_name(names: Sequence[str], advertised: Sequence[str]) -> dict[str, Address]:
    told: dict[str, Address] = {}
    if len(advertised) > len(names):
        raise ConfigError(
            f"advertised.listeners={','.join(advertised)} is not valid: there are "
            f"{len(advertised)} of them and only {len(names)} listeners"
        )
    for position, text in enumerate(advertised):
        address = parse_address(text, key="advertised.listeners")
        name = names[position] if address.name is None else address.name
        if name not in names:
            raise ConfigError(
                f"advertised.listeners={text} is not valid: no listener is named {name}; "
                f"there is {', '.join(names)}"
            )
        if name in told:
            raise ConfigError(f"advertised.listeners names the listener {name} twice")
        if address.host in _WILDCARDS:
            raise ConfigError(
                f"advertised.listeners={text} is not valid: a client cannot connect to a wildcard "
                "address"
            )
        told[name] = address
    return told
