"""What connections may take their time for, and what not; and how the server ends."""

from __future__ import annotations

import pytest
import trio

from tests.unit.server_harness import BARRIER, ECHO, KEPT, TASK, request_bytes, serving
from trioq.clock import ManualClock
from trioq.server.connection import MUTED_BUDGET
from trioq.server.limits import Limits

pytestmark = pytest.mark.trio

LIMITS = Limits(idle_s=600, frame_s=30, send_s=20)


async def test_an_idle_connection_is_closed_a_waiting_one_is_not() -> None:
    clock = ManualClock()
    async with (
        serving(limits=LIMITS, clock=clock) as harness,
        await harness.connect() as idle,
        await harness.connect() as waiting,
    ):
        assert await idle.call(ECHO) == b""
        await waiting.send(request_bytes(KEPT))
        await harness.until(lambda: bool(harness.handlers.kept))
        clock.advance(599)
        harness.sweep()
        await trio.testing.wait_all_tasks_blocked()
        assert harness.reactor.connection_count == 2
        clock.advance(2)
        harness.sweep()
        assert await idle.is_closed()
        assert harness.reactor.connection_count == 1
        harness.handlers.kept[0][1].complete_raw([b"x"])
        assert (await waiting.response())[1] == b"x"


@pytest.mark.parametrize("size", [50, 500_000])
async def test_a_request_that_drips_is_cut_off(size: int) -> None:
    clock = ManualClock()
    data = request_bytes(ECHO, bytes(size))
    async with (
        serving(limits=LIMITS, clock=clock) as harness,
        await harness.connect() as client,
    ):
        counters = harness.reactor.counters
        for second in range(1, 40):
            await client.send(data[second - 1 : second])
            await harness.until(lambda: counters.bytes_in >= second)  # noqa: B023
            clock.advance(1)
            harness.sweep()
            if any(c.is_closing for c in harness.reactor.connections):
                break
        assert 30 <= second <= 32
        assert await client.is_closed()


async def test_a_request_that_waits_for_the_brokers_memory_is_not_cut_off() -> None:
    clock = ManualClock()
    limits = Limits(frame_s=30, receive_budget_bytes=100_000, max_frame_bytes=1_000_000)
    half = request_bytes(ECHO, bytes(900_000))[:300_000]
    async with serving(limits=limits, clock=clock) as harness, trio.open_nursery() as nursery:
        clients = [await harness.connect() for _ in range(2)]
        for client in clients:
            nursery.start_soon(client.send, half)
        await harness.until(lambda: harness.reactor.budget.waiting_count == 1)
        await harness.until(lambda: harness.reactor.counters.bytes_in > 300_000)
        clock.advance(40)
        harness.sweep()  # the one that has its memory has no excuse
        await harness.until(lambda: harness.reactor.connection_count == 1)
        await harness.until(lambda: harness.reactor.budget.waiting_count == 0)
        harness.sweep()
        await trio.testing.wait_all_tasks_blocked()
        assert harness.reactor.connection_count == 1
        assert not any(c.muted & MUTED_BUDGET for c in harness.reactor.connections)
        for client in clients:
            await trio.aclose_forcefully(client.stream)
        nursery.cancel_scope.cancel()


async def test_a_response_that_is_not_taken_ends_the_connection() -> None:
    clock = ManualClock()
    async with (
        serving(limits=LIMITS, clock=clock) as harness,
        await harness.connect() as client,
    ):
        await client.send(request_bytes(KEPT))
        await harness.until(lambda: bool(harness.handlers.kept))
        clock.advance(1000)  # what counts is how long the response has waited
        harness.handlers.kept[0][1].complete_raw([bytes(30_000_000)])
        connection = next(iter(harness.reactor.connections))
        await harness.until(lambda: 0 < connection.egress.queued_bytes < 30_000_000)
        await trio.testing.wait_all_tasks_blocked()
        harness.sweep()
        assert not connection.is_closing
        clock.advance(21)
        harness.sweep()
        assert connection.is_closing
        await harness.reactor.wait_no_connections()


async def test_drain_answers_who_waits_and_lets_the_rest_finish() -> None:
    async with serving() as harness, trio.open_nursery() as nursery:
        waiting, working, idle = [await harness.connect() for _ in range(3)]
        handlers = harness.handlers
        await waiting.send(request_bytes(KEPT, b"poll", correlation_id=1))
        await working.send(request_bytes(TASK, b"work", correlation_id=2))
        await harness.until(lambda: len(handlers.seen) == 2)
        slot = handlers.kept[0][1]
        slot.on_drain = lambda: slot.complete_raw([b"nothing yet"])
        nursery.start_soon(harness.server.drain, 20)
        assert await waiting.response() == (1, b"nothing yet")
        assert await waiting.is_closed()
        assert await idle.is_closed()
        with pytest.raises(OSError):
            await harness.connect()
        handlers.gate.set()
        assert await working.response() == (2, b"work")
        assert await working.is_closed()


async def test_drain_cuts_off_what_does_not_finish() -> None:
    async with serving() as harness:
        clients = [await harness.connect() for _ in range(230)]
        for client in clients:
            await client.send(request_bytes(KEPT))
        await harness.until(lambda: len(harness.handlers.kept) == 230)
        await harness.server.drain(0)
        assert harness.reactor.connection_count == 0
        assert len(harness.handlers.cancelled) == 230
        for client in clients:
            assert await client.is_closed()


async def test_slots_finished_together_outside_a_pass_share_one_pass() -> None:
    async with serving() as harness:
        clients = [await harness.connect() for _ in range(10)]
        for client in clients:
            await client.send(request_bytes(KEPT) * 2)
        await harness.until(lambda: len(harness.handlers.kept) == 20)
        await trio.testing.wait_all_tasks_blocked()
        before = harness.reactor.counters.passes
        for _, slot in harness.handlers.kept:
            slot.complete_raw([b"now"])
        for client in clients:
            assert (await client.response())[1] == b"now"
        assert harness.reactor.counters.passes == before + 1


async def test_the_receive_buffer_is_left_to_who_borrows_from_it() -> None:
    borrowed = [False]
    async with (
        serving(end_of_pass=[lambda: not borrowed[0]]) as harness,
        await harness.connect() as client,
    ):
        scratch = harness.reactor._receiver._scratch
        first = scratch.buffer
        borrowed[0] = True
        await client.call(ECHO, b"marker of the first pass")
        position = scratch.position
        assert b"marker of the first pass" in first[:position]
        await client.call(ECHO, b"second")
        assert scratch.buffer is first
        assert scratch.position > position
        assert b"marker of the first pass" in first[:position]
        for _ in range(80):
            await client.call(ECHO, bytes(30_000))
        assert scratch.buffer is not first
        assert b"marker of the first pass" in first[:position]
        assert harness.reactor.counters.scratch_buffers_abandoned >= 1
        borrowed[0] = False
        await client.call(ECHO, b"last")
        assert scratch.position == 0


async def test_discarded_slots_take_no_place_in_the_order() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(
            request_bytes(KEPT, correlation_id=1)
            + request_bytes(ECHO, b"two", correlation_id=2)
            + request_bytes(BARRIER, b"three", correlation_id=3)
        )
        await harness.until(lambda: bool(harness.handlers.kept))
        harness.handlers.kept[0][1].discard()
        assert await client.response() == (2, b"two")
        assert await client.response() == (3, b"three")
