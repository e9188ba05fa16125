"""What a wire field can be: the vocabulary in which messages are declared.

Declarations only; decoder.py and encoder.py turn them into code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

UNBOUNDED: Final = 1 << 62
"""More elements than any message has."""

NEVER: Final = 1 << 15
"""A version that no message reaches; versions are int16 on the wire."""


class Primitive(NamedTuple):
    """A wire type without structure; `format` is its struct code, empty when its length varies."""

    name: str
    format: str = ""
    size_bytes: int = 0


BOOL: Final = Primitive("bool", "?", 1)
INT8: Final = Primitive("int8", "b", 1)
INT16: Final = Primitive("int16", "h", 2)
INT32: Final = Primitive("int32", "i", 4)
INT64: Final = Primitive("int64", "q", 8)
UUID: Final = Primitive("uuid", "16s", 16)
STRING: Final = Primitive("string")
BYTES: Final = Primitive("bytes")
RECORDS: Final = Primitive("records")

UNKNOWN_OPERATIONS: Final = -(1 << 31)
"""The value of authorized operations that were not asked for."""

LENGTH_BYTES: Final = {STRING: 2, BYTES: 4, RECORDS: 4}
"""Bytes of a length prefix; in flexible versions it is a uvarint of length + 1 instead."""


class ArrayOf(NamedTuple):
    """An array of primitives or of structs (named by their schema)."""

    element: Primitive | StructSchema


@dataclass(frozen=True, slots=True)
class StructSchema:
    """The fields of one struct or message class, in wire order."""

    cls: type
    name: str
    fields: tuple[Field, ...]

    def min_bytes(self, version: int, *, flexible: bool) -> int:
        """The least number of bytes that an instance takes in `version`; at least 1."""
        total = sum(
            min_bytes(field, version, flexible=flexible)
            for field in self.fields
            if field.in_version(version) and field.tag is None
        )
        return max(total + (1 if flexible else 0), 1)


Kind = Primitive | ArrayOf | StructSchema


class Field(NamedTuple):
    """One field as declared with `wire()`; versions are inclusive."""

    name: str
    kind: Kind
    default: object
    factory: Callable[[], object] | None
    since: int
    until: int
    nullable_since: int
    tag: int | None
    ignorable: bool

    def in_version(self, version: int) -> bool:
        return self.since <= version <= self.until

    def nullable_in(self, version: int) -> bool:
        return version >= self.nullable_since


def element_field(kind: Kind) -> Field:
    """An array's element seen as a field: in every version, never null."""
    return Field(
        name="",
        kind=kind,
        default=None,
        factory=None,
        since=0,
        until=NEVER,
        nullable_since=NEVER,
        tag=None,
        ignorable=False,
    )


def min_bytes(field: Field, version: int, *, flexible: bool) -> int:
    """The least number of bytes that an untagged field takes in `version`."""
    kind = field.kind
    if isinstance(kind, StructSchema):
        if field.nullable_in(version):
            return 1
        return kind.min_bytes(version, flexible=flexible)
    if isinstance(kind, ArrayOf):
        return 1 if flexible else 4
    if kind.format:
        return kind.size_bytes
    return 1 if flexible else LENGTH_BYTES[kind]
