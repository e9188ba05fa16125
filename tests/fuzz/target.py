"""What a fuzz target is: bytes in, and anything raised is a finding."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Raised(NamedTuple):
    """What a call raised, as far as two implementations should agree on it."""

    error: type[Exception]


def outcome(
    allowed: type[Exception] | tuple[type[Exception], ...],
    call: Callable[..., Any],
    *arguments: Any,
    **options: Any,
) -> Any:
    """What `call` returns, or which of the `allowed` errors it raises; others are findings."""
    try:
        return call(*arguments, **options)
    except allowed as error:
        return Raised(type(error))


@dataclass(frozen=True)
class Target:
    """One thing to be fuzzed.

    `check` takes any bytes; it returns for what is handled as documented and raises for what is
    not. `seeds` are valid and nearly valid inputs to start from; they are made, not stored.
    """

    name: str
    check: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    max_bytes: int = 4096


class Choices:
    """Reads small decisions off the front of the fuzzer's bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def number(self, size_bytes: int) -> int:
        """A signed big-endian number."""
        taken = self._data[self._at : self._at + size_bytes].ljust(size_bytes, b"\0")
        self._at += size_bytes
        return int.from_bytes(taken, "big", signed=True)

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def rest(self) -> bytes:
        taken = self._data[self._at :]
        self._at = len(self._data)
        return taken

    @property
    def is_used_up(self) -> bool:
        return self._at >= len(self._data)


def seeded(name: str) -> random.Random:
    """The same random numbers in every run, for building seeds."""
    return random.Random(name)
