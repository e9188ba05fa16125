"""How the rows of the table of keys are written: one short call per key, all of the broker's."""

from __future__ import annotations

from typing import Final

from trioq.config.key import INT_MAX, LONG_MAX, Key, Kind, Scope

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


def number(
    name: str,
    default: int | None,
    doc: str,
    *,
    unit: str = "",
    minimum: int = 0,
    maximum: int = LONG_MAX,
    dynamic: bool = False,
    note: str = "",
) -> Key:
    """An integer key; INT or LONG by its maximum."""
    kind = Kind.INT if maximum <= INT_MAX else Kind.LONG
    return Key(
        Scope.BROKER,
        name,
        kind,
        default,
        doc,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        dynamic=dynamic,
        note=note,
    )


def size(
    name: str,
    default: int,
    doc: str,
    *,
    minimum: int = 0,
    maximum: int = INT_MAX,
    dynamic: bool = False,
) -> Key:
    """A key in bytes."""
    return number(
        name, default, doc, unit="bytes", minimum=minimum, maximum=maximum, dynamic=dynamic
    )


def duration(
    name: str,
    default: int | None,
    doc: str,
    *,
    minimum: int = 0,
    maximum: int = LONG_MAX,
    dynamic: bool = False,
) -> Key:
    """A key in milliseconds."""
    return number(name, default, doc, unit="ms", minimum=minimum, maximum=maximum, dynamic=dynamic)


def boolean(name: str, default: bool, doc: str, *, dynamic: bool = False) -> Key:
    """A key that is true or false."""
    return Key(Scope.BROKER, name, Kind.BOOLEAN, default, doc, dynamic=dynamic)


def choice(
    name: str, default: str, doc: str, choices: tuple[str, ...], *, dynamic: bool = False
) -> Key:
    """A key with one of a few values."""
    return Key(Scope.BROKER, name, Kind.STRING, default, doc, choices=choices, dynamic=dynamic)


def text(name: str, default: str | None, doc: str) -> Key:
    """A key with any text."""
    return Key(Scope.BROKER, name, Kind.STRING, default, doc)


def listing(name: str, default: tuple[str, ...], doc: str) -> Key:
    """A key with a list of texts."""
    return Key(Scope.BROKER, name, Kind.LIST, default, doc)
