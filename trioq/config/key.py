"""What a configuration key is: its type, its limits, and how its values are read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from trioq.errors import ConfigError

Value = bool | int | float | str | tuple[str, ...] | None
"""A parsed value; None where a key that may be unset is."""

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DOUBLE = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,3})?")


class Kind(IntEnum):
    """Type of a value; the numbers are those of DescribeConfigs."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


class Source(IntEnum):
    """Where a value comes from; the numbers are those of DescribeConfigs."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


class Scope(IntEnum):
    """What a key configures; the numbers are Kafka's resource types."""

    TOPIC = 2
    BROKER = 4


class Fallback(NamedTuple):
    """The broker key that gives a topic key its value while the topic does not set it."""

    broker_key: str
    factor: int = 1
    """What one unit of the broker key is in units of the topic key."""


class Key(NamedTuple):
    """One row of the table of keys.

    `minimum` and `maximum` are inclusive. `choices` limits a STRING, or each element of a
    LIST. `fallbacks` are tried in order and the first that is set gives a topic key its
    default. `dynamic` keys can be changed while the broker runs.
    """

    scope: Scope
    name: str
    kind: Kind
    default: Value
    doc: str
    unit: str = ""
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    sensitive: bool = False
    fallbacks: tuple[Fallback, ...] = ()
    note: str = ""
    """What an error about this key's value says besides what is allowed."""

    @property
    def attribute(self) -> str:
        """Name of the attribute of BrokerConfig or TopicConfig that holds the value."""
        return self.name.replace(".", "_")

    @property
    def environment_name(self) -> str:
        """Name of the environment variable that sets this broker key."""
        return "TRIOQ_" + self.name.upper().replace(".", "_")

    @property
    def nullable(self) -> bool:
        """Whether the key can be unset."""
        return self.default is None

    @property
    def allowed(self) -> str:
        """What a value may be, as the end of the sentence "allowed is ..."."""
        if self.kind is Kind.BOOLEAN:
            return " or ".join(self.choices) if self.choices else "true or false"
        if self.choices:
            names = ", ".join(self.choices)
            if len(self.choices) == 1:
                return f"only {names}"
            return f"a list of {names}" if self.kind is Kind.LIST else f"one of {names}"
        if self.kind in (Kind.INT, Kind.LONG, Kind.DOUBLE):
            what = "a number" if self.kind is Kind.DOUBLE else "an integer"
            unit = f" ({self.unit})" if self.unit else ""
            return f"{what}{unit} from {self.minimum} to {self.maximum}"
        return "a comma-separated list" if self.kind is Kind.LIST else "a string"

    def parse(self, text: str) -> Value:
        """The value that `text` stands for; raises ConfigError."""
        text = text.strip()
        if self.kind is Kind.BOOLEAN:
            return self._parse_boolean(text)
        if self.kind is Kind.STRING:
            return self._parse_string(text)
        if self.kind is Kind.LIST:
            return self._parse_list(text)
        return self._parse_number(text)

    def write(self, value: Value) -> str | None:
        """The text that `parse` reads back as `value`; None for an unset key."""
        if value is None:
            return None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple):
            return ",".join(value)
        return str(value)

    def refuse(self, text: str) -> ConfigError:
        """The error that says what is wrong with `text` as a value of this key."""
        note = f"; {self.note}" if self.note else ""
        return ConfigError(
            f"{self.name}={_shortened(text)} is not valid: allowed is {self.allowed}{note}"
        )

    def _parse_boolean(self, text: str) -> bool:
        lowered = text.lower()
        if lowered not in (self.choices or ("true", "false")):
            raise self.refuse(text)
        return lowered == "true"

    def _parse_string(self, text: str) -> str | None:
        if not text and self.nullable:
            return None
        if not text or (self.choices and text not in self.choices):
            raise self.refuse(text)
        return text

    def _parse_list(self, text: str) -> tuple[str, ...]:
        elements = tuple(element.strip() for element in text.split(",")) if text else ()
        if not elements and self.default:
            raise self.refuse(text)
        if any(not element for element in elements):
            raise self.refuse(text)
        if self.choices and any(element not in self.choices for element in elements):
            raise self.refuse(text)
        return elements

    def _parse_number(self, text: str) -> int | float:
        pattern = _DOUBLE if self.kind is Kind.DOUBLE else _INTEGER
        if not pattern.fullmatch(text):
            raise self.refuse(text)
        number = float(text) if self.kind is Kind.DOUBLE else int(text)
        if self.minimum is not None and number < self.minimum:
            raise self.refuse(text)
        if self.maximum is not None and number > self.maximum:
            raise self.refuse(text)
        return number


_SECURITY_PREFIXES: Final = (
    "ssl.",
    "sasl.",
    "security.",
    "listener.",
    "authorizer.",
    "super.users",
)


def unknown_key(name: str, scope: Scope, known: Iterable[str]) -> ConfigError:
    """The error for a key that the table does not have, with the nearest one that it has."""
    import difflib  # noqa: PLC0415  only an error needs it

    kind = "topic" if scope is Scope.TOPIC else "broker"
    message = f"{_shortened(name)} is not a {kind} configuration key"
    if name.startswith(_SECURITY_PREFIXES):
        return ConfigError(
            f"{message}: this version of trioq listens without encryption, authentication and "
            "authorization; let a firewall or a private network keep others away"
        )
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if nearest:
        message += f"; did you mean {nearest[0]}?"
    return ConfigError(message)


def _shortened(text: str) -> str:
    """`text` as an error message can show it: printable and at most about 100 characters."""
    shown = text if len(text) <= 100 else text[:97] + "..."
    return shown if shown.isprintable() else repr(shown)
