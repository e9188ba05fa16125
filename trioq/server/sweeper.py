"""Deadlines of connections, looked at once per second instead of armed per request."""

from __future__ import annotations

import fcntl
import select
import sys
import termios
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.net.egress import SendState
from trioq.server.connection import MUTED_UNDISPATCHED, NO_FRAME, Connection, Ending
from trioq.server.reactor import STALL_S

if TYPE_CHECKING:
    from trioq.clock import Clock
    from trioq.server.limits import Limits
    from trioq.server.reactor import Reactor

_log = logs.get_logger("trioq.server")

SWEEP_S: Final = 1.0
_AT_ONCE: Final = 500  # connections looked at before others get a turn
_FRAME_BYTES_PER_S: Final = 1024 * 1024  # a large frame gets a second more per MiB
_GONE: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL
_HALF_CLOSED: Final = select.POLLRDHUP if sys.platform == "linux" else 0


class Sweeper:
    """Closes connections that are idle, stuck in a request or a response, or dead while muted.

    Also measures how late the loop lets it run: a loop stall wherever it comes from.
    """

    def __init__(self, reactor: Reactor, limits: Limits, clock: Clock) -> None:
        self._reactor = reactor
        self._limits = limits
        self._clock = clock

    async def run(self) -> None:
        """Sweep every second until cancelled."""
        while True:
            due_s = trio.current_time() + SWEEP_S
            await trio.sleep_until(due_s)
            late_s = trio.current_time() - due_s
            if late_s > STALL_S:
                self._reactor.counters.loop_stalls += 1
                _log.warning("the loop stalled", in_="any task", took_ms=int(late_s * 1000))
            connections = list(self._reactor.connections)
            for start in range(0, len(connections), _AT_ONCE):
                self.sweep(connections[start : start + _AT_ONCE])
                await trio.lowlevel.checkpoint()

    def sweep(self, connections: list[Connection]) -> None:
        """Look at some connections now."""
        now_s = self._clock.monotonic_s()
        muted = []
        for connection in connections:
            if connection.is_closing:
                continue
            reason = self._overdue(connection, now_s)
            if reason:
                connection.close(reason, Ending.LIMIT)
            elif connection.interest == 0:
                muted.append(connection)
        if muted:
            _close_dead(muted)

    def _overdue(self, connection: Connection, now_s: float) -> str:
        """Why the connection has to go; empty if it may stay."""
        limits = self._limits
        started_s = connection.frame_started_s
        if started_s != NO_FRAME and not connection.muted:
            allowed_s = limits.frame_s + connection.inbox.frame_bytes / _FRAME_BYTES_PER_S
            if now_s - started_s > allowed_s:
                return f"a request did not arrive whole within {allowed_s:.0f} s"
        if connection.egress.queued_bytes and connection.send_state is SendState.BLOCKED:
            if now_s - connection.send_progress_s > limits.send_s:
                return f"the peer took nothing of a response for {limits.send_s:.0f} s"
        elif (
            not connection.ring
            and not connection.alone_count
            and now_s - connection.last_activity_s > limits.idle_s
        ):
            return f"idle for {limits.idle_s:.0f} s"
        return ""


def _close_dead(muted: list[Connection]) -> None:
    """Find the muted connections whose peer is gone: nothing else would tell."""
    by_fd = {connection.fd: connection for connection in muted}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, _HALF_CLOSED)
    for fd, mask in poll.poll(0):
        connection = by_fd[fd]
        if mask & _GONE or not (_unread_bytes(fd) or connection.muted & MUTED_UNDISPATCHED):
            connection.close("the peer is gone", Ending.NORMAL)


def _unread_bytes(fd: int) -> int:
    answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)
