"""The reactor: the one loop that reads, dispatches, writes and closes every connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq._native.response_ring import PassQueue
from trioq.net.egress import ColdRange, SendState, read_ahead
from trioq.net.poller import BROKEN, READABLE, WRITABLE, Poller, open_poller
from trioq.net.socket_buffers import ReceiveBudget
from trioq.server.connection import (
    MUTED_QUEUED,
    MUTED_UNDISPATCHED,
    Connection,
    Ending,
)
from trioq.server.counters import ServerCounters
from trioq.server.dispatch import Dispatcher
from trioq.server.receiver import Receiver

if TYPE_CHECKING:
    from trioq.server.context import Context, Gate
    from trioq.server.handlers.registry import Api
    from trioq.server.limits import Limits

_log = logs.get_logger("trioq.server")

PASS_S: Final = 0.001
"""Time after which a pass stops taking up connections; the rest is first in the next."""

LINGER_S: Final = 0.000_1
"""How long the loop stands still for the next request before it gives the other tasks a turn:
less than such a turn costs. Only while it mostly comes within that time."""

BUSY_LOCK_S: Final = 0.001
"""A linger after which the interpreter lock came back so late means that another thread of the
process is busy with Python, and that whatever gives the lock away costs up to 5 ms."""

KEPT_LINGERS: Final = 1000
BUSY_LINGER_S: Final = 0.000_5
BUSY_TURN_S: Final = 0.005
"""Beside such a thread the next KEPT_LINGERS lingers keep the lock, are longer, and turns are
given less often: the loop and the thread share the lock about evenly. Then it is asked again."""

LINGER_CREDIT: Final = 8
LINGER_LOSS: Final = 4
LINGER_AGAIN_AFTER: Final = 16
"""Each success of lingering earns a point, up to LINGER_CREDIT; each time in vain costs
LINGER_LOSS, and with none left the loop does without for LINGER_AGAIN_AFTER turns."""

STALL_S: Final = 0.1
"""A pass longer than this is counted and logged as a stall."""


class Reactor(PassQueue):
    """Owns the poller and every client socket of one broker.

    A pass takes up the ready connections (those that could not be served in the pass
    before come first, those in the middle of a large frame last), receives once from each,
    runs stage 1 of its requests, then ends: `ctx.end_of_pass` (files are written), answers
    are sent, connections closed. Passes are plain code without a checkpoint inside.

    Everything here is called on the broker's loop thread. Slots finished outside a pass
    are flushed by a pass of their own in the next turn of the loop.
    """

    def __init__(
        self,
        ctx: Context,
        apis: Mapping[int, Api],
        limits: Limits,
        counters: ServerCounters | None = None,
    ) -> None:
        self.counters = counters or ServerCounters()
        self.limits = limits
        self.connections: set[Connection] = set()
        self.connections_by_host: Counter[str] = Counter()
        self.connection_count = 0
        """Connections admitted and not yet ended."""
        self.now_s = ctx.clock.monotonic_s()
        self.budget = ReceiveBudget(limits.receive_budget_bytes)
        self._clock = ctx.clock
        self._ctx = ctx
        self._end_of_pass = ctx.end_of_pass
        self._gate: Gate | None = None
        self._dispatcher = Dispatcher(ctx, apis, limits, self.counters)
        self._receiver = Receiver(self, self._dispatcher, self._clock)
        self._poller: Poller[Connection] = open_poller()
        self._unsent: list[Connection] = []  # to go on sending without an event
        self._closing: list[Connection] = []
        self._late = trio.lowlevel.ParkingLot()
        self._no_connections = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._longest_pass_s = 0.0  # of those that were no stalls

    # -- the tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Everything raised here is a bug and ends the broker."""
        self._gate = self._ctx.gate
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._run_passes)
                nursery.start_soon(self._run_late_passes)
                task_status.started()
        finally:
            self._nursery = None

    def close(self) -> None:
        """Release the poller; every connection has ended."""
        self._poller.close()

    async def wait_no_connections(self) -> None:
        """Wait until the last connection has ended."""
        while self.connection_count:
            await self._no_connections.park()

    async def _run_passes(self) -> None:
        """Passes while there is something to do, then wait for sockets to be ready.

        Other tasks get their turn after every pass that used up its time; small passes
        share a turn of that length, since a turn of the loop costs more than they do.
        """
        poller, clock, gate = self._poller, self._clock, self._gate
        turn_s = PASS_S
        turn_end_s = clock.monotonic_s() + turn_s
        turns_until_linger = credit = kept_lingers = 0
        while True:
            if gate is not None and gate.is_shut(clock.monotonic_s()):
                await gate.opened()
            events = poller.poll()
            if not (events or self._ready or self._unsent):
                held = self._ctx.replica_fetches
                if held is not None and held.is_holding:
                    held.hold_no_longer()
                    self._run_pass([])
                    continue
                if kept_lingers:
                    kept_lingers -= 1
                    events = poller.poll(BUSY_LINGER_S, True)
                elif turns_until_linger:
                    turns_until_linger -= 1
                else:
                    events = poller.poll(LINGER_S)
                    is_busy = poller.lock_wait_s > BUSY_LOCK_S
                    turn_s, kept_lingers = (BUSY_TURN_S, KEPT_LINGERS) if is_busy else (PASS_S, 0)
                    credit = min(credit + 1, LINGER_CREDIT) if events else credit - LINGER_LOSS
                    if credit < 0:
                        turns_until_linger, credit = LINGER_AGAIN_AFTER, 0
                if not events:
                    await trio.lowlevel.wait_readable(poller.fileno())
                    turn_end_s = clock.monotonic_s() + turn_s
                    continue
            if gate is not None and gate.is_shut(clock.monotonic_s()):
                continue  # it stood still in poll, which will tell of the events again
            self._run_pass(events)
            if clock.monotonic_s() >= turn_end_s:
                await trio.lowlevel.checkpoint()
                turn_end_s = clock.monotonic_s() + turn_s

    async def _run_late_passes(self) -> None:
        """Passes for what was finished outside of one; many share a pass."""
        gate = self._gate
        while True:
            if gate is not None and gate.is_shut(self._clock.monotonic_s()):
                await gate.opened()
            if self._dirty or self._closing or self._ready or self._unsent:
                if self._ctx.replica_fetches is not None:
                    self._ctx.replica_fetches.hold_no_longer()
                self._run_pass([])
                await trio.lowlevel.checkpoint()
            else:
                await self._late.park()

    def apis_changed(self) -> None:
        """The table of APIs is another from the next request on."""
        self._dispatcher.reopen_lane()
        self._receiver.use_lane()

    # -- called by connections

    def expect(self, connection: Connection) -> None:
        """The connection is admitted and counts; its task is about to start."""
        self.connections.add(connection)
        self.connections_by_host[connection.peer_host] += 1
        self.connection_count += 1
        self.counters.connections_open += 1

    def attach(self, connection: Connection) -> None:
        """The connection's task has started: watch its socket."""
        if not connection.is_closed:
            self._update_interest(connection)

    def detach(self, connection: Connection) -> None:
        """The connection's task ends, by `close_soon` or cancelled: nothing is left of it."""
        if not connection.is_closed:
            connection.close("cancelled", Ending.NORMAL)
            self._end(connection)

    @property
    def is_in_pass(self) -> bool:
        """True within a pass: its hooks, and the sending of answers, are still to come."""
        return self._in_pass

    def flush_soon(self, connection: Connection) -> None:
        """Flush the connection at the end of this pass, or in the next turn of the loop."""
        if not connection.is_dirty:
            connection.is_dirty = True
            self._dirty.append(connection)
            if not self._in_pass:
                self._late.unpark_all()

    def close_soon(self, connection: Connection) -> None:
        """Close the connection at the end of this pass, or in the next turn of the loop."""
        self._closing.append(connection)
        self.flush_soon(connection)

    # -- a pass

    def _run_pass(self, events: list[tuple[Connection, int]]) -> None:
        self._in_pass = True
        started_s = self.now_s = self._clock.monotonic_s()
        counters = self.counters
        counters.passes += 1
        events = self.take_up(events)
        ready, self._ready = self._ready, []
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.send_state = SendState.DONE
            self.flush_soon(connection)
        for connection, mask in events:
            if mask & (WRITABLE | BROKEN) and connection.send_state is SendState.BLOCKED:
                connection.send_state = SendState.DONE
                self.flush_soon(connection)
            if mask & (READABLE | BROKEN) and not connection.is_ready:
                if not connection.muted:
                    connection.is_ready = True
                    ready.append(connection)
                elif mask & BROKEN:
                    connection.close("the peer is gone", Ending.NORMAL)
        self._ready = self._receiver.serve(ready, started_s + PASS_S) + self._ready
        self._finish_pass()
        self._in_pass = False
        lane = self._dispatcher.lane
        counters.requests += lane.requests
        counters.bytes_in += self.received_bytes
        counters.bytes_out += self.sent_bytes
        lane.requests = self.received_bytes = self.sent_bytes = 0
        self._measure(self._clock.monotonic_s() - started_s)

    def serve_again(self, connection: Connection) -> None:
        """Serve the connection in the next pass without waiting for an event."""
        if not connection.is_ready:
            connection.is_ready = True
            self._ready.append(connection)
            if not self._in_pass:
                self._late.unpark_all()

    # -- the end of a pass

    def _finish_pass(self) -> None:
        is_released = True
        for hook in self._end_of_pass:
            is_released &= hook()
        self._receiver.end_pass(is_released=is_released)
        while self._dirty or self._closing:
            dirty, self._dirty = self._dirty, []
            for connection in self.flush_small(dirty):
                if not connection.is_closed:
                    self._flush(connection)
            closing, self._closing = self._closing, []
            for connection in closing:
                self._end(connection)

    def _flush(self, connection: Connection) -> None:
        """Send what is ready, and find out whether the connection may be read from."""
        try:
            connection.flush(self.now_s)
        except OSError as error:
            connection.close(f"sending failed: {error}", Ending.NORMAL)
            return
        state = connection.send_state
        if state is SendState.DONE:
            if connection.interest == READABLE and not (
                connection.muted or connection.is_finishing
            ):
                return  # as nearly always: all is sent, and it is read from
        elif state is SendState.BUDGET_SPENT:
            self._unsent.append(connection)
        elif state is SendState.COLD:
            self._read_cold(connection)
        queued_bytes = connection.egress.queued_bytes
        if queued_bytes > self.limits.max_queued_bytes:
            connection.muted |= MUTED_QUEUED
        else:
            connection.muted &= ~MUTED_QUEUED
        if connection.muted == MUTED_UNDISPATCHED and self._may_dispatch(connection):
            connection.needs_idle = False
            self.serve_again(connection)
            return
        if connection.is_finishing and not connection.ring and not queued_bytes:
            connection.close(connection.ending_reason, connection.ending)
        self._update_interest(connection)

    def _may_dispatch(self, connection: Connection) -> bool:
        """True if the frames that wait in the inbox may be tried again."""
        if connection.needs_idle:
            return not connection.parked_count and not connection.alone_count
        return self._dispatcher.has_room(connection)

    def _update_interest(self, connection: Connection) -> None:
        wanted = connection.wanted_interest
        if wanted != connection.interest:
            self._poller.change(connection.fd, connection, connection.interest, wanted)
            connection.interest = wanted

    def _read_cold(self, connection: Connection) -> None:
        """Bring the next bytes of a response into memory in a thread; others go on meanwhile."""
        cold = connection.egress.cold_range
        if cold is None or self._nursery is None or connection.is_reading_cold:
            return
        connection.is_reading_cold = True
        self.counters.cold_reads += 1
        cold.file.retain()
        self._nursery.start_soon(self._read_cold_range, connection, cold)

    async def _read_cold_range(self, connection: Connection, cold: ColdRange) -> None:
        try:
            await trio.to_thread.run_sync(read_ahead, cold)
        except OSError as error:
            connection.close(f"reading a log failed: {error}")
        finally:
            cold.file.release()
        connection.is_reading_cold = False
        if not connection.is_closed:
            connection.egress.warmed()
            connection.send_state = SendState.DONE
            self.flush_soon(connection)

    def _end(self, connection: Connection) -> None:
        """Take the connection out and close its socket, in this order."""
        if connection.is_closed:
            return
        connection.is_closed = True
        log = getattr(_log, connection.ending.value)
        log("connection closed", peer=connection.peer, reason=connection.ending_reason)
        if connection.interest:
            self._poller.change(connection.fd, connection, connection.interest, 0)
            connection.interest = 0
        self.connections.discard(connection)
        self.connection_count -= 1
        self.connections_by_host[connection.peer_host] -= 1
        if not self.connections_by_host[connection.peer_host]:
            del self.connections_by_host[connection.peer_host]
        connection.cancel_waiting()
        self.budget.forget(connection.inbox)
        connection.socket.close()
        connection.end()
        self.counters.connections_open -= 1
        self.counters.connections_closed += 1
        if not self.connection_count:
            self._no_connections.unpark_all()

    def _measure(self, took_s: float) -> None:
        if took_s <= self._longest_pass_s:
            return
        took_us = int(took_s * 1_000_000)
        counters = self.counters
        counters.loop_longest_stall_us = max(counters.loop_longest_stall_us, took_us)
        if took_s > STALL_S:
            counters.loop_stalls += 1
            _log.warning("the loop stalled", in_="a pass of the reactor", took_ms=took_us // 1000)
        else:
            self._longest_pass_s = took_s
