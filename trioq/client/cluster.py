"""The cluster as a client sees it: bootstrap, connections, calls to whoever is responsible."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from trioq import logs
from trioq.client.address import HostPort
from trioq.client.cluster_state import NO_NODE, Node
from trioq.client.connection import Connection
from trioq.client.connections import MAIN, Connections
from trioq.client.coordinators import Coordinators, CoordinatorType
from trioq.client.metadata import Metadata
from trioq.client.settings import ClientSettings
from trioq.client.tasks import BackgroundTasks
from trioq.errors import (
    BootstrapFailed,
    ClientError,
    ConnectionFailed,
    NotController,
)
from trioq.wire.schema import Message

Response = TypeVar("Response", bound=Message)

_log = logs.get_logger(__name__)


class Cluster:
    """Calls to the brokers of one cluster; connections are opened as they are needed.

    Names are resolved anew for each connection. When no known broker answers, the bootstrap
    addresses are tried again, in turn.
    """

    def __init__(self, settings: ClientSettings, tasks: BackgroundTasks) -> None:
        self.settings = settings
        self.connections = Connections(settings, tasks)
        self.metadata = Metadata(
            settings, any_connection=self.any_connection, on_change=self._drop_connections
        )
        self.backoff = self.metadata.backoff
        self._coordinators = Coordinators(self)
        self._bootstrap = list(settings.bootstrap)
        random.shuffle(self._bootstrap)

    def _drop_connections(self) -> None:
        self.connections.keep_only(self.metadata.state.nodes)

    # ---- connections ------------------------------------------------------------------

    @asynccontextmanager
    async def any_connection(self) -> AsyncIterator[Connection]:
        """A connection to any broker: an open one, else any known, else from the bootstrap."""
        nodes = list(self.metadata.state.nodes.values())
        random.shuffle(nodes)
        nodes.sort(key=lambda node: self.connections.open_to(node.node_id) is None)
        for node in nodes:
            try:
                connection = await self.connections.to_node(node)
            except ConnectionFailed as error:
                _log.debug("broker unreachable", node=node.node_id, reason=str(error))
                continue
            yield connection
            return
        connection = await self._bootstrapped()
        try:
            yield connection
        finally:
            connection.close()

    async def _bootstrapped(self) -> Connection:
        failures: list[tuple[HostPort, ClientError]] = []
        for address in list(self._bootstrap):
            try:
                return await self.connections.to_address(address)
            except ConnectionFailed as error:
                failures.append((address, error))
                self._bootstrap.remove(address)
                self._bootstrap.append(address)
        reasons = "; ".join(str(error) for _, error in failures)
        raise BootstrapFailed(
            f"no broker answers: {reasons} (is it running, and the address right?)"
        )

    def node(self, node_id: int) -> Node:
        """The broker of this id; raises ConnectionFailed (and asks anew) where there is none."""
        node = self.metadata.state.nodes.get(node_id)
        if node is None:
            self.metadata.request_refresh()
            raise ConnectionFailed(f"broker {node_id} is not in the cluster's metadata")
        return node

    async def connection(self, node_id: int, lane: str = MAIN) -> Connection:
        """A usable connection to a broker; raises ConnectionFailed, AuthenticationFailed.

        A failure has the metadata refreshed: the broker may have moved.
        """
        node = self.node(node_id)
        try:
            return await self.connections.to_node(node, lane)
        except ConnectionFailed:
            self.metadata.request_refresh()
            raise

    # ---- calls ------------------------------------------------------------------------

    async def call(
        self,
        node_id: int,
        request: Message,
        response_class: type[Response],
        *,
        timeout_s: float | None = None,
        lane: str = MAIN,
        at_least: int = 0,
        at_most: int | None = None,
    ) -> Response:
        """Ask one broker once; see Connection.call. The default timeout is `request_timeout_ms`."""
        connection = await self.connection(node_id, lane)
        try:
            return await connection.call(
                request,
                response_class,
                timeout_s=self.settings.request_timeout_s if timeout_s is None else timeout_s,
                at_least=at_least,
                at_most=at_most,
            )
        except ConnectionFailed:
            self.metadata.request_refresh()
            raise

    async def call_any(
        self,
        request: Message,
        response_class: type[Response],
        *,
        timeout_s: float | None = None,
        at_least: int = 0,
        at_most: int | None = None,
    ) -> Response:
        """Ask any broker once."""
        async with self.any_connection() as connection:
            return await connection.call(
                request,
                response_class,
                timeout_s=self.settings.request_timeout_s if timeout_s is None else timeout_s,
                at_least=at_least,
                at_most=at_most,
            )

    async def call_controller(
        self,
        request: Message,
        response_class: type[Response],
        *,
        timeout_s: float | None = None,
        at_least: int = 0,
    ) -> Response:
        """Ask the controller once; NotController in an answer is the caller's to retry."""
        if self.metadata.state.controller_id == NO_NODE:
            await self.metadata.refreshed()
            if self.metadata.state.controller_id == NO_NODE:
                raise NotController("the cluster has no controller at the moment")
        return await self.call(
            self.metadata.state.controller_id,
            request,
            response_class,
            timeout_s=timeout_s,
            at_least=at_least,
        )

    async def coordinator(self, kind: CoordinatorType, key: str) -> int:
        """The id of the broker that coordinates a group or transactional id; asked once.

        Raises CoordinatorNotAvailable and other errors of the broker, ConnectionFailed; retries
        are the caller's.
        """
        return await self._coordinators.find(kind, key)

    def known_coordinator(self, kind: CoordinatorType, key: str) -> int | None:
        """The coordinator that is remembered, if one is."""
        return self._coordinators.known(kind, key)

    def coordinator_is_not(self, kind: CoordinatorType, key: str, node_id: int) -> None:
        """Forget a coordinator that said it is not, or does not answer."""
        self._coordinators.forget(kind, key, node_id)

    def add_node(self, node: Node) -> None:
        """Take up a broker that a response named."""
        if self.metadata.state.nodes.get(node.node_id) != node:
            self.metadata.state.nodes = {**self.metadata.state.nodes, node.node_id: node}

    def stop(self, error: ClientError) -> None:
        """Close every connection because of `error`."""
        for connection in self.connections.open_connections():
            connection.fail(error)
