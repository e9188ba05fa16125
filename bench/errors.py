"""What goes wrong in a measurement."""

from __future__ import annotations


class BenchError(RuntimeError):
    """A measurement cannot be made or trusted; the message is for the one who runs the bench."""
