"""What `trioq consume` prints for a record: its value, a template, or JSON."""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from trioq.record.fetched import Record

Render = Callable[[Sequence[Record[Any, Any]]], bytes]
"""Records to the bytes to print for them."""

_ESCAPES: Final = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\0": "\0", "\\\\": "\\"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def headers_text(record: Record[Any, Any]) -> bytes:
    """name=value, separated by commas."""
    return b",".join(name.encode() + b"=" + (value or b"") for name, value in record.headers)


_FIELDS: Final[dict[str, Callable[[Record[Any, Any]], bytes]]] = {
    "topic": lambda record: record.topic.encode(),
    "partition": lambda record: b"%d" % record.partition,
    "offset": lambda record: b"%d" % record.offset,
    "timestamp": lambda record: b"%d" % record.timestamp,
    "key": lambda record: record.raw_key or b"",
    "value": lambda record: record.raw_value or b"",
    "headers": headers_text,
}


def values(records: Sequence[Record[Any, Any]]) -> bytes:
    """The value of each on a line; null is an empty one."""
    lines = [record.raw_value or b"" for record in records]
    lines.append(b"")
    return b"\n".join(lines)


def values_with_headers(records: Sequence[Record[Any, Any]]) -> bytes:
    """Headers, a tab and the value of each on a line."""
    return b"".join(
        b"%b\t%b\n" % (headers_text(record), record.raw_value or b"") for record in records
    )


def template(text: str) -> Render:
    r"""A renderer for a text with {topic}, {partition}, {offset}, {timestamp} (ms), {key},
    {value}, {headers}, and \n, \t, \r, \0, \\; {{ and }} are braces.

    Raises ValueError naming what is wrong with the text.
    """
    parts: list[bytes | Callable[[Record[Any, Any]], bytes]] = []
    for literal, field, specification, conversion in string.Formatter().parse(_unescaped(text)):
        if literal:
            parts.append(literal.encode())
        if field is None:
            continue
        if field not in _FIELDS or specification or conversion:
            raise ValueError(
                f"{{{field}}} is none of " + ", ".join(f"{{{one}}}" for one in _FIELDS)
            )
        parts.append(_FIELDS[field])

    def render(records: Sequence[Record[Any, Any]]) -> bytes:
        return b"".join(
            part if isinstance(part, bytes) else part(record)
            for record in records
            for part in parts
        )

    return render


def _unescaped(text: str) -> str:
    return re.sub(r"\\[ntr0\\]", lambda match: _ESCAPES[match[0]], text)


def json_lines(records: Sequence[Record[Any, Any]]) -> bytes:
    """A JSON object for each on a line, as `trioq produce --json` reads it."""
    return "".join(
        json.dumps(as_dict(record), ensure_ascii=False) + "\n" for record in records
    ).encode()


def as_dict(record: Record[Any, Any]) -> dict[str, object]:
    """A record as JSON has it: bytes that are no UTF-8 are in a field `..._base64`."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
        **_text_or_base64("key", record.raw_key),
        **_text_or_base64("value", record.raw_value),
        "headers": [
            {"name": name, **_text_or_base64("value", value)} for name, value in record.headers
        ],
    }


def _text_or_base64(name: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def for_terminal(render: Render) -> Render:
    """The same with control characters shown as escapes: records must not steer a terminal."""

    def safe(records: Sequence[Record[Any, Any]]) -> bytes:
        text = render(records).decode(errors="backslashreplace")
        return _CONTROL.sub(_escape, text).encode()

    return safe


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
