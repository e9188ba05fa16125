"""Topics of a broker in a test, by blocking calls: created, and how far their partitions go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from trioq.errors import NotController, UnknownTopicOrPartition, error_class
from trioq.testing.blocking_connection import AdminError, BlockingConnection
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
    ListOffsetsResponse,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

_EARLIEST: Final = -2
_LATEST: Final = -1
_RETRY_PAUSE_S: Final = 0.2


class Extent(NamedTuple):
    """From which offset to before which the records of a partition are."""

    start_offset: int
    end_offset: int


def create_topic(
    connection: BlockingConnection,
    name: str,
    partitions: int,
    config: Mapping[str, str],
    *,
    timeout_s: float,
) -> None:
    """Create a topic on the only broker, waiting until it is the controller; raises AdminError."""
    request = CreateTopicsRequest(
        topics=[
            CreateTopicsRequestTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=1,
                configs=[
                    CreateTopicsRequestConfig(name=key, value=value)
                    for key, value in config.items()
                ],
            )
        ],
        timeout_ms=int(timeout_s * 1000),
    )
    deadline = time.monotonic() + timeout_s
    while True:
        (topic,) = connection.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse).topics
        if topic.error_code != NotController.code or time.monotonic() >= deadline:
            break
        time.sleep(_RETRY_PAUSE_S)
    _raise_for(f"topic {name} was not created", topic.error_code, topic.error_message)


def extents(connection: BlockingConnection, topic: str) -> dict[int, Extent]:
    """The extent of each partition, of which the broker is the leader; raises AdminError."""
    request = MetadataRequest(
        topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
    )
    (found,) = connection.ask(ApiKey.METADATA, request, MetadataResponse).topics
    _raise_for(f"topic {topic} cannot be described", found.error_code, None)
    numbers = [one.partition_index for one in found.partitions]
    starts = _offsets(connection, topic, numbers, _EARLIEST)
    ends = _offsets(connection, topic, numbers, _LATEST)
    return {number: Extent(starts.get(number, 0), ends.get(number, 0)) for number in numbers}


def _offsets(
    connection: BlockingConnection, topic: str, numbers: list[int], timestamp: int
) -> dict[int, int]:
    request = ListOffsetsRequest(
        replica_id=-1,
        topics=[
            ListOffsetsRequestTopic(
                name=topic,
                partitions=[
                    ListOffsetsRequestPartition(partition_index=number, timestamp=timestamp)
                    for number in numbers
                ],
            )
        ],
    )
    response = connection.ask(ApiKey.LIST_OFFSETS, request, ListOffsetsResponse)
    return {
        one.partition_index: one.offset
        for one in response.topics[0].partitions
        if one.error_code == 0
    }


def _raise_for(failure: str, code: int, message: str | None) -> None:
    if code == 0:
        return
    error = error_class(code)
    if code == UnknownTopicOrPartition.code:
        message = "there is no such topic"
    raise AdminError(f"{failure}: {message or error()} ({error.kafka_name})", code)
