"""What `trioq produce` reads: lines, as text with an optional key or as JSON, become records."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from trioq.errors import TrioqError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024

Headers = tuple[tuple[str, bytes | None], ...]

_FIELDS: Final = frozenset(
    ("key", "key_base64", "value", "value_base64", "headers", "partition", "timestamp_ms")
)
_IGNORED: Final = frozenset(("topic", "offset"))
"""Where a record came from, in the output of `trioq consume --json`."""


class InputError(TrioqError):
    """A line is no record; the message says which and why."""


class _NotARecordError(ValueError):
    """A line is JSON, but not of a record."""


class InputRecord(NamedTuple):
    """A record to send; None where the line says nothing about it."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None


class LineSplitter:
    """Cuts chunks into lines, without their ends."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`; raises InputError for one without an end."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            if self._rest:
                lines[0] = b"".join((*self._rest, lines[0]))
            self._rest, self._rest_bytes = [], 0
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
            if self._rest_bytes > MAX_LINE_BYTES:
                raise InputError(
                    f"a line is longer than {MAX_LINE_BYTES} bytes: is the input text?"
                )
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if it has no end."""
        lines = [b"".join(self._rest)] if self._rest else []
        self._rest, self._rest_bytes = [], 0
        return lines


class TextLines:
    """Lines of text: a value, or a key, a separator and a value.

    Args:
        key_separator: what stands between key and value; None: there are no keys.
        null: a value (or key) of just this text is null; None: there are no nulls.

    """

    def __init__(self, *, key_separator: bytes | None = None, null: bytes | None = None) -> None:
        self._separator = key_separator
        self._null = null
        self._number = 0

    def columns(
        self, lines: Sequence[bytes]
    ) -> tuple[Sequence[bytes | None] | None, Sequence[bytes | None]]:
        """(keys or None, values) of the lines; raises InputError naming the number of the line."""
        keys: Sequence[bytes | None] | None = None
        values: Sequence[bytes | None] = lines
        separator = self._separator
        if separator is not None:
            parts = [line.partition(separator) for line in lines]
            for number, (_, found, _) in enumerate(parts, self._number + 1):
                if not found:
                    raise InputError(
                        f"line {number} has no key separator {separator.decode(errors='replace')!r}"
                        ": give another with --key-separator, or none for records without keys"
                    )
            keys = [key for key, _, _ in parts]
            values = [value for _, _, value in parts]
        self._number += len(lines)
        if self._null is not None:
            values = [None if value == self._null else value for value in values]
            if keys is not None:
                keys = [None if key == self._null else key for key in keys]
        return keys, values


class JsonLines:
    """Lines that are JSON objects, as `trioq consume --json` prints them."""

    def __init__(self) -> None:
        self._number = 0

    def records(self, lines: Sequence[bytes]) -> list[InputRecord]:
        """A record for each line that is not blank; raises InputError naming the line's number."""
        records = []
        for line in lines:
            self._number += 1
            if line.strip():
                records.append(self._record(line))
        return records

    def _record(self, line: bytes) -> InputRecord:
        try:
            return _record_from(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {self._number} is no record: {error}") from error


def _record_from(fields: Any) -> InputRecord:
    """Raises ValueError."""
    if not isinstance(fields, dict):
        raise _NotARecordError('it is no JSON object like {"key": "42", "value": "hello"}')
    unknown = sorted(fields.keys() - _FIELDS - _IGNORED)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; allowed are {', '.join(sorted(_FIELDS))}")
    return InputRecord(
        _bytes(fields, "key"),
        _bytes(fields, "value"),
        _headers(fields.get("headers")),
        _integer(fields, "partition", 2**31 - 1),
        _integer(fields, "timestamp_ms", 2**63 - 1),
    )


def _bytes(fields: Mapping[str, Any], name: str) -> bytes | None:
    encoded = fields.get(f"{name}_base64")
    value = fields.get(name)
    if encoded is not None:
        if value is not None or not isinstance(encoded, str):
            raise ValueError(f"{name}_base64 is a string, and stands in place of {name}")
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}_base64: {error}") from error
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(given: Any) -> Headers:
    if given is None:
        return ()
    if isinstance(given, dict):
        given = [{"name": name, "value": value} for name, value in given.items()]
    if not isinstance(given, list):
        raise _NotARecordError("headers are an object, or a list of objects with name and value")
    headers = []
    for header in given:
        if not isinstance(header, dict) or not isinstance(header.get("name"), str):
            raise _NotARecordError("a header is an object with a name and a value")
        headers.append((header["name"], _bytes(header, "value")))
    return tuple(headers)


def _integer(fields: Mapping[str, Any], name: str, maximum: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise ValueError(f"{name} is a whole number from 0")
    return value


def parse_headers(texts: Sequence[str]) -> Headers:
    """The headers of NAME=VALUE arguments; raises ValueError naming one that is none."""
    headers = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        headers.append((name, value.encode()))
    return tuple(headers)
