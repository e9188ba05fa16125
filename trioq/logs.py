"""Structured log lines on stderr: readable on a terminal, JSON otherwise.

A line is an event, a short constant phrase, with named fields; structlog renders it. It is
imported with the first line that is written, because it (with the asyncio and rich that it
imports) costs 86 ms, nearly as much as Trio: a broker is ready without it, and imports it
then in a thread (`preload`).

    log = get_logger(__name__)
    log.info("segment rolled", partition="orders-0", base_offset=4096)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Level names, least severe first."""

Render = Callable[[str, str, Mapping[str, object]], str]
"""(level, event, fields) to the text of a line, without its end."""


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
        if LEVELS[level] >= _output.threshold:
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


def preload() -> None:
    """Import what the first line needs, in a thread, where a loop must not wait for it."""
    _output.render("debug", "", {})


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
    return _rendered(_json_processors(), level, event, fields)


def plain_line(level: str, event: str, fields: Mapping[str, object]) -> str:
    """One line for people; a traceback follows on lines of its own."""
    return _rendered(_console_processors(coloured=False), level, event, fields)


def coloured_line(level: str, event: str, fields: Mapping[str, object]) -> str:
    """`plain_line` with terminal colours."""
    return _rendered(_console_processors(coloured=True), level, event, fields)


def _rendered(
    processors: tuple[Processor, ...], level: str, event: str, fields: Mapping[str, object]
) -> str:
    line: Any = {"time": "", "level": level, "event": event}
    for name, value in fields.items():
        line[name if name not in line else f"{name}_"] = value
    for processor in processors:
        line = processor(None, level, line)
    return str(line)


@cache
def _json_processors() -> tuple[Processor, ...]:
    from structlog import processors  # noqa: PLC0415  see the module's docstring

    return (
        processors.TimeStamper(fmt="iso", utc=True, key="time"),
        processors.format_exc_info,
        processors.JSONRenderer(default=str),
    )


@cache
def _console_processors(*, coloured: bool) -> tuple[Processor, ...]:
    import structlog  # noqa: PLC0415  see the module's docstring

    return (
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False, key="time"),
        _one_line,
        structlog.dev.ConsoleRenderer(
            colors=coloured,
            timestamp_key="time",
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    )


def _one_line(_logger: object, _name: str, line: EventDict) -> EventDict:
    """Escape control characters, which clients may put into names, so that a line stays one."""
    return {
        _printable(name): value if name == "exc_info" else _printable(str(value))
        for name, value in line.items()
    }


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_output: Final = _Output()
