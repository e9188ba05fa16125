"""The server: listeners, reactor, sweeper, deadlines and connections of one broker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.config import format_address
from trioq.server.connection import Connection, Ending
from trioq.server.handlers.registry import Api, served_apis
from trioq.server.limits import Limits
from trioq.server.listener import BoundListener, bind, prepare_accepted
from trioq.server.reactor import Reactor
from trioq.server.sweeper import Sweeper

if TYPE_CHECKING:
    from trioq.config import Listener
    from trioq.server.context import Context

_log = logs.get_logger("trioq.server")

_CANCELLED_AT_ONCE: Final = 100
_REFUSALS_LOGGED_EACH_S: Final = 10.0


class Server:
    """Serves Kafka's protocol on the bound listeners until it is cancelled.

    In order: `bind` (addresses are known, clients queue in the backlog), `run` (serves),
    `drain` (ends by and by), then cancel `run`.
    """

    def __init__(
        self, ctx: Context, *, limits: Limits | None = None, apis: Mapping[int, Api] | None = None
    ) -> None:
        self.limits = limits or Limits.of(ctx.config)
        self._apis = dict(served_apis() if apis is None else apis)
        self.reactor = Reactor(ctx, self._apis, self.limits)
        self.listeners: list[BoundListener] = []
        self._ctx = ctx
        self._sweeper = Sweeper(self.reactor, self.limits, ctx.clock)
        self._connection_nursery: trio.Nursery | None = None
        self._last_refusal_s = -_REFUSALS_LOGGED_EACH_S
        ctx.metrics.register("server", self.reactor.counters)

    def bind(self, listeners: Iterable[Listener]) -> list[BoundListener]:
        """Bind every listener; all or none. Raises StartupError."""
        try:
            for listener in listeners:
                self.listeners += bind(listener)
        except BaseException:
            self.close_listeners()
            raise
        return self.listeners

    def close_listeners(self) -> None:
        """Give up the addresses of a server that will not run."""
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve until cancelled; what is raised here ends the broker."""
        try:
            async with trio.open_nursery() as server_nursery:
                await server_nursery.start(self.reactor.run)
                server_nursery.start_soon(self._ctx.deadlines.run)
                server_nursery.start_soon(self._sweeper.run)
                async with trio.open_nursery() as connection_nursery:
                    self._connection_nursery = connection_nursery
                    for listener in self.listeners:
                        connection_nursery.start_soon(listener.run, self.admit, self._accept_paused)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self._connection_nursery = None
            self.close_listeners()
            self.reactor.close()

    def admit(self, sock: socket.socket, address: tuple[str, int], listener_name: str) -> None:
        """Take over an accepted socket: serve it, or close it where a limit is reached."""
        reactor, counters, nursery = self.reactor, self.reactor.counters, self._connection_nursery
        refusal = self._refusal(address[0])
        try:
            prepare_accepted(sock)
        except OSError as error:
            refusal = f"socket options: {error}"
        if refusal or nursery is None:
            sock.close()
            counters.connections_refused += 1
            self._log_refusal(address, refusal)
            return
        counters.connections_accepted += 1
        now_s = self._ctx.clock.monotonic_s()
        connection = Connection(reactor, sock, address, listener_name, now_s)
        reactor.expect(connection)
        nursery.start_soon(connection.run)

    async def drain(self, drain_s: float) -> None:
        """Stop accepting, let every connection finish what it has begun, then close it.

        Waiting requests that can answer early are asked to. What is left after `drain_s`
        seconds is cancelled, some at a time.
        """
        for listener in self.listeners:
            listener.stop()
        reactor = self.reactor
        for connection in list(reactor.connections):
            for slot in list(connection.ring):
                if slot.on_drain is not None:
                    slot.on_drain()
            connection.finish("the broker stops", Ending.NORMAL)
        with trio.move_on_after(drain_s):
            await reactor.wait_no_connections()
        left = list(reactor.connections)
        for start in range(0, len(left), _CANCELLED_AT_ONCE):
            for connection in left[start : start + _CANCELLED_AT_ONCE]:
                connection.close("the broker stops", Ending.NORMAL)
            await trio.lowlevel.checkpoint()
        await reactor.wait_no_connections()

    def replace_api(self, api: Api) -> Api | None:
        """Serve `api` in place of the one of its key, which is returned; None, and nothing done,
        where that key is not served. For tests.
        """
        before = self._apis.get(api.key)
        if before is not None:
            self._apis[api.key] = api
            self.reactor.apis_changed()
        return before

    def drop(self) -> None:
        """Cut all clients off as the end of the process would: no answer leaves any more.

        For tests of crashes; `run` is to be cancelled next.
        """
        self._connection_nursery = None
        for connection in self.reactor.connections:
            with contextlib.suppress(OSError):  # the client is gone already
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _refusal(self, host: str) -> str:
        """Why a client from `host` cannot be served now; empty if it can."""
        limits, reactor = self.limits, self.reactor
        if reactor.connection_count >= limits.max_connections:
            return f"there are {limits.max_connections} connections already (max.connections)"
        if reactor.connections_by_host[host] >= limits.max_connections_per_ip:
            return (
                f"there are {limits.max_connections_per_ip} connections from its address already "
                "(max.connections.per.ip)"
            )
        return ""

    def _log_refusal(self, address: tuple[str, int], reason: str) -> None:
        now_s = self._ctx.clock.monotonic_s()
        if now_s - self._last_refusal_s >= _REFUSALS_LOGGED_EACH_S:
            self._last_refusal_s = now_s
            _log.warning(
                "connection refused",
                peer=format_address(*address),
                reason=reason,
                refused_so_far=self.reactor.counters.connections_refused,
            )

    def _accept_paused(self) -> None:
        self.reactor.counters.accept_pauses += 1
