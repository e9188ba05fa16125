"""When so many brokers are missing that waiting is wiser than acting: pure (SAFETY rule 17).

If more than half of the brokers that hold replicas are gone at once, the fault is more likely the
metastore's or the network's than theirs, and they are soon back. Acting at once would take them
out of every ISR, to be brought back one by one.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class StormState:
    """Whether the controller may act on missing brokers; `now_s` is of a monotonic clock."""

    __slots__ = ("_since_s", "wait_s")

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._since_s: float | None = None

    def acts_at_s(self, known: AbstractSet[int], live: AbstractSet[int], now_s: float) -> float:
        """From when on to act: `now_s` or earlier is at once.

        The wait of a session begins when more than half of `known` were first seen missing, and
        is forgotten when half of them are there.
        """
        if 2 * len(known - live) <= len(known):
            self._since_s = None
            return now_s
        if self._since_s is None:
            self._since_s = now_s
        return self._since_s + self.wait_s
