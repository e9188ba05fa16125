"""How long an administrative request may take."""

from __future__ import annotations

from typing import Final

LEAST_TIMEOUT_MS: Final = 1_000


def timeout_s(timeout_ms: int) -> float:
    """Seconds for the `timeout_ms` of a request.

    0 or less means "begin and do not wait" in Kafka. Here a change takes milliseconds, so
    such a client waits for it too, but at most for a second.
    """
    return max(timeout_ms, LEAST_TIMEOUT_MS) / 1000
