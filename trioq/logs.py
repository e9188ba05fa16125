"""Structured log lines on stderr: readable on a terminal, JSON otherwise.

A line is an event, a short constant phrase, with named fields. The interface is the small
common part of structlog's; structlog itself costs as much start-up time as half of Trio.

    log = get_logger(__name__)
    log.info("segment rolled", partition="orders-0", base_offset=4096)
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Level names, least severe first."""

Render = Callable[[str, str, Mapping[str, object]], str]
"""(level, event, fields) to the text of a line, without its end."""

_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"


class _Output:
    """Where lines go; one per process, shared by every logger."""

    __slots__ = ("captured", "dropped", "render", "stream", "threshold")

    def __init__(self) -> None:
        self.threshold = LEVELS["info"]
        self.render: Render = json_line
        self.stream: TextIO | None = None  # None: whatever sys.stderr is at the time
        self.captured: list[dict[str, object]] | None = None
        self.dropped = 0

    def write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if self.captured is not None:
            self.captured.append({**fields, "event": event, "log_level": level})
            return
        line = self.render(level, event, fields) + "\n"
        stream = self.stream or sys.stderr
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):  # a reader that went away must not take the broker along
            self.dropped += 1


class Logger:
    """Writes log lines with the fields bound to it; callable from any thread, never raises.

    The field `exc_info` is an exception, or True for the one being handled: its traceback is
    logged.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def bind(self, **fields: object) -> Logger:
        """A logger whose lines carry `fields` too."""
        return Logger({**self._fields, **fields})

    def debug(self, event: str, /, **fields: object) -> None:
        """For whoever works on trioq."""
        self._log("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Something an operator likes to know."""
        self._log("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Something an operator should look at some day."""
        self._log("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Something that does not work."""
        self._log("error", event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._log("error", event, {"exc_info": True, **fields})

    def _log(self, level: str, event: str, fields: dict[str, object]) -> None:
        if LEVELS[level] < _output.threshold:
            return
        error = fields.pop("exc_info", None)
        if isinstance(error, BaseException):
            fields["traceback"] = "".join(traceback.format_exception(error)).rstrip()
        elif error:
            fields["traceback"] = traceback.format_exc().rstrip()
        _output.write(level, event, {**self._fields, **fields})


def get_logger(name: str) -> Logger:
    """The logger of a module, called with its ``__name__``."""
    return Logger({"logger": name})


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set the least severe level that is written, and choose the form by what stderr is."""
    _output.threshold = LEVELS[level]
    _output.stream = stream
    target = stream or sys.stderr
    if not target.isatty():
        _output.render = json_line
    elif os.environ.get("NO_COLOR"):
        _output.render = plain_line
    else:
        _output.render = coloured_line


@contextmanager
def captured() -> Iterator[list[dict[str, object]]]:
    """For tests: collect lines of every level as dicts instead of writing them."""
    before = _output.captured, _output.threshold
    lines: list[dict[str, object]] = []
    _output.captured, _output.threshold = lines, 0
    try:
        yield lines
    finally:
        _output.captured, _output.threshold = before


def json_line(level: str, event: str, fields: Mapping[str, object]) -> str:
    """One JSON object: time (UTC), level, event, then the fields."""
    import json  # noqa: PLC0415  not needed on a terminal

    record: dict[str, object] = {"time": _utc_now(), "level": level, "event": event}
    for name, value in fields.items():
        record[name if name not in record else f"{name}_"] = _plain_value(value)
    return json.dumps(record, default=str)


def plain_line(level: str, event: str, fields: Mapping[str, object]) -> str:
    """One line for people; a traceback follows on lines of its own."""
    return _readable(level, event, fields, coloured=False)


def coloured_line(level: str, event: str, fields: Mapping[str, object]) -> str:
    """`plain_line` with terminal colours."""
    return _readable(level, event, fields, coloured=True)


def _readable(level: str, event: str, fields: Mapping[str, object], *, coloured: bool) -> str:
    colour, dim, reset = (_COLOURS[level], _DIM, _RESET) if coloured else ("", "", "")
    shown = " ".join(
        f"{dim}{name}={reset}{_readable_value(value)}"
        for name, value in fields.items()
        if name not in ("logger", "traceback")
    )
    now = time.time_ns() // 1_000_000
    clock = f"{time.strftime('%H:%M:%S', time.localtime(now // 1000))}.{now % 1000:03}"
    line = f"{dim}{clock}{reset} {colour}{level:<7}{reset} {_printable(event)} {shown}".rstrip()
    if "traceback" in fields:
        line += f"\n{fields['traceback']}"
    return line


def _readable_value(value: object) -> str:
    text = _printable(str(value))
    return text if text and not any(c in text for c in ' ="') else repr(text)


def _printable(text: str) -> str:
    """`text` with every control character escaped, so that one event stays one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _plain_value(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _utc_now() -> str:
    now = time.time_ns() // 1_000_000
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1000))}.{now % 1000:03}Z"


_output: Final = _Output()
