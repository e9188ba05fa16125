"""What a fetcher asks on the wire, and what its leader says of where its logs begin and end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Final

from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestForgottenTopic,
    FetchRequestPartition,
    FetchRequestReplicaState,
    FetchRequestTopic,
)
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

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.replication.fetcher_state import FetchPlan
    from trioq.replication.replica import Replica
    from trioq.types import TopicId

FETCH_VERSION: Final = 16
LIST_OFFSETS_VERSION: Final = 8
EPOCH_VERSION: Final = 4

EARLIEST: Final = -2
NO_ERROR: Final = 0


def fetch_request(plan: FetchPlan, config: BrokerConfig, broker_epoch: int) -> FetchRequest:
    """One fetch of broker `config.node_id`, registered under `broker_epoch`."""
    session = plan.session
    topics: dict[TopicId, FetchRequestTopic] = {}
    for (topic_id, number), at in session.asked:
        topic = topics.get(topic_id)
        if topic is None:
            topic = topics[topic_id] = FetchRequestTopic(topic_id=topic_id)
        topic.partitions.append(
            FetchRequestPartition(
                partition=number,
                current_leader_epoch=at.leader_epoch,
                fetch_offset=at.fetch_offset,
                last_fetched_epoch=at.last_fetched_epoch,
                log_start_offset=at.log_start_offset,
                partition_max_bytes=config.replica_fetch_max_bytes,
            )
        )
    forgotten: dict[TopicId, FetchRequestForgottenTopic] = {}
    for topic_id, number in session.forgotten:
        if topic_id not in forgotten:
            forgotten[topic_id] = FetchRequestForgottenTopic(topic_id=topic_id)
        forgotten[topic_id].partitions.append(number)
    return FetchRequest(
        replica_state=FetchRequestReplicaState(
            replica_id=config.node_id, replica_epoch=broker_epoch
        ),
        max_wait_ms=round(plan.wait_s * 1000),
        min_bytes=config.replica_fetch_min_bytes,
        max_bytes=config.replica_fetch_response_max_bytes,
        session_id=session.session_id,
        session_epoch=session.epoch,
        topics=list(topics.values()),
        forgotten_topics_data=list(forgotten.values()),
    )


def _by_topic(partitions: Iterable[Replica]) -> Iterable[tuple[str, list[Replica]]]:
    ordered = sorted(partitions, key=lambda one: one.topic_partition)
    for topic, ones in groupby(ordered, key=lambda one: one.topic_partition.topic):
        yield topic, list(ones)


def starts_request(partitions: Iterable[Replica], replica_id: int) -> ListOffsetsRequest:
    """Where the leader's logs begin."""
    return ListOffsetsRequest(
        replica_id=replica_id,
        topics=[
            ListOffsetsRequestTopic(
                name=topic,
                partitions=[
                    ListOffsetsRequestPartition(
                        partition_index=one.topic_partition.partition,
                        current_leader_epoch=one.leader_epoch,
                        timestamp=EARLIEST,
                    )
                    for one in ones
                ],
            )
            for topic, ones in _by_topic(partitions)
        ],
    )


def ends_request(partitions: Iterable[Replica], replica_id: int) -> OffsetForLeaderEpochRequest:
    """Where the leader's own epochs end, which is where its logs do."""
    return OffsetForLeaderEpochRequest(
        replica_id=replica_id,
        topics=[
            OffsetForLeaderEpochRequestTopic(
                topic=topic,
                partitions=[
                    OffsetForLeaderEpochRequestPartition(
                        partition=one.topic_partition.partition,
                        current_leader_epoch=one.leader_epoch,
                        leader_epoch=one.leader_epoch,
                    )
                    for one in ones
                ],
            )
            for topic, ones in _by_topic(partitions)
        ],
    )


def starts_of(response: ListOffsetsResponse) -> dict[tuple[str, int], int]:
    """Of each partition, by topic name and number, where its log begins; errors are left out."""
    return {
        (topic.name, one.partition_index): one.offset
        for topic in response.topics
        for one in topic.partitions
        if one.error_code == NO_ERROR and one.offset >= 0
    }


def ends_of(response: OffsetForLeaderEpochResponse) -> dict[tuple[str, int], int]:
    """Of each partition, by topic name and number, where its log ends; errors are left out."""
    return {
        (topic.topic, one.partition): one.end_offset
        for topic in response.topics
        for one in topic.partitions
        if one.error_code == NO_ERROR and one.end_offset >= 0
    }
