"""Who leads now, for the answers to clients that asked somebody else (KIP-951)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from trioq.errors import FencedLeaderEpoch, NotLeaderOrFollower

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage

LEADER_CHANGES = (NotLeaderOrFollower.code, FencedLeaderEpoch.code)
"""Errors that are answered with a hint."""


class Endpoint(NamedTuple):
    """Where a broker is reached through one listener."""

    node_id: int
    host: str
    port: int
    rack: str | None


def leader_of(image: ClusterImage, topic_name: str, partition: int) -> tuple[int, int] | None:
    """Id and epoch of a partition's leader, -1 while there is none; None if it is not known."""
    topic = image.topics.get(topic_name)
    if topic is None or not 0 <= partition < len(topic.partitions):
        return None
    state = topic.partitions[partition]
    return state.leader, state.leader_epoch


def endpoints_of(
    image: ClusterImage, broker_ids: Iterable[int], listener_name: str
) -> Iterator[Endpoint]:
    """Those of the brokers that are there and have that listener."""
    for broker_id in sorted(set(broker_ids)):
        broker = image.brokers.get(broker_id)
        address = broker and broker.endpoints.get(listener_name)
        if broker and address:
            yield Endpoint(broker_id, address[0], address[1], broker.rack)
