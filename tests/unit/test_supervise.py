"""The restart policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trioq.clock import ManualClock
from trioq.errors import BrokerBug, StartupError
from trioq.supervise import RestartPolicy, supervise

POLICY = RestartPolicy(first_delay_s=1, max_delay_s=8, jitter=0, max_restarts=3, window_s=100)


class Service:
    """Fails as often as it is told to, then returns."""

    def __init__(self, errors: list[BaseException]) -> None:
        self.errors = errors
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)


async def _run(service: Callable[..., object], slept: list[float]) -> None:
    clock = ManualClock()

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        clock.advance(delay_s)
        await trio.lowlevel.checkpoint()

    await supervise("service", service, policy=POLICY, clock=clock, sleep=sleep)  # type: ignore[arg-type]


@pytest.mark.trio
async def test_a_service_that_returns_is_done() -> None:
    service, slept = Service([]), []
    await _run(service, slept)
    assert service.starts == 1
    assert slept == []


@pytest.mark.trio
@pytest.mark.parametrize("error", [BrokerBug("a log"), StartupError("it is not to run")])
async def test_some_errors_are_not_tried_again(error: Exception) -> None:
    group = ExceptionGroup("nursery", [OSError(), ExceptionGroup("inner", [error])])
    for raised in (error, group):
        service, slept = Service([raised]), []
        with pytest.raises((type(error), ExceptionGroup)):
            await _run(service, slept)
        assert slept == []


@pytest.mark.trio
async def test_failures_restart_with_growing_pauses() -> None:
    service, slept = Service([OSError(), OSError(), OSError()]), []
    await _run(service, slept)
    assert service.starts == 4
    assert slept == [1, 2, 4]


@pytest.mark.trio
async def test_too_many_failures_escalate_with_the_last_error() -> None:
    last = OSError("the fourth")
    service, slept = Service([OSError(), OSError(), OSError(), last]), []
    with pytest.raises(OSError, match="the fourth"):
        await _run(service, slept)
    assert service.starts == 4


@pytest.mark.trio
@pytest.mark.parametrize(
    "error", [BrokerBug("x"), ExceptionGroup("group", [OSError(), BrokerBug("x")])]
)
async def test_a_broker_bug_is_never_restarted(error: Exception) -> None:
    service, slept = Service([error]), []
    with pytest.raises(type(error)):
        await _run(service, slept)
    assert service.starts == 1
    assert slept == []


@pytest.mark.trio
async def test_cancellation_passes_through() -> None:
    service = Service([])
    with trio.CancelScope() as scope:
        scope.cancel()
        await _run(service, [])
    assert scope.cancelled_caught


@pytest.mark.trio
async def test_old_failures_are_forgiven() -> None:
    clock = ManualClock()
    service = Service([OSError() for _ in range(20)])

    async def sleep(_delay_s: float) -> None:
        clock.advance(60)
        await trio.lowlevel.checkpoint()

    await supervise("service", service, policy=POLICY, clock=clock, sleep=sleep)
    assert service.starts == 21


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_stay_within_their_bounds(recent: int, draw: float) -> None:
    policy = RestartPolicy()
    delay_s = policy.delay_s(recent, draw)
    assert policy.first_delay_s * (1 - policy.jitter) <= delay_s <= policy.max_delay_s
