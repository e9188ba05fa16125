"""The connections of a client: at most one per broker and lane, opened when they are needed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final

import anyio

from trioq import logs
from trioq.client.address import HostPort
from trioq.client.cluster_state import Node
from trioq.client.connection import Connection
from trioq.client.handshake import greet
from trioq.client.retry import Backoff
from trioq.client.settings import ClientSettings
from trioq.client.tasks import BackgroundTasks
from trioq.client.transport import open_stream
from trioq.errors import ConnectionFailed

_log = logs.get_logger(__name__)

MAIN: Final = "main"
"""The lane of short requests. Long polls and group requests have lanes, hence connections, of
their own: a broker answers the requests of one connection in order."""

_FIRST_RECONNECT_S: Final = 0.05


class _Place:
    """Where one connection is kept, or opened by one task while others wait."""

    __slots__ = ("connection", "failures", "lock", "not_before_s")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.lock = anyio.Lock()
        self.failures = 0
        self.not_before_s = 0.0


class Connections:
    """Opens connections in the client's task group and keeps those that work.

    A broker that cannot be reached is tried again after pauses that grow up to the largest
    retry backoff. A session that has to be renewed (KIP-368) gets a new connection; the old
    one ends when its last call has its answer.
    """

    def __init__(self, settings: ClientSettings, tasks: BackgroundTasks) -> None:
        self.opened = 0
        self.failed = 0
        self._settings = settings
        self._tasks = tasks
        self._places: dict[tuple[int, str], _Place] = {}
        self._backoff = Backoff(
            _FIRST_RECONNECT_S, max(_FIRST_RECONNECT_S, settings.retry_backoff_max_ms / 1000)
        )

    async def to_node(self, node: Node, lane: str = MAIN) -> Connection:
        """A usable connection to `node`; raises ConnectionFailed, AuthenticationFailed.

        Cancellation leaves no half-open connection.
        """
        place = self._places.get((node.node_id, lane))
        if place is None:
            place = self._places[node.node_id, lane] = _Place()
        connection = place.connection
        if connection is not None and self._fits(connection, node):
            return connection
        async with place.lock:
            connection = place.connection
            if connection is not None:
                if self._fits(connection, node):
                    return connection
                place.connection = None
                self._tasks.start_soon(_end_when_idle, connection)
            await anyio.sleep_until(place.not_before_s)
            try:
                connection = await self.to_address(node.address)
            except ConnectionFailed:
                place.failures += 1
                pause_s = self._backoff.delay_s(place.failures, random.random())  # noqa: S311
                place.not_before_s = anyio.current_time() + pause_s
                raise
            place.failures = 0
            place.not_before_s = 0.0
            place.connection = connection
            return connection

    def open_to(self, node_id: int, lane: str = MAIN) -> Connection | None:
        """The connection to a node if there is one that works; opens none."""
        place = self._places.get((node_id, lane))
        if place is None or place.connection is None:
            return None
        return place.connection if place.connection.is_usable(anyio.current_time()) else None

    async def to_address(self, address: HostPort) -> Connection:
        """A new connection, ready for use, that is not kept here; the caller closes it."""
        settings = self._settings
        try:
            stream = await open_stream(
                address, tls=settings.tls, timeout_s=settings.connect_timeout_ms / 1000
            )
        except ConnectionFailed:
            self.failed += 1
            raise
        connection = Connection(
            stream,
            address,
            client_id=settings.client_id,
            max_in_flight=settings.max_in_flight,
            max_response_bytes=settings.max_response_bytes,
        )
        self._tasks.start_soon(connection.run)
        ready = False
        try:
            await greet(connection, sasl=settings.sasl, timeout_s=settings.request_timeout_s)
            ready = True
        finally:
            if not ready:
                self.failed += 1
                connection.close()
        self.opened += 1
        _log.debug("connected", address=str(address))
        return connection

    def keep_only(self, nodes: Mapping[int, Node]) -> None:
        """Close the connections to brokers that are gone or moved, once they are idle."""
        for (node_id, lane), place in list(self._places.items()):
            node = nodes.get(node_id)
            connection = place.connection
            if connection is not None and (node is None or node.address != connection.address):
                place.connection = None
                self._tasks.start_soon(_end_when_idle, connection)
            if node is None and not place.lock.locked():
                del self._places[node_id, lane]

    def close_lane(self, lane: str) -> None:
        """Close every connection of a lane; whoever had it has no calls under way any more."""
        for key, place in list(self._places.items()):
            if key[1] == lane and not place.lock.locked():
                del self._places[key]
                if place.connection is not None:
                    place.connection.close()

    def open_connections(self) -> Iterable[Connection]:
        """Those that are kept and work."""
        for place in self._places.values():
            if place.connection is not None and place.connection.failure is None:
                yield place.connection

    def _fits(self, connection: Connection, node: Node) -> bool:
        return connection.address == node.address and connection.is_usable(anyio.current_time())


async def _end_when_idle(connection: Connection) -> None:
    """Let the calls under way have their answers, then close; each has its own timeout."""
    while connection.failure is None and connection.in_flight:
        await connection.wait_for_progress()
    connection.close()
