"""What a client is shown of the cluster image: addresses, leaders, permitted operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from trioq.errors import LeaderNotAvailable
from trioq.wire.kinds import UNKNOWN_OPERATIONS

if TYPE_CHECKING:
    from trioq.metastore.image import ClusterImage, PartitionImage

NO_LEADER: Final = -1

# Bits of Kafka's AclOperation codes. Without an authorizer everyone may do everything.
_READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE = (1 << code for code in range(3, 9))
_CLUSTER_ACTION, _DESCRIBE_CONFIGS, _ALTER_CONFIGS = (1 << code for code in range(9, 12))
_IDEMPOTENT_WRITE = 1 << 12

TOPIC_OPERATIONS: Final = (
    _READ | _WRITE | _CREATE | _DELETE | _ALTER | _DESCRIBE | _DESCRIBE_CONFIGS | _ALTER_CONFIGS
)
GROUP_OPERATIONS: Final = _READ | _DELETE | _DESCRIBE | _DESCRIBE_CONFIGS | _ALTER_CONFIGS
CLUSTER_OPERATIONS: Final = (
    _CREATE
    | _ALTER
    | _DESCRIBE
    | _CLUSTER_ACTION
    | _DESCRIBE_CONFIGS
    | _ALTER_CONFIGS
    | _IDEMPOTENT_WRITE
)


def topic_operations(asked: bool) -> int:
    """The bits of what the client may do with a topic, or "not asked"."""
    return TOPIC_OPERATIONS if asked else UNKNOWN_OPERATIONS


def group_operations(asked: bool) -> int:
    """The bits of what the client may do with a group, or "not asked"."""
    return GROUP_OPERATIONS if asked else UNKNOWN_OPERATIONS


def cluster_operations(asked: bool) -> int:
    """The bits of what the client may do with the cluster, or "not asked"."""
    return CLUSTER_OPERATIONS if asked else UNKNOWN_OPERATIONS


class Endpoint(NamedTuple):
    """Where clients of one listener reach a broker."""

    broker_id: int
    host: str
    port: int
    rack: str | None


def endpoints(image: ClusterImage, listener_name: str) -> Iterator[Endpoint]:
    """The live brokers that have the listener by which the client came in."""
    for broker_id, broker in image.brokers.items():
        address = broker.endpoints.get(listener_name)
        if address is not None:
            yield Endpoint(broker_id, *address, broker.rack)


def reachable_controller(image: ClusterImage, listener_name: str) -> int:
    """A live broker for what only a controller does in Kafka; -1 if there is none.

    Any broker serves such requests here, so any will do where the controller is not live.
    """
    live = [endpoint.broker_id for endpoint in endpoints(image, listener_name)]
    if image.controller_id in live:
        return image.controller_id
    return min(live, default=-1)


class Leadership(NamedTuple):
    """Who leads a partition, as far as a client can use it."""

    error_code: int
    leader_id: int
    offline_replicas: list[int]


def leadership(image: ClusterImage, partition: PartitionImage) -> Leadership:
    """The live leader of `partition`, or LEADER_NOT_AVAILABLE.

    A broker that was registered anew since the partition's state was written does not lead, nor
    one that has said since that its log has failed.
    """
    brokers, failed = image.brokers, partition.failed_logs
    offline = [
        replica
        for replica in partition.replicas
        if replica not in brokers or failed.get(replica, -1) >= brokers[replica].broker_epoch
    ]
    broker = brokers.get(partition.leader)
    if (
        broker is not None
        and broker.broker_epoch == partition.leader_broker_epoch
        and partition.leader not in offline
    ):
        return Leadership(0, partition.leader, offline)
    return Leadership(LeaderNotAvailable.code, NO_LEADER, offline)
