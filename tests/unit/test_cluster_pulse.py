"""The gate after a gap, and the watchdog's thread."""

from __future__ import annotations

import threading
import time

import pytest
import trio
import trio.testing

from tests.unit.server_harness import ECHO, request_bytes, serving
from trioq.clock import ManualClock
from trioq.cluster.pulse import EXIT_WEDGED, Pulse
from trioq.logs import captured
from trioq.metastore.session import Session, SessionState
from trioq.metastore.store import SessionLost

pytestmark = pytest.mark.trio
SESSION_S = 18.0


class Store:
    """As much of the metastore and of the feed's follower as the pulse uses."""

    def __init__(self, session_timeout_s: float = SESSION_S) -> None:
        self.session = Session()
        self.session_timeout_s = session_timeout_s
        self.answers = trio.Event()
        self.asked = 0
        self.losses = 0
        self.given_up = threading.Event()

    async def sync(self) -> None:
        self.asked += 1
        if self.losses:
            self.losses -= 1
            raise SessionLost("the ZooKeeper session has ended")
        await self.answers.wait()

    async def catch_up(self) -> None:
        await trio.lowlevel.checkpoint()

    def give_up(self) -> None:
        self.given_up.set()


def pulse_of(store: Store, clock: ManualClock, **options) -> Pulse:
    return Pulse(store, store, clock, **options)


async def test_safety_12_after_a_gap_nothing_is_served_until_the_metastore_answers():
    store, clock = Store(), ManualClock()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        assert not pulse.is_shut(clock.monotonic_s())
        clock.advance(SESSION_S / 3)
        assert not pulse.is_shut(clock.monotonic_s())
        clock.advance(SESSION_S / 3 + 0.1)
        assert pulse.is_shut(clock.monotonic_s())
        await trio.testing.wait_all_tasks_blocked()
        assert pulse.is_shut(clock.monotonic_s())
        assert store.asked == 1
        store.answers.set()
        await pulse.opened()
        assert not pulse.is_shut(clock.monotonic_s())
        nursery.cancel_scope.cancel()


async def test_after_a_gap_in_which_the_session_ended_the_next_one_is_asked():
    store, clock = Store(), ManualClock()
    store.losses = 1
    store.answers.set()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        clock.advance(SESSION_S)
        assert pulse.is_shut(clock.monotonic_s())
        store.session.move(SessionState.LOST)
        await trio.testing.wait_all_tasks_blocked()
        assert pulse.is_shut(clock.monotonic_s())
        assert store.asked == 0
        store.session.move(SessionState.CONNECTED)
        await pulse.opened()
        assert store.asked == 2
        nursery.cancel_scope.cancel()


async def test_safety_12_an_answer_from_before_another_gap_does_not_count():
    store, clock = Store(), ManualClock()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        clock.advance(SESSION_S)
        assert pulse.is_shut(clock.monotonic_s())
        await trio.testing.wait_all_tasks_blocked()
        assert store.asked == 1
        clock.advance(SESSION_S)
        store.answers.set()  # what was asked is answered now, but all has stood still again
        await pulse.opened()
        assert store.asked == 2
        assert not pulse.is_shut(clock.monotonic_s())
        nursery.cancel_scope.cancel()


async def test_a_metastore_out_of_reach_keeps_the_gate_shut_for_a_while_only(autojump_clock):
    store, clock = Store(), ManualClock()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        clock.advance(SESSION_S)
        assert pulse.is_shut(clock.monotonic_s())
        shut_s = trio.current_time()
        await pulse.opened()
        assert trio.current_time() - shut_s == pytest.approx(SESSION_S / 3)
        nursery.cancel_scope.cancel()


async def test_safety_12_the_reactor_serves_nothing_while_the_gate_is_shut():
    store, clock = Store(), ManualClock()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        async with serving(clock=clock, gate=pulse) as harness:
            client = await harness.connect()
            assert await client.call(ECHO, b"before") == b"before"
            clock.advance(SESSION_S)
            await client.send(request_bytes(ECHO, b"after", correlation_id=2))
            await harness.until(lambda: store.asked == 1)
            await trio.testing.wait_all_tasks_blocked()
            served = harness.reactor.counters.requests
            store.answers.set()
            assert await client.response() == (2, b"after")
            assert served == 1
        nursery.cancel_scope.cancel()


async def test_safety_12_after_a_brief_gap_groups_wait_until_the_image_is_that_of_now(
    autojump_clock,
):
    """Also past the time after which the gate opens, where the metastore is out of reach."""
    store, clock = Store(), ManualClock()
    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, clock)
        await nursery.start(pulse.run)
        assert not pulse.is_behind(clock.monotonic_s())
        clock.advance(SESSION_S / 6)
        assert pulse.is_behind(clock.monotonic_s())
        assert not pulse.is_shut(clock.monotonic_s())
        with captured() as lines:
            await trio.sleep(SESSION_S)
        assert lines == [], "nothing else waits, so nobody has to know"
        assert pulse.is_behind(clock.monotonic_s())
        store.answers.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not pulse.is_behind(clock.monotonic_s())
        assert pulse.gaps == 0
        nursery.cancel_scope.cancel()


class GateThatShuts:
    """Open when it is first asked, and then shut until the test opens it."""

    def __init__(self) -> None:
        self.answers = [False]
        self.is_open = trio.Event()

    def is_shut(self, now_s: float) -> bool:
        assert now_s >= 0
        return self.answers.pop() if self.answers else not self.is_open.is_set()

    async def opened(self) -> None:
        await self.is_open.wait()


async def test_safety_12_what_poll_tells_of_after_a_gap_is_not_served_either():
    """The process may have been stopped while it was in there."""
    gate = GateThatShuts()
    gate.is_open.set()
    async with serving(gate=gate) as harness:
        client = await harness.connect()
        assert await client.call(ECHO, b"before") == b"before"
        await trio.testing.wait_all_tasks_blocked()
        gate.is_open = trio.Event()
        gate.answers = [False]
        await client.send(request_bytes(ECHO, b"after", correlation_id=2))
        with trio.fail_after(30):
            while gate.answers:
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert harness.reactor.counters.requests == 1
        gate.is_open.set()
        assert await client.response() == (2, b"after")


async def test_safety_13_a_loop_that_hangs_gives_up_its_session_and_then_its_process():
    """The thread is real, and so is the loop that does not move: this very function."""
    store = Store(session_timeout_s=0.12)
    exited = threading.Event()
    codes: list[int] = []

    def exit_process(code: int) -> None:
        codes.append(code)
        exited.set()

    class RealClock(ManualClock):
        def monotonic_s(self) -> float:
            return time.monotonic()

    async with trio.open_nursery() as nursery:
        pulse = pulse_of(store, RealClock(), exit_process=exit_process)
        with captured() as lines:
            await nursery.start(pulse.run)
            assert exited.wait(30)
            assert store.given_up.wait(30)
        nursery.cancel_scope.cancel()
    assert codes == [EXIT_WEDGED]
    assert ["gives up its session" in str(line["event"]) for line in lines] == [True, False]
