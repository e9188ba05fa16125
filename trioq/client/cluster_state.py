"""What a client knows of the cluster. Pure: no I/O, no clock.

Knowledge comes in responses that may be old: a leader of a lower epoch never replaces one of
a higher, unless the topic is another one by its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trioq.client.address import HostPort
from trioq.errors import UnknownTopicOrPartition
from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.messages.metadata import MetadataResponse, MetadataResponseTopic

NO_NODE = -1


class Node(NamedTuple):
    """A broker as the cluster advertises it."""

    node_id: int
    address: HostPort
    rack: str | None


class PartitionInfo(NamedTuple):
    """One partition; `leader_id` is NO_NODE while there is no leader."""

    partition: int
    leader_id: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    offline: tuple[int, ...]


class TopicInfo(NamedTuple):
    """A topic; with an `error_code` it has no partitions that are worth anything."""

    name: str
    topic_id: TopicId
    is_internal: bool
    error_code: int
    partitions: tuple[PartitionInfo, ...]
    """By number, without gaps."""


class ClusterState:
    """Brokers, topics and leaders as of the last responses.

    `generation` rises with every change that a router of records may care about.
    """

    def __init__(self) -> None:
        self.nodes: Mapping[int, Node] = {}
        self.topics: dict[str, TopicInfo] = {}
        self.topic_names: dict[TopicId, str] = {}
        self.cluster_id: str | None = None
        self.controller_id = NO_NODE
        self.generation = 0

    def apply(self, response: MetadataResponse, asked: Iterable[str] | None) -> None:
        """Take up a response; `asked` are the topics that it was asked for, None for all.

        Topics that were asked for and do not come with it are unknown.
        """
        self.generation += 1
        self.nodes = {
            broker.node_id: Node(broker.node_id, HostPort(broker.host, broker.port), broker.rack)
            for broker in response.brokers
        }
        self.cluster_id = response.cluster_id
        self.controller_id = response.controller_id
        came = {topic.name: topic for topic in response.topics if topic.name is not None}
        for name in self.topics.keys() - came.keys() if asked is None else set(asked) - came.keys():
            self._put(
                TopicInfo(name, ZERO_TOPIC_ID, False, UnknownTopicOrPartition.code, ()),
            )
        for topic in came.values():
            self._put(self._merged(topic))

    def _merged(self, topic: MetadataResponseTopic) -> TopicInfo:
        name = topic.name or ""
        known = self.topics.get(name)
        if known is not None and known.topic_id != topic.topic_id:
            known = None
        partitions = []
        for position, fresh in enumerate(sorted(topic.partitions, key=lambda p: p.partition_index)):
            if fresh.partition_index != position:
                break  # a response with a hole: what is behind it cannot be routed to
            leader_id, leader_epoch = fresh.leader_id, fresh.leader_epoch
            if known is not None and position < len(known.partitions):
                older = known.partitions[position]
                if leader_epoch < older.leader_epoch and leader_epoch >= 0:
                    leader_id, leader_epoch = older.leader_id, older.leader_epoch
            partitions.append(
                PartitionInfo(
                    position,
                    leader_id if leader_id in self.nodes else NO_NODE,
                    leader_epoch,
                    tuple(fresh.replica_nodes),
                    tuple(fresh.isr_nodes),
                    tuple(fresh.offline_replicas),
                )
            )
        error_code = topic.error_code
        if not partitions and not error_code:
            error_code = UnknownTopicOrPartition.code
        return TopicInfo(name, topic.topic_id, topic.is_internal, error_code, tuple(partitions))

    def _put(self, topic: TopicInfo) -> None:
        known = self.topics.get(topic.name)
        if known is not None and known.topic_id != topic.topic_id:
            self.topic_names.pop(known.topic_id, None)
        self.topics[topic.name] = topic
        if topic.topic_id != ZERO_TOPIC_ID:
            self.topic_names[topic.topic_id] = topic.name

    def forget(self, name: str) -> None:
        """Drop a topic that nobody asks for any more."""
        topic = self.topics.pop(name, None)
        if topic is not None:
            self.topic_names.pop(topic.topic_id, None)

    def leader(self, name: str, partition: int) -> PartitionInfo | None:
        """The partition if it has a leader that is known; else None."""
        topic = self.topics.get(name)
        if topic is None or partition >= len(topic.partitions):
            return None
        info = topic.partitions[partition]
        return info if info.leader_id != NO_NODE else None

    def move_leader(
        self, name: str, partition: int, leader_id: int, leader_epoch: int, node: Node | None
    ) -> bool:
        """Take up a leader that another response named (KIP-951); `node` is its endpoint if given.

        True if that was news: the epoch is higher and the node is known.
        """
        topic = self.topics.get(name)
        if topic is None or partition >= len(topic.partitions):
            return False
        info = topic.partitions[partition]
        if leader_epoch <= info.leader_epoch:
            return False
        if node is not None and node.node_id == leader_id:
            self.nodes = {**self.nodes, leader_id: node}
        if leader_id not in self.nodes:
            return False
        partitions = list(topic.partitions)
        partitions[partition] = info._replace(leader_id=leader_id, leader_epoch=leader_epoch)
        self.topics[name] = topic._replace(partitions=tuple(partitions))
        self.generation += 1
        return True

    def lose_leader(self, name: str, partition: int, leader_id: int) -> None:
        """Note that `leader_id` is not the leader (any more), until a response names one."""
        topic = self.topics.get(name)
        if topic is None or partition >= len(topic.partitions):
            return
        info = topic.partitions[partition]
        if info.leader_id == leader_id:
            partitions = list(topic.partitions)
            partitions[partition] = info._replace(leader_id=NO_NODE)
            self.topics[name] = topic._replace(partitions=tuple(partitions))
            self.generation += 1
