"""Where reading starts: what --from means, and the offset that it comes to."""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from trioq.errors import ConfigError

_WHAT = (
    "beginning, end, an offset (42), a number of last records (-10), a time as ISO 8601 "
    "(2026-01-31T12:00, local unless it has a zone) or in milliseconds since 1970 (@1769860800000)"
)


class StartKind(Enum):
    """What the number of a StartPosition counts."""

    BEGINNING = "beginning"
    END = "end"
    OFFSET = "offset"
    LAST = "last"
    TIMESTAMP = "timestamp"


class StartPosition(NamedTuple):
    """Where to start in each partition. TIMESTAMP: in ms since the Unix epoch."""

    kind: StartKind
    number: int = 0

    def offset(self, beginning: int, end: int, at_timestamp: int | None = None) -> int:
        """The offset in a partition with records from `beginning` to before `end`.

        The nearest there is. `at_timestamp` is the first at or after the time, None: there is none.
        """
        if self.kind is StartKind.BEGINNING:
            return beginning
        if self.kind is StartKind.END:
            return end
        if self.kind is StartKind.TIMESTAMP:
            return end if at_timestamp is None else at_timestamp
        wanted = end - self.number if self.kind is StartKind.LAST else self.number
        return min(max(wanted, beginning), end)


def parse_start(text: str, *, flag: str) -> StartPosition:
    """What a user gave with `flag`; raises ConfigError that lists what is allowed."""
    if text in {"beginning", "end"}:
        return StartPosition(StartKind(text))
    if re.fullmatch(r"[0-9]{1,18}", text):
        return StartPosition(StartKind.OFFSET, int(text))
    if re.fullmatch(r"-[0-9]{1,18}", text):
        return StartPosition(StartKind.LAST, -int(text))
    if re.fullmatch(r"@[0-9]{1,15}", text):
        return StartPosition(StartKind.TIMESTAMP, int(text[1:]))
    try:
        moment = datetime.fromisoformat(text)
        milliseconds = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        milliseconds = -1
    if milliseconds < 0:
        raise ConfigError(f"{flag} {text} is not valid: allowed is {_WHAT}")
    return StartPosition(StartKind.TIMESTAMP, milliseconds)
