"""Calls from this broker to others, in the wire protocol.

    peers = Peers(address_of, client_id="broker-1")
    response = await peers.call(2, request, api_version=4, timeout_s=5)
    frame = await peers.forward(controller_id, request_frame, timeout_s=30)
    channel = peers.channel(2)          # a fetcher's own connection

Nothing here runs by itself: connections are made by the calls that need them, and belong to the
one call that uses them. `Peers` and its channels are for tasks of the broker's loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from trioq.errors import PeerUnreachable
from trioq.net.peer_connection import Address, PeerConnection, connect, name_of
from trioq.wire.api_keys import request_api
from trioq.wire.schema import Message

T = TypeVar("T")

AddressOf = Callable[[int], Address | None]
"""Where the broker of an id listens for brokers; None while it is not known."""

CALL_MAX_BYTES: Final = 16 << 20
"""The longest answer of a call or a forwarded request."""


class _Route:
    """The way to one broker: what is connected, and when it was in vain last."""

    __slots__ = ("failures", "idle", "retry_at_s", "slots")

    def __init__(self, max_connections: int) -> None:
        self.idle: list[PeerConnection] = []
        self.slots = trio.Semaphore(max_connections)
        self.failures = 0
        self.retry_at_s = 0.0


class Peers:
    """All other brokers of the cluster, by id."""

    def __init__(
        self,
        address_of: AddressOf,
        *,
        client_id: str,
        max_connections: int = 4,
        connect_timeout_s: float = 5.0,
        backoff_s: float = 0.05,
        max_backoff_s: float = 1.0,
    ) -> None:
        """Nothing is connected yet.

        Args:
            address_of: asked before each call; another address than before makes a new connection.
            client_id: what the requests of this broker bear.
            max_connections: to one broker, for `call` and `forward`; each carries one request at
                a time, and more requests wait.
            connect_timeout_s: for one attempt to connect.
            backoff_s: the pause after a failed attempt to connect; doubled after each further one,
            max_backoff_s: up to this.
        """
        self._address_of = address_of
        self._client_id = client_id
        self._max_connections = max_connections
        self._connect_timeout_s = connect_timeout_s
        self._backoff_s = backoff_s
        self._max_backoff_s = max_backoff_s
        self._routes: dict[int, _Route] = {}

    async def call(
        self, broker_id: int, request: Message, *, api_version: int, timeout_s: float
    ) -> Message:
        """The answer of a broker; the response class that belongs to the request's.

        Args:
            broker_id: whom to ask.
            request: of an API in the table (api_keys.py).
            api_version: brokers of one cluster know the same ones.
            timeout_s: for all of it: waiting for a connection, making it, the answer.

        Raises:
            PeerUnreachable: no answer; the request may have been carried out all the same. The
                message says why.
            EncodeError: the version cannot express the request.

        A cancelled call may have been carried out.
        """
        api = request_api(type(request))

        async def exchange(connection: PeerConnection) -> Message:
            return await connection.call(api, api_version, request, self._client_id)

        return await self._with_connection(broker_id, exchange, api.name, timeout_s)

    async def forward(
        self, broker_id: int, frame: bytes | bytearray | memoryview, *, timeout_s: float
    ) -> bytes:
        """Pass on a client's request as it is, and bring back the answer as it is.

        Both are frames without their length in front; the answer bears the correlation id of
        `frame`. Raises PeerUnreachable, as `call`.
        """

        async def exchange(connection: PeerConnection) -> bytes:
            return await connection.forward(frame)

        return await self._with_connection(broker_id, exchange, "a forwarded request", timeout_s)

    def channel(self, broker_id: int, *, max_bytes: int, kept_bytes: int) -> PeerChannel:
        """A way to one broker that nobody else uses: for long polls and large answers.

        `max_bytes` and `kept_bytes` are those of PeerConnection.
        """
        return PeerChannel(self, broker_id, max_bytes, kept_bytes)

    def close(self) -> None:
        """Close the connections that nobody uses at the moment."""
        for route in self._routes.values():
            for connection in route.idle:
                connection.close()
            route.idle.clear()

    def forget(self, broker_id: int) -> None:
        """The broker has gone or has come back: what is known of the way to it is void."""
        route = self._routes.get(broker_id)
        if route is None:
            return
        for connection in route.idle:
            connection.close()
        route.idle.clear()
        route.failures = 0
        route.retry_at_s = 0.0

    async def _with_connection(
        self,
        broker_id: int,
        exchange: Callable[[PeerConnection], Awaitable[T]],
        what: str,
        timeout_s: float,
    ) -> T:
        with trio.move_on_after(timeout_s):
            route = self._route(broker_id)
            async with route.slots:
                connection = self._idle(broker_id, route)
                if connection is None:
                    connection = await self.connect(
                        broker_id, max_bytes=CALL_MAX_BYTES, kept_bytes=1 << 20
                    )
                answer = await exchange(connection)
                route.idle.append(connection)
                return answer
        raise PeerUnreachable(
            f"broker {broker_id} did not answer {what} within {timeout_s:g} s: see its log"
        )

    def _route(self, broker_id: int) -> _Route:
        route = self._routes.get(broker_id)
        if route is None:
            route = self._routes[broker_id] = _Route(self._max_connections)
        return route

    def _idle(self, broker_id: int, route: _Route) -> PeerConnection | None:
        """A connection that waits for its next request and leads to the right place."""
        address = self._address_of(broker_id)
        while route.idle:
            connection = route.idle.pop()
            if connection.address == address and connection.is_usable():
                return connection
            connection.close()
        return None

    async def connect(self, broker_id: int, *, max_bytes: int, kept_bytes: int) -> PeerConnection:
        """A new connection, not before the pause after the last failure is over.

        Raises PeerUnreachable.
        """
        route = self._route(broker_id)
        pause_s = route.retry_at_s - trio.current_time()
        if pause_s > 0:
            await trio.sleep(pause_s)
        address = self._address_of(broker_id)
        if address is None:
            await trio.lowlevel.checkpoint()
            raise PeerUnreachable(
                f"broker {broker_id} is not registered in the cluster, or not with the listener "
                "by which brokers reach each other"
            )
        backoff_s = min(self._backoff_s * 2.0 ** min(route.failures, 30), self._max_backoff_s)
        route.failures += 1
        try:
            with trio.move_on_after(self._connect_timeout_s):
                connection = await connect(address, max_bytes=max_bytes, kept_bytes=kept_bytes)
                route.failures = 0
                backoff_s = 0.0
                return connection
        finally:
            route.retry_at_s = trio.current_time() + backoff_s
        raise PeerUnreachable(
            f"no connection to broker {broker_id} at {name_of(address)} within "
            f"{self._connect_timeout_s:g} s: does it run, and does the network let us through?"
        )

    @property
    def client_id(self) -> str:
        return self._client_id

    def address_of(self, broker_id: int) -> Address | None:
        return self._address_of(broker_id)


class PeerChannel:
    """One task's own way to one broker; connects when it is used, and again after a failure."""

    __slots__ = ("_broker_id", "_connection", "_kept_bytes", "_max_bytes", "_peers")

    def __init__(self, peers: Peers, broker_id: int, max_bytes: int, kept_bytes: int) -> None:
        self._peers = peers
        self._broker_id = broker_id
        self._max_bytes = max_bytes
        self._kept_bytes = kept_bytes
        self._connection: PeerConnection | None = None

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        """As `Peers.call`; records in the answer are valid until the next call."""
        api = request_api(type(request))
        with trio.move_on_after(timeout_s):
            connection = await self._connected()
            return await connection.call(api, api_version, request, self._peers.client_id)
        raise PeerUnreachable(
            f"broker {self._broker_id} did not answer {api.name} within {timeout_s:g} s: see its "
            "log"
        )

    @property
    def is_receiving(self) -> bool:
        """Whether some of the answer to the call under way has come."""
        return self._connection is not None and self._connection.is_receiving

    async def _connected(self) -> PeerConnection:
        connection = self._connection
        if connection is not None:
            if (
                connection.address == self._peers.address_of(self._broker_id)
                and connection.is_usable()
            ):
                return connection
            connection.close()
            self._connection = None
        self._connection = await self._peers.connect(
            self._broker_id, max_bytes=self._max_bytes, kept_bytes=self._kept_bytes
        )
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one; a call under way fails."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
