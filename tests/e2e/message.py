"""Messages as tests write them, and as any client reads them."""

from __future__ import annotations

import time
from typing import NamedTuple


class Message(NamedTuple):
    """One message to write."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None


class Received(NamedTuple):
    """One message as a client handed it out."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def received(messages: list[Message], first_offset: int = 0) -> list[Received]:
    """What a reader of `messages`, all of them with timestamps, has to hand out."""
    return [
        Received(offset, message.timestamp_ms or 0, message.key, message.value, message.headers)
        for offset, message in enumerate(messages, first_offset)
    ]


def sample(label: str, count: int, *, text_only: bool = False) -> list[Message]:
    """Messages with keys, headers and null values here and there, compressible and not."""
    now_ms = time.time_ns() // 1_000_000
    messages = []
    for number in range(count):
        value: bytes | None = f"{label} value {number} ".encode() * (1 + number % 7)
        key: bytes | None = f"{label}-{number % 5}".encode()
        headers: tuple[tuple[str, bytes | None], ...] = ()
        if number % 3 == 1:
            headers = (("origin", label.encode()), ("number", str(number).encode()))
        if number % 11 == 5:
            value = None
        if number % 13 == 6 and not text_only:
            key, value = None, bytes(range(256)) * 2
        messages.append(Message(value, key, headers, now_ms - count + number))
    return messages
