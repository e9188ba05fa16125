"""The heap of deadlines."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trioq.clock import ManualClock, SystemClock
from trioq.server.deadlines import Deadlines


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60),
    st.lists(st.floats(0, 100), max_size=6).map(sorted),
)
def test_each_deadline_is_called_once_in_order_unless_cancelled(
    entries: list[tuple[float, bool]], looks: list[float]
) -> None:
    deadlines = Deadlines(ManualClock())
    called: list[int] = []
    handles = [
        deadlines.add(when_s, lambda number=number: called.append(number))  # type: ignore[misc]
        for number, (when_s, _) in enumerate(entries)
    ]
    for handle, (_, cancelled) in zip(handles, entries, strict=True):
        if cancelled:
            handle.cancel()
            handle.cancel()
    kept = [number for number, (_, cancelled) in enumerate(entries) if not cancelled]
    assert len(deadlines) == len(kept)
    for now_s in [*looks, 100.0]:
        next_s = deadlines.call_due(now_s)
        left = [entries[n][0] for n in kept if entries[n][0] > now_s]
        assert next_s == min(left, default=math.inf)
        assert set(called) == {n for n in kept if entries[n][0] <= now_s}
    assert called == sorted(kept, key=lambda n: (entries[n][0], n))
    for handle in handles:
        handle.cancel()
    assert len(deadlines) == 0


def test_cancelled_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines(ManualClock())
    for number in range(50_000):
        deadlines.add(1000.0 + number, lambda: None).cancel()
    assert len(deadlines._heap) < 5_000


def test_a_callback_may_add_and_cancel() -> None:
    deadlines = Deadlines(ManualClock())
    called = []
    other = deadlines.add(2.0, lambda: called.append("other"))

    def first() -> None:
        other.cancel()
        deadlines.add(1.5, lambda: called.append("added"))

    deadlines.add(1.0, first)
    assert deadlines.call_due(3.0) == math.inf
    assert called == ["added"]


@pytest.mark.trio
async def test_the_task_calls_what_is_due_and_wakes_for_an_earlier_one() -> None:
    clock = SystemClock()
    deadlines = Deadlines(clock)
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        deadlines.add(clock.monotonic_s() + 3600, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        deadlines.add(clock.monotonic_s() + 0.001, done.set)
        with trio.fail_after(60):
            await done.wait()
        nursery.cancel_scope.cancel()
