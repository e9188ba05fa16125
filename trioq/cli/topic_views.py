"""What `trioq topic` shows of topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trioq.client.admin import Admin
from trioq.client.client import Client
from trioq.client.cluster_state import NO_NODE, PartitionInfo
from trioq.storage.identity import format_id
from trioq.types import TopicId, TopicPartition


class PartitionView(NamedTuple):
    """A partition as `trioq topic describe` shows it; None where there is no leader to ask."""

    partition: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    start_offset: int | None
    end_offset: int | None


class TopicInfo(NamedTuple):
    """A topic as `trioq topic list` shows it."""

    name: str
    topic_id: str
    partitions: int
    replication_factor: int
    internal: bool


class TopicView(NamedTuple):
    """A topic as `trioq topic describe` shows it."""

    info: TopicInfo
    configs: Mapping[str, str | None]
    """The keys that the topic sets itself."""

    partitions: list[PartitionView]


async def listed(client: Client) -> list[TopicInfo]:
    """Every topic, by name."""
    names = await client.admin.list_topics(include_internal=True)
    known = client.cluster.metadata.state.topics
    return [
        _info(name, known[name].topic_id, known[name].partitions, known[name].is_internal)
        for name in names
    ]


async def described(admin: Admin, names: Sequence[str]) -> list[TopicView]:
    """The topics of these names; raises UnknownTopicOrPartition."""
    return [await _described(admin, name) for name in names]


async def _described(admin: Admin, name: str) -> TopicView:
    topic = await admin.describe_topic(name)
    configs = await admin.topic_configs(name)
    led = [
        TopicPartition(name, one.partition) for one in topic.partitions if one.leader_id != NO_NODE
    ]
    starts, ends = await admin.beginning_offsets(led), await admin.end_offsets(led)
    return TopicView(
        _info(name, topic.topic_id, topic.partitions, topic.is_internal),
        {key: entry.value for key, entry in configs.items() if entry.source == "topic"},
        [
            PartitionView(
                one.partition,
                None if one.leader_id == NO_NODE else one.leader_id,
                one.replicas,
                one.in_sync,
                starts.get(TopicPartition(name, one.partition)),
                ends.get(TopicPartition(name, one.partition)),
            )
            for one in topic.partitions
        ],
    )


def _info(
    name: str, topic_id: TopicId, partitions: Sequence[PartitionInfo], is_internal: bool
) -> TopicInfo:
    replicas = max((len(one.replicas) for one in partitions), default=0)
    return TopicInfo(name, format_id(topic_id), len(partitions), replicas, is_internal)
