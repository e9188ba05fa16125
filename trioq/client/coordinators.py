"""Which broker coordinates a group or a transactional id."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from trioq.client.address import HostPort
from trioq.client.cluster_state import Node
from trioq.errors import CoordinatorNotAvailable, error_class
from trioq.wire.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)

if TYPE_CHECKING:
    from trioq.client.cluster import Cluster


_MANY_KEYS_FROM: Final = 4


class CoordinatorType(IntEnum):
    """What is coordinated; the number is the protocol's."""

    GROUP = 0
    TRANSACTION = 1


class Coordinators:
    """Asks for coordinators and remembers them until they turn out not to be."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[CoordinatorType, str], int] = {}

    async def find(self, kind: CoordinatorType, key: str) -> int:
        """The coordinator's node id; raises KafkaError, ConnectionFailed."""
        known = self._known.get((kind, key))
        if known is not None and known in self._cluster.metadata.state.nodes:
            return known
        found = await self._ask(kind, key)
        if found.error_code:
            error = error_class(found.error_code)
            raise error(f"{kind.name.lower()} {key!r}: {found.error_message or error.kafka_name}")
        if found.node_id < 0:
            raise CoordinatorNotAvailable(f"{kind.name.lower()} {key!r} has no coordinator yet")
        known_node = self._cluster.metadata.state.nodes.get(found.node_id)
        rack = known_node.rack if known_node is not None else None
        self._cluster.add_node(Node(found.node_id, HostPort(found.host, found.port), rack))
        self._known[kind, key] = found.node_id
        return found.node_id

    async def _ask(self, kind: CoordinatorType, key: str) -> FindCoordinatorResponseCoordinator:
        async with self._cluster.any_connection() as connection:
            version = connection.version_of(FindCoordinatorRequest)
            request = FindCoordinatorRequest(key=key, key_type=kind)
            if version >= _MANY_KEYS_FROM:
                request = FindCoordinatorRequest(coordinator_keys=[key], key_type=kind)
            response = await connection.call(
                request,
                FindCoordinatorResponse,
                timeout_s=self._cluster.settings.request_timeout_s,
            )
        if response.coordinators:
            return response.coordinators[0]
        return FindCoordinatorResponseCoordinator(
            key=key,
            node_id=response.node_id,
            host=response.host,
            port=response.port,
            error_code=response.error_code,
            error_message=response.error_message,
        )

    def known(self, kind: CoordinatorType, key: str) -> int | None:
        """The coordinator's node id as far as it is remembered; asks nobody."""
        return self._known.get((kind, key))

    def forget(self, kind: CoordinatorType, key: str, node_id: int) -> None:
        """Ask again next time, if `node_id` is what was remembered."""
        if self._known.get((kind, key)) == node_id:
            del self._known[kind, key]
