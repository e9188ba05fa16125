"""Offsets by timestamp, and ends of leader epochs, asked of the leaders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple

from trioq.client.cluster import Cluster
from trioq.client.retry import retrying
from trioq.errors import ClientUsageError, KafkaError, LeaderNotAvailable, error_class
from trioq.types import TopicPartition
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
    ListOffsetsResponse,
)
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochRequestPartition,
    OffsetForLeaderEpochRequestTopic,
    OffsetForLeaderEpochResponse,
)

MAX_TIMESTAMP: Final = -3

_ISOLATION_FROM: Final = 2
_MAX_TIMESTAMP_FROM: Final = 7


class OffsetAndTimestamp(NamedTuple):
    """A record's offset and timestamp; offset -1 where there is none that late."""

    offset: int
    timestamp: int
    leader_epoch: int = -1


class TimestampQuery(NamedTuple):
    """What to ask of one partition's leader."""

    timestamp: int
    leader_epoch: int = -1


async def list_offsets(
    cluster: Cluster,
    node_id: int,
    queries: Mapping[TopicPartition, TimestampQuery],
    *,
    read_committed: bool,
) -> dict[TopicPartition, OffsetAndTimestamp | KafkaError]:
    """Ask one broker once for the offsets of partitions that it leads."""
    by_topic: dict[str, list[ListOffsetsRequestPartition]] = defaultdict(list)
    for (topic, number), query in queries.items():
        by_topic[topic].append(
            ListOffsetsRequestPartition(
                partition_index=number,
                current_leader_epoch=query.leader_epoch,
                timestamp=query.timestamp,
            )
        )
    at_least = _ISOLATION_FROM if read_committed else 0
    if any(query.timestamp == MAX_TIMESTAMP for query in queries.values()):
        at_least = _MAX_TIMESTAMP_FROM
    response = await cluster.call(
        node_id,
        ListOffsetsRequest(
            replica_id=-1,
            isolation_level=1 if read_committed else 0,
            topics=[
                ListOffsetsRequestTopic(name=topic, partitions=partitions)
                for topic, partitions in by_topic.items()
            ],
        ),
        ListOffsetsResponse,
        at_least=at_least,
    )
    return {
        TopicPartition(topic.name, one.partition_index): (
            error_class(one.error_code)()
            if one.error_code
            else OffsetAndTimestamp(one.offset, one.timestamp, one.leader_epoch)
        )
        for topic in response.topics
        for one in topic.partitions
    }


class EpochQuery(NamedTuple):
    """Where a leader epoch ends, and in which epoch we take the broker to be leader."""

    epoch: int
    leader_epoch: int


class EpochEnd(NamedTuple):
    """The largest epoch up to the one asked for, and the offset behind it; -1: unknown."""

    epoch: int
    end_offset: int


async def epoch_ends(
    cluster: Cluster, node_id: int, queries: Mapping[TopicPartition, EpochQuery]
) -> dict[TopicPartition, EpochEnd | KafkaError]:
    """Ask one broker once for the ends of leader epochs (KIP-320)."""
    by_topic: dict[str, list[OffsetForLeaderEpochRequestPartition]] = defaultdict(list)
    for (topic, number), query in queries.items():
        by_topic[topic].append(
            OffsetForLeaderEpochRequestPartition(
                partition=number,
                current_leader_epoch=query.leader_epoch,
                leader_epoch=query.epoch,
            )
        )
    response = await cluster.call(
        node_id,
        OffsetForLeaderEpochRequest(
            replica_id=-1,
            topics=[
                OffsetForLeaderEpochRequestTopic(topic=topic, partitions=partitions)
                for topic, partitions in by_topic.items()
            ],
        ),
        OffsetForLeaderEpochResponse,
    )
    return {
        TopicPartition(topic.topic, one.partition): (
            error_class(one.error_code)()
            if one.error_code
            else EpochEnd(one.leader_epoch, one.end_offset)
        )
        for topic in response.topics
        for one in topic.partitions
    }


async def offsets_at(
    cluster: Cluster,
    queries: Mapping[TopicPartition, int],
    *,
    read_committed: bool = False,
) -> dict[TopicPartition, OffsetAndTimestamp]:
    """The offsets of partitions at timestamps (EARLIEST, LATEST, MAX_TIMESTAMP among them).

    Asks leaders anew where they moved. Raises the error of the first partition that has one
    after the client's call timeout, and what is not retriable at once.
    """
    found: dict[TopicPartition, OffsetAndTimestamp] = {}

    async def attempt() -> None:
        missing = [partition for partition in queries if partition not in found]
        by_node: dict[int, dict[TopicPartition, TimestampQuery]] = defaultdict(dict)
        for partition in missing:
            topic = await cluster.metadata.topic(partition.topic)
            _check_exists(partition, len(topic.partitions))
            info = cluster.metadata.leader(*partition)
            if info is None:
                await cluster.metadata.refreshed()
                raise LeaderNotAvailable(f"{partition} has no leader at the moment")
            query = TimestampQuery(queries[partition], info.leader_epoch)
            by_node[info.leader_id][partition] = query
        failure: KafkaError | None = None
        for node_id, one in by_node.items():
            answers = await list_offsets(cluster, node_id, one, read_committed=read_committed)
            for partition, answer in answers.items():
                if isinstance(answer, KafkaError):
                    failure = type(answer)(f"offsets of {partition}: {answer}")
                else:
                    found[partition] = answer
        if failure is not None:
            await cluster.metadata.refreshed()
            raise failure

    await retrying(
        attempt,
        what="asking for offsets",
        timeout_s=cluster.settings.call_timeout_s,
        backoff=cluster.backoff,
    )
    return found


def _check_exists(partition: TopicPartition, count: int) -> None:
    if not 0 <= partition.partition < count:
        raise ClientUsageError(f"{partition} does not exist: the topic has {count} partitions")
