"""One client connection: its state, the order of its responses, its lifetime."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq._native.response_ring import ReadyAnswer, ResponseRing
from trioq.config import format_address
from trioq.errors import BrokerBug
from trioq.net.egress import Egress, SendState
from trioq.net.poller import READABLE, WRITABLE
from trioq.net.socket_buffers import Inbox
from trioq.net.transport import PlainTransport, Transport

if TYPE_CHECKING:
    from trioq.server.reactor import Reactor
    from trioq.server.slot import Slot

_log = logs.get_logger("trioq.server")

# Reasons not to read from a connection.
MUTED_UNDISPATCHED: Final = 1  # whole frames wait in the inbox: barrier, caps
MUTED_QUEUED: Final = 2  # too many unsent bytes
MUTED_BUDGET: Final = 4  # its next growth waits for the broker's memory
MUTED_ENDING: Final = 8  # finishing or closing
MUTED_DISK: Final = 16  # its next request waits for a disk that stalls

SEND_BYTES_PER_PASS: Final = 1024 * 1024

NO_FRAME: Final = -1.0
"""In place of the time when a frame began to arrive: none is arriving."""


class Ending(Enum):
    """How the end of a connection is logged."""

    NORMAL = "debug"
    """The peer went, or the broker stops."""

    LIMIT = "info"
    """A limit of time was reached."""

    REFUSED = "warning"
    """The peer sent what cannot be answered, or a handler failed."""


class Connection(ResponseRing):
    """A client's connection.

    All I/O is the reactor's; the connection's own task sleeps until the end, is its cancel
    scope, and hosts the handlers that are tasks. Made by the reactor, used on its thread.

    Requests are answered in the order they came: `ring` holds the slots that are not sent
    yet, and what is finished at its head moves to `egress`. Parked requests are those
    whose handler has kept the slot.
    """

    __slots__ = (
        "_address",
        "_ended",
        "_nursery",
        "ending",
        "ending_reason",
        "is_reading_cold",
        "peer_host",
        "socket",
        "transport",
    )

    _reactor: Reactor
    ring: list[Slot | ReadyAnswer]
    inbox: Inbox
    egress: Egress
    send_state: SendState
    client_software: tuple[str, str] | None
    """Name and version that the client stated with ApiVersions 3, if it did."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        address: tuple[str, int],
        listener_name: str,
        now_s: float,
        transport: Transport | None = None,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._ended = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.socket = sock
        self.fd = sock.fileno()
        self.peer_host = address[0]
        self.listener_name = listener_name
        self.transport: Transport = PlainTransport(self.fd) if transport is None else transport
        self.is_plain = transport is None
        self.inbox = Inbox()
        self.egress = Egress(self.transport)
        self.send_state = SendState.DONE
        self.is_reading_cold = False
        self.ending = Ending.NORMAL
        self.ending_reason = ""
        self.last_activity_s = now_s
        self.frame_started_s = NO_FRAME
        self.send_progress_s = now_s
        """When bytes were last taken, or began to wait, while responses are queued."""

    @property
    def peer(self) -> str:
        """HOST:PORT of the client."""
        return format_address(*self._address)

    @property
    def wanted_interest(self) -> int:
        """What the poller should watch for now."""
        interest = 0 if self.muted else READABLE
        if self.send_state is SendState.BLOCKED:
            interest |= WRITABLE
        return interest

    async def run(self) -> None:
        """The connection's task: its lifetime. Cancelling it closes the connection."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._reactor.attach(self)
                await self._ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._reactor.detach(self)

    def start_task(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run `await task(*args)` within the lifetime of this connection.

        An unexpected error in it is logged and closes the connection; a BrokerBug ends the
        broker. Does nothing once the connection is ending.
        """
        self.spawn(self._run_guarded, task, args)

    def start_alone(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run `await task()`, and dispatch no later request before it is over.

        Any error in it ends the broker. Never runs once the connection is ending.
        """
        self.alone_count += 1
        self.spawn(self._run_alone, task)

    def spawn(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """As `start_task`, but any error in the task ends the broker."""
        if self._nursery is not None and not self.is_closing:
            self._nursery.start_soon(task, *args)

    async def _run_guarded(
        self, task: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        try:
            await task(*args)
        except BrokerBug:
            raise
        except Exception as error:  # noqa: BLE001  the border of all handlers
            _log.exception("task of a request failed", peer=self.peer)
            self.close(f"the task of a request failed: {error!r}")

    async def _run_alone(self, task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        finally:
            self.alone_count -= 1
            self._reactor.flush_soon(self)

    @property
    def is_in_pass(self) -> bool:
        """See Reactor.is_in_pass."""
        return self._reactor.is_in_pass

    def close(self, reason: str, ending: Ending = Ending.REFUSED) -> None:
        """Close at the end of this pass; what is ready to be sent is tried once more.

        The first reason counts.
        """
        if not self.is_closing:
            self.is_closing = True
            self.ending = ending
            self.ending_reason = reason
            self.muted |= MUTED_ENDING
            self._reactor.close_soon(self)

    def finish(self, reason: str, ending: Ending = Ending.REFUSED) -> None:
        """Read no more, and close once every request is answered and sent."""
        if not self.is_finishing and not self.is_closing:
            self.is_finishing = True
            self.ending = ending
            self.ending_reason = reason
            self.muted |= MUTED_ENDING
            self._reactor.flush_soon(self)

    def park(self, slot: Slot, size_bytes: int) -> None:
        """The slot's handler has kept it: it counts until it is finished."""
        slot.parked_bytes = size_bytes
        self.parked_count += 1
        self.parked_bytes += size_bytes

    def budget_granted(self) -> None:
        """Called by the receive budget when the growth that waited was charged."""
        self.inbox.grow(self.inbox.next_growth())
        self.muted &= ~MUTED_BUDGET
        self.frame_started_s = self._reactor.now_s  # it was not the peer who was slow
        self._reactor.flush_soon(self)

    def wait_for_disk(self) -> Callable[[], None]:
        """Dispatch nothing more until the returned function was called; a second call of it
        does nothing.
        """
        self.muted |= MUTED_DISK

        def go_on() -> None:
            if self.muted & MUTED_DISK:
                self.muted &= ~MUTED_DISK
                self._reactor.flush_soon(self)

        return go_on

    def flush(self, now_s: float) -> None:
        """Queue the finished responses at the head of the ring and send what can be sent.

        Raises OSError when the connection is broken or a file cannot be read.
        """
        ring = self.ring
        egress = self.egress
        count = 0
        for slot in ring:
            if not slot.state:
                break
            count += 1
            if slot.length:
                if not egress.queued_bytes:
                    self.send_progress_s = now_s
                parts = slot.parts
                egress.push((parts,) if type(parts) is bytes else parts, slot.length)
        del ring[:count]
        before = egress.queued_bytes
        if before and self.send_state is SendState.DONE:
            self.send_state = egress.send(SEND_BYTES_PER_PASS)
            sent = before - egress.queued_bytes
            if sent:
                self.send_progress_s = self.last_activity_s = now_s
                self._reactor.counters.bytes_out += sent

    def _keep_rest(self, rest: bytes) -> None:
        self.egress.push((rest,), len(rest))
        self.send_state = SendState.BLOCKED

    def cancel_waiting(self) -> None:
        """The connection ends: tell the handlers of unfinished requests, drop the rest."""
        ring, self.ring = self.ring, []
        for slot in ring:
            slot.cancel()
        self.egress.close()
        self.parked_count = self.parked_bytes = 0

    def end(self) -> None:
        """Wake the task to finish."""
        self._ended.set()
