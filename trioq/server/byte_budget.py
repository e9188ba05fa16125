"""So many bytes in a second. Pure: the time is an argument."""

from __future__ import annotations


class ByteBudget:
    """What may be sent at a rate, at most a second's worth at once.

    A part may be larger than what is left: the debt is waited for afterwards.
    """

    __slots__ = ("_filled_s", "_left")

    def __init__(self) -> None:
        self._filled_s = 0.0
        self._left = 0.0

    def has_some(self, bytes_per_s: float, now_s: float) -> bool:
        """Whether anything may be sent now; the rate may be another each time."""
        earned = (now_s - self._filled_s) * bytes_per_s
        self._left = min(bytes_per_s, self._left + max(0.0, earned))
        self._filled_s = now_s
        return self._left > 0

    def spend(self, size_bytes: int) -> None:
        """So much was sent."""
        self._left -= size_bytes
