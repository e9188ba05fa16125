"""A bound on bytes per second. Pure: no clock, times are arguments."""

from __future__ import annotations

BURST_S = 1.0
"""Unused rate is saved up for so long."""


class ThrottleState:
    """Who spent more than the rate allows has to wait until it has been made up for.

    As bytes are counted after they came, an answer may go over; the pause after it is the longer.
    """

    __slots__ = ("_left_bytes", "_noted_s", "rate_bytes")

    def __init__(self, rate_bytes: float, now_s: float) -> None:
        """`rate_bytes` per second, from `now_s` on."""
        self.rate_bytes = rate_bytes
        self._left_bytes = rate_bytes * BURST_S
        self._noted_s = now_s

    def _refill(self, now_s: float) -> None:
        most = self.rate_bytes * BURST_S
        gained = (now_s - self._noted_s) * self.rate_bytes
        self._left_bytes = min(most, self._left_bytes + gained)
        self._noted_s = max(now_s, self._noted_s)

    def use_rate(self, rate_bytes: float, now_s: float) -> None:
        """The rate was changed."""
        self._refill(now_s)
        self.rate_bytes = rate_bytes

    def spend(self, count: int, now_s: float) -> None:
        """`count` bytes came."""
        self._refill(now_s)
        self._left_bytes -= count

    def free_at_s(self, now_s: float) -> float:
        """From when on more may be asked for; `now_s` if at once."""
        self._refill(now_s)
        if self._left_bytes > 0:
            return now_s
        return now_s + max(0.001, -self._left_bytes / self.rate_bytes)
