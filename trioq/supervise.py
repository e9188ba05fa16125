"""The one restart policy: back off with jitter, count restarts in a window, then escalate."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from trioq import logs
from trioq.clock import Clock, SystemClock
from trioq.errors import BrokerBug, StartupError

_log = logs.get_logger("trioq.supervise")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often, and after which pauses, a failed service is started again."""

    first_delay_s: float = 0.1
    factor: float = 2.0
    max_delay_s: float = 10.0
    jitter: float = 0.2
    """Share of the delay that is drawn at random, so that many do not restart together."""

    max_restarts: int = 5
    window_s: float = 60.0
    """More than `max_restarts` failures within this time escalate."""

    def delay_s(self, recent_restarts: int, draw: float) -> float:
        """The pause before a restart; `recent_restarts` came before it in the window.

        `draw` is a random number from [0, 1).
        """
        exponent = min(recent_restarts, 64)
        delay_s = min(self.max_delay_s, self.first_delay_s * self.factor**exponent)
        return delay_s * (1.0 - self.jitter * draw)


DEFAULT_POLICY = RestartPolicy()


async def supervise(
    name: str,
    service: Callable[[], Awaitable[object]],
    *,
    policy: RestartPolicy = DEFAULT_POLICY,
    clock: Clock | None = None,
    sleep: Callable[[float], Awaitable[None]] = trio.sleep,
    draw: Callable[[], float] = random.random,
) -> None:
    """Run `service()` until it returns; start it again when it fails.

    Args: `name` is for the log, such as "fetcher[broker=2,id=0]". `clock`, `sleep` and
    `draw` are seams for tests.

    Raises the service's own exception when it failed more than `policy.max_restarts`
    times within `policy.window_s`, and at once when it is, or contains, a BrokerBug: data
    is owned behind it and nobody knows in which state. So does a StartupError: the broker is
    not to run. Cancellation passes through.
    """
    clock = clock or SystemClock()
    failures: deque[float] = deque()
    while True:
        try:
            await service()
        except Exception as error:
            if _must_pass(error):
                raise
            now_s = clock.monotonic_s()
            while failures and now_s - failures[0] > policy.window_s:
                failures.popleft()
            if len(failures) >= policy.max_restarts:
                _log.exception("service failed too often", service=name, failures=len(failures) + 1)
                raise
            delay_s = policy.delay_s(len(failures), draw())
            failures.append(now_s)
            _log.exception("service failed, restarting", service=name, delay_s=round(delay_s, 3))
        else:
            return
        await sleep(delay_s)


async def start_supervised(
    name: str, service: Callable[..., Awaitable[object]], *, task_status: trio.TaskStatus[None]
) -> None:
    """`supervise` a service that takes `task_status`; started when it has first reported so."""
    is_started = False

    class _FirstStart:
        """Passes on the first of the service's starts only."""

        def started(self, _value: object = None) -> None:
            nonlocal is_started
            if not is_started:
                is_started = True
                task_status.started()

    await supervise(name, partial(service, task_status=_FirstStart()))


def _must_pass(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_must_pass, error.exceptions))
    return isinstance(error, BrokerBug | StartupError)


def is_broker_bug(error: BaseException) -> bool:
    """True for a BrokerBug, alone or anywhere inside an exception group."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_broker_bug(inner) for inner in error.exceptions)
    return isinstance(error, BrokerBug)
