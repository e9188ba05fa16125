"""Requests and responses over real sockets: order, pipelining, waits, barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.unit.server_harness import BARRIER, ECHO, KEPT, TASK, request_bytes, serving
from trioq.net.poller import Poller, open_poller
from trioq.server import reactor
from trioq.server.connection import Connection

pytestmark = pytest.mark.trio


async def test_one_request_gets_one_response() -> None:
    async with serving() as harness, await harness.connect() as client:
        assert await client.call(ECHO, b"hello", correlation_id=7) == b"hello"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(
            b"".join(
                request_bytes(ECHO, b"%d" % number, correlation_id=number) for number in range(500)
            )
        )
        for number in range(500):
            assert await client.response() == (number, b"%d" % number)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 17])
async def test_requests_may_arrive_in_any_pieces(size: int) -> None:
    data = b"".join(request_bytes(ECHO, b"x" * n, correlation_id=n) for n in (0, 1, 40, 0))
    async with serving() as harness, await harness.connect() as client:
        for start in range(0, len(data), size):
            await client.send(data[start : start + size])
            await trio.lowlevel.checkpoint()
        for n in (0, 1, 40, 0):
            assert await client.response() == (n, b"x" * n)


@pytest.mark.parametrize("size", [32 * 1024 - 30, 32 * 1024, 70_000, 1_000_000, 5_000_001])
async def test_large_requests_are_received_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"e" * (size % 256)
    data = request_bytes(ECHO, body) + request_bytes(ECHO, b"after")
    async with (
        serving() as harness,
        await harness.connect() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send, data)
        assert (await client.response())[1] == body
        assert (await client.response())[1] == b"after"


async def test_responses_keep_the_order_of_requests_while_one_waits() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(
            request_bytes(KEPT, b"first", correlation_id=1)
            + request_bytes(ECHO, b"second", correlation_id=2)
        )
        await harness.until(lambda: len(harness.handlers.seen) == 2)
        harness.handlers.kept[0][1].complete_raw([b"late"])
        assert await client.response() == (1, b"late")
        assert await client.response() == (2, b"second")


async def test_a_barrier_waits_for_those_before_and_holds_those_after() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(
            request_bytes(KEPT, b"1", correlation_id=1)
            + request_bytes(TASK, b"2", correlation_id=2)
            + request_bytes(ECHO, b"3", correlation_id=3)
            + request_bytes(BARRIER, b"4", correlation_id=4)
        )
        handlers = harness.handlers
        await harness.until(lambda: bool(handlers.kept))
        await trio.testing.wait_all_tasks_blocked()
        assert handlers.seen == [b"1"]
        handlers.kept[0][1].complete_raw([b"1"])
        await harness.until(lambda: len(handlers.seen) == 2)
        await trio.testing.wait_all_tasks_blocked()
        assert handlers.seen == [b"1", b"2"]
        handlers.gate.set()
        for number in range(1, 5):
            assert await client.response() == (number, b"%d" % number)
        assert handlers.seen == [b"1", b"2", b"3", b"4"]


class HeldAnswers:
    """Something is held back for followers until the reactor has nothing more to receive."""

    def __init__(self) -> None:
        self.is_holding = False
        self.is_due = False
        self.answered = 0

    def hold_no_longer(self) -> None:
        self.is_due = True

    def end_pass(self) -> bool:
        self.answered += self.is_holding and self.is_due
        self.is_holding = not self.is_due
        self.is_due = False
        return True


async def test_what_is_held_back_for_followers_is_sent_before_waiting() -> None:
    held = HeldAnswers()
    async with serving(end_of_pass=[held.end_pass]) as harness, await harness.connect() as client:
        ctx: Any = harness.server.reactor._ctx
        ctx.replica_fetches = held
        for number in range(3):
            assert await client.call(ECHO, b"x") == b"x"
            await harness.until(lambda: held.answered > number)  # noqa: B023  called in this turn
        # What is finished outside of a pass has one of its own, after which nothing is left to do.
        await client.send(request_bytes(KEPT, b"1", correlation_id=1))
        await harness.until(lambda: bool(harness.handlers.kept))
        await trio.testing.wait_all_tasks_blocked()
        answered, held.is_holding = held.answered, True
        harness.handlers.kept[0][1].complete_raw([b"1"])
        assert await client.response() == (1, b"1")
        assert held.answered == answered + 1


class WatchedPoller:
    """The system's poller; it notes each wait, and says that the lock came back late."""

    def __init__(self) -> None:
        self._poller: Poller[Connection] = open_poller()
        self.fileno: Callable[[], int] = self._poller.fileno
        self.change = self._poller.change
        self.close = self._poller.close
        self.lock_wait_s = 0.0
        self.lingers: list[tuple[float, bool]] = []

    def poll(self, wait_s: float = 0.0, keeps_lock: bool = False) -> list[tuple[Connection, int]]:
        if wait_s:
            self.lingers.append((wait_s, keeps_lock))
        return self._poller.poll(wait_s, keeps_lock)


async def test_beside_a_busy_thread_lingering_keeps_the_lock_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poller = WatchedPoller()
    monkeypatch.setattr(reactor, "open_poller", lambda: poller)
    monkeypatch.setattr(reactor, "KEPT_LINGERS", 3)
    usual = (reactor.LINGER_S, False)
    kept = (reactor.BUSY_LINGER_S, True)
    async with serving() as harness, await harness.connect() as client:

        async def lingers(count: int) -> list[tuple[float, bool]]:
            poller.lingers.clear()
            while len(poller.lingers) < count:
                await client.call(ECHO, b"x")
            return poller.lingers[:count]

        assert await lingers(2) == [usual, usual]
        poller.lock_wait_s = 2 * reactor.BUSY_LOCK_S
        seen = await lingers(20)
        asked = seen.index(usual, 4)
        assert seen[asked : asked + 9] == [usual, kept, kept, kept] * 2 + [usual]
        poller.lock_wait_s = 0.0
        assert (await lingers(8))[4:] == [usual] * 4
