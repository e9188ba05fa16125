"""What `trioq cluster` knows of a cluster: its brokers, and where its partitions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from trioq.client.admin import Admin
from trioq.client.admin_partitions import PartitionReassignment
from trioq.client.client import Client
from trioq.client.cluster_state import NO_NODE, PartitionInfo
from trioq.controller.placement import BrokerPlace, Replicas
from trioq.errors import UnknownTopicOrPartition, UnsupportedByBroker
from trioq.types import TopicPartition

_MIN_ISR = "min.insync.replicas"


class BrokerView(NamedTuple):
    """A broker; without an address it is down, and known by its replicas only."""

    broker: int
    host: str | None
    port: int | None
    rack: str | None
    is_controller: bool
    is_up: bool
    leaders: int
    replicas: int
    failed: int
    """Replicas whose log directories have failed."""

    @property
    def state(self) -> str:
        return "up" if self.is_up else "down"


class PartitionView(NamedTuple):
    """A partition; `leader` is None while it has none."""

    partition: TopicPartition
    leader: int | None
    replicas: Replicas
    in_sync: Replicas
    adding: Replicas
    removing: Replicas
    min_insync: int
    eligible: Replicas
    """Replicas outside of the ISR that could lead without loss; known of offline partitions."""

    failed: Replicas
    """Replicas whose log directories have failed, on brokers that are up."""

    up: frozenset[int]
    """The brokers that are up."""

    @property
    def target(self) -> Replicas:
        """The replicas that it has when nothing is moved any more."""
        return tuple(one for one in self.replicas if one not in self.removing)

    @property
    def is_moving(self) -> bool:
        return bool(self.adding or self.removing)

    @property
    def is_offline(self) -> bool:
        return self.leader is None

    @property
    def is_under_replicated(self) -> bool:
        """A replica that is not just being added is out of sync."""
        wanted = set(self.replicas) - set(self.adding)
        return not wanted <= (set(self.in_sync) & self.up)

    @property
    def is_under_min_isr(self) -> bool:
        """acks=all is refused."""
        return self.is_offline or len(self.in_sync) < self.min_insync

    @property
    def problem(self) -> str:
        """What is the matter with it; empty if all is well."""
        if self.is_offline:
            could_lead = dict.fromkeys((*self.in_sync, *self.eligible))
            waits = " or ".join(
                f"{one} (log failed)" if one in self.failed else str(one)
                for one in could_lead
                if one in self.failed or one not in self.up
            )
            return f"offline: waits for {waits}" if waits else "offline"
        parts = []
        if self.failed:
            parts.append(f"log failed on {', '.join(map(str, self.failed))}")
        if self.is_under_min_isr:
            parts.append(f"under min ISR {self.min_insync}")
        if self.is_under_replicated:
            parts.append("under-replicated")
        if self.is_moving:
            parts.append("moving")
        return ", ".join(parts)


class ClusterView(NamedTuple):
    """A cluster at one moment."""

    cluster_id: str | None
    controller: int | None
    brokers: list[BrokerView]
    partitions: list[PartitionView]

    def places(self) -> list[BrokerPlace]:
        """The brokers that are up, and their racks."""
        return [BrokerPlace(one.broker, one.rack) for one in self.brokers if one.is_up]

    def placement(self) -> dict[TopicPartition, Replicas]:
        """Where every partition is to be in the end, as things stand."""
        return {one.partition: one.target for one in self.partitions}


async def look_at(client: Client) -> ClusterView:
    """The cluster as of now."""
    admin = client.admin
    description = await admin.describe_cluster()
    names = await admin.list_topics(include_internal=True)
    known = client.cluster.metadata.state.topics
    reassignments = await admin.list_partition_reassignments()
    configs = await admin.topics_configs(names, keys=[_MIN_ISR]) if names else {}
    up = frozenset(node.node_id for node in description.brokers)
    partitions = []
    for name in names:
        entry = configs.get(name, {}).get(_MIN_ISR)
        min_insync = int(entry.value) if entry is not None and entry.value else 1
        partitions += [
            _partition_view(TopicPartition(name, one.partition), one, reassignments, min_insync, up)
            for one in known[name].partitions
        ]
    partitions = await _with_eligible(admin, partitions)
    leaders = Counter(one.leader for one in partitions)
    replicas = Counter(broker for one in partitions for broker in one.replicas)
    failed = Counter(broker for one in partitions for broker in one.failed)
    nodes = {node.node_id: node for node in description.brokers}
    brokers = []
    for broker in sorted(nodes.keys() | replicas.keys()):
        node = nodes.get(broker)
        brokers.append(
            BrokerView(
                broker,
                None if node is None else node.address.host,
                None if node is None else node.address.port,
                None if node is None else node.rack,
                broker == description.controller_id,
                node is not None,
                leaders[broker],
                replicas[broker],
                failed[broker],
            )
        )
    return ClusterView(description.cluster_id, description.controller_id, brokers, partitions)


async def _with_eligible(admin: Admin, partitions: list[PartitionView]) -> list[PartitionView]:
    offline = {one.partition.topic for one in partitions if one.is_offline}
    if not offline:
        return partitions
    try:
        eligible = await admin.eligible_leaders(offline)
    except (UnsupportedByBroker, UnknownTopicOrPartition):
        return partitions  # an older broker, or a topic that has just been deleted
    return [one._replace(eligible=eligible.get(one.partition, ())) for one in partitions]


def _partition_view(
    partition: TopicPartition,
    info: PartitionInfo,
    reassignments: Mapping[TopicPartition, PartitionReassignment],
    min_insync: int,
    up: frozenset[int],
) -> PartitionView:
    moving = reassignments.get(partition)
    return PartitionView(
        partition,
        None if info.leader_id == NO_NODE else info.leader_id,
        info.replicas if moving is None else moving.replicas,
        info.in_sync,
        () if moving is None else moving.adding,
        () if moving is None else moving.removing,
        min_insync,
        (),
        tuple(one for one in info.offline if one in up),
        up,
    )


def as_json(view: ClusterView) -> dict[str, object]:
    """The whole view for programs."""
    return {
        "cluster_id": view.cluster_id,
        "controller_id": view.controller,
        "brokers": [
            {
                "id": one.broker,
                "host": one.host,
                "port": one.port,
                "rack": one.rack,
                "state": one.state,
                "leaders": one.leaders,
                "replicas": one.replicas,
                "failed": one.failed,
            }
            for one in view.brokers
        ],
        "partitions": len(view.partitions),
        "offline": _listed(one for one in view.partitions if one.is_offline),
        "under_min_isr": _listed(one for one in view.partitions if one.is_under_min_isr),
        "under_replicated": _listed(one for one in view.partitions if one.is_under_replicated),
        "failed": _listed(one for one in view.partitions if one.failed),
        "reassignments": _listed(one for one in view.partitions if one.is_moving),
    }


def _listed(partitions: Iterator[PartitionView]) -> list[dict[str, object]]:
    return [
        {
            "topic": one.partition.topic,
            "partition": one.partition.partition,
            "leader": one.leader,
            "replicas": one.replicas,
            "in_sync": one.in_sync,
            "adding": one.adding,
            "removing": one.removing,
            "min_insync": one.min_insync,
            "eligible": one.eligible,
            "failed": one.failed,
        }
        for one in partitions
    ]
