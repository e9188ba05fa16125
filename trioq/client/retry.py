"""The one retry policy: what is worth another attempt, and after which pause."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio

from trioq.errors import CallTimeout, ClientError, KafkaError, TrioqError

Result = TypeVar("Result")

_JITTER: Final = 0.2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double from `first_s` up to `max_s`, each shortened at random by up to 20 %."""

    first_s: float
    max_s: float

    def delay_s(self, attempts: int, draw: float) -> float:
        """The pause after `attempts` failed ones (from 1); `draw` is random from [0, 1)."""
        exponent = min(max(attempts, 1) - 1, 32)
        return min(self.max_s, self.first_s * float(2**exponent)) * (1.0 - _JITTER * draw)


def is_retriable(error: BaseException) -> bool:
    """Whether the same call may succeed later without anything being changed by the user."""
    return isinstance(error, (KafkaError, ClientError)) and error.retriable


async def retrying(
    attempt: Callable[[], Awaitable[Result]],
    *,
    what: str,
    timeout_s: float,
    backoff: Backoff,
    retriable: Callable[[BaseException], bool] = is_retriable,
    draw: Callable[[], float] = random.random,
) -> Result:
    """The result of `attempt()`, repeated while it raises something retriable.

    Raises what is not retriable at once. After `timeout_s` in all it raises the last failure
    itself, or CallTimeout naming `what` if the first attempt has not even ended.
    """
    failure: TrioqError | None = None
    attempts = 0
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                return await attempt()
            except TrioqError as error:
                if not retriable(error):
                    raise
                failure = error
            attempts += 1
            await anyio.sleep(backoff.delay_s(attempts, draw()))
    if failure is not None:
        raise failure
    raise CallTimeout(f"{what} took longer than {timeout_s:g} s")
