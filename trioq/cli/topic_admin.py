"""What `trioq topic` asks of a broker, as plain calls over an AdminConnection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from trioq.cli.admin_connection import AdminConnection, AdminError, HostPort, connect
from trioq.config.key import Scope, Source
from trioq.errors import NotController, UnknownTopicOrPartition, error_class
from trioq.types import ZERO_TOPIC_ID, TopicId
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsRequestTopic,
    CreatePartitionsResponse,
)
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsRequestTopic,
    DeleteTopicsResponse,
)
from trioq.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsRequestResource,
    DescribeConfigsResponse,
)
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource,
    IncrementalAlterConfigsResponse,
)
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
    ListOffsetsResponse,
)
from trioq.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
)

EARLIEST: Final = -2
LATEST: Final = -1
_SET: Final = 0
_DELETE: Final = 1
_RETRY_PAUSE_S: Final = 0.2


class PartitionInfo(NamedTuple):
    """A partition as `trioq topic describe` shows it; an offset is None where nobody told it."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    start_offset: int | None
    end_offset: int | None


class TopicInfo(NamedTuple):
    """A topic as `trioq topic list` shows it."""

    name: str
    topic_id: TopicId
    partitions: int
    replication_factor: int
    internal: bool


class TopicDetails(NamedTuple):
    """A topic as `trioq topic describe` shows it."""

    info: TopicInfo
    config: Mapping[str, str]
    """The keys that the topic sets itself."""

    partitions: tuple[PartitionInfo, ...]


class TopicAdmin:
    """Topic operations; changes go to the controller. Every call raises AdminError on refusal."""

    def __init__(
        self,
        bootstrap: Sequence[HostPort],
        *,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._connection = connect(bootstrap, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def create(
        self,
        name: str,
        *,
        partitions: int,
        replication_factor: int,
        config: Mapping[str, str],
    ) -> None:
        """Create a topic; -1 stands for the broker's default number."""
        request = CreateTopicsRequest(
            topics=[
                CreateTopicsRequestTopic(
                    name=name,
                    num_partitions=partitions,
                    replication_factor=replication_factor,
                    configs=[
                        CreateTopicsRequestConfig(name=key, value=value)
                        for key, value in config.items()
                    ],
                )
            ],
            timeout_ms=self._timeout_ms,
        )

        def attempt() -> tuple[int, str | None]:
            response = self._connection.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse)
            return response.topics[0].error_code, response.topics[0].error_message

        self._until_accepted(f"topic {name} was not created", attempt)

    def delete(self, name: str) -> None:
        """Delete a topic and its data."""
        request = DeleteTopicsRequest(
            topics=[DeleteTopicsRequestTopic(name=name)],
            topic_names=[name],
            timeout_ms=self._timeout_ms,
        )

        def attempt() -> tuple[int, str | None]:
            response = self._connection.ask(ApiKey.DELETE_TOPICS, request, DeleteTopicsResponse)
            return response.responses[0].error_code, response.responses[0].error_message

        self._until_accepted(f"topic {name} was not deleted", attempt)

    def add_partitions(self, name: str, total: int) -> None:
        """Raise the number of partitions to `total`."""
        request = CreatePartitionsRequest(
            topics=[CreatePartitionsRequestTopic(name=name, count=total, assignments=None)],
            timeout_ms=self._timeout_ms,
        )

        def attempt() -> tuple[int, str | None]:
            response = self._connection.ask(
                ApiKey.CREATE_PARTITIONS, request, CreatePartitionsResponse
            )
            return response.results[0].error_code, response.results[0].error_message

        self._until_accepted(f"topic {name} has its partitions as before", attempt)

    def alter_config(self, name: str, changed: Mapping[str, str], removed: Sequence[str]) -> None:
        """Set some of the topic's own keys and remove others, all or none."""
        configs = [
            IncrementalAlterConfigsRequestConfig(name=key, config_operation=_SET, value=value)
            for key, value in changed.items()
        ] + [
            IncrementalAlterConfigsRequestConfig(name=key, config_operation=_DELETE, value=None)
            for key in removed
        ]
        request = IncrementalAlterConfigsRequest(
            resources=[
                IncrementalAlterConfigsRequestResource(
                    resource_type=Scope.TOPIC, resource_name=name, configs=configs
                )
            ]
        )

        def attempt() -> tuple[int, str | None]:
            response = self._connection.ask(
                ApiKey.INCREMENTAL_ALTER_CONFIGS, request, IncrementalAlterConfigsResponse
            )
            return response.responses[0].error_code, response.responses[0].error_message

        self._until_accepted(f"topic {name} is configured as before", attempt)

    def topics(self) -> list[TopicInfo]:
        """Every topic, by name."""
        found = [_topic_info(topic) for topic in self._metadata(None).topics]
        return sorted(found, key=lambda topic: topic.name)

    def describe(self, name: str) -> TopicDetails:
        """One topic with its own configuration and its partitions."""
        metadata = self._metadata(name)
        topic = metadata.topics[0]
        _raise_for(f"topic {name} cannot be described", topic.error_code, None)
        offsets = self._offsets(name, metadata)
        partitions = tuple(
            PartitionInfo(
                partition.partition_index,
                partition.leader_id,
                tuple(partition.replica_nodes),
                tuple(partition.isr_nodes),
                *offsets.get(partition.partition_index, (None, None)),
            )
            for partition in sorted(topic.partitions, key=lambda p: p.partition_index)
        )
        return TopicDetails(_topic_info(topic), self._own_config(name), partitions)

    @property
    def _timeout_ms(self) -> int:
        return int(self._timeout_s * 1000)

    def _metadata(self, name: str | None) -> MetadataResponse:
        topics = None if name is None else [MetadataRequestTopic(name=name)]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        return self._connection.ask(ApiKey.METADATA, request, MetadataResponse)

    def _own_config(self, name: str) -> dict[str, str]:
        request = DescribeConfigsRequest(
            resources=[
                DescribeConfigsRequestResource(
                    resource_type=Scope.TOPIC, resource_name=name, configuration_keys=None
                )
            ]
        )
        response = self._connection.ask(ApiKey.DESCRIBE_CONFIGS, request, DescribeConfigsResponse)
        result = response.results[0]
        _raise_for(
            f"the configuration of {name} cannot be read", result.error_code, result.error_message
        )
        return {
            config.name: config.value or ""
            for config in result.configs
            if config.config_source == Source.TOPIC
        }

    def _offsets(
        self, name: str, metadata: MetadataResponse
    ) -> dict[int, tuple[int | None, int | None]]:
        """Start and end offset of each partition, asked of the partition's leader."""
        brokers = {
            broker.node_id: HostPort(broker.host, broker.port) for broker in metadata.brokers
        }
        led: dict[int, list[int]] = {}
        for partition in metadata.topics[0].partitions:
            if partition.leader_id in brokers:
                led.setdefault(partition.leader_id, []).append(partition.partition_index)
        offsets: dict[int, tuple[int | None, int | None]] = {}
        for leader, partitions in led.items():
            with connect([brokers[leader]], timeout_s=self._timeout_s) as connection:
                starts = _listed_offsets(connection, name, partitions, EARLIEST)
                ends = _listed_offsets(connection, name, partitions, LATEST)
            for partition_index in partitions:
                offsets[partition_index] = starts.get(partition_index), ends.get(partition_index)
        return offsets

    def _until_accepted(self, failure: str, attempt: Callable[[], tuple[int, str | None]]) -> None:
        """Run `attempt` until it succeeds, following the controller where it moves."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            code, message = attempt()
            if code != NotController.code or time.monotonic() >= deadline:
                _raise_for(failure, code, message)
                return
            self._sleep(_RETRY_PAUSE_S)
            self._follow_controller()

    def _follow_controller(self) -> None:
        metadata = self._metadata("")
        for broker in metadata.brokers:
            if broker.node_id == metadata.controller_id:
                address = HostPort(broker.host, broker.port)
                self._connection.close()
                self._connection = connect([address], timeout_s=self._timeout_s)


def _listed_offsets(
    connection: AdminConnection, name: str, partitions: Sequence[int], timestamp: int
) -> dict[int, int]:
    request = ListOffsetsRequest(
        replica_id=-1,
        topics=[
            ListOffsetsRequestTopic(
                name=name,
                partitions=[
                    ListOffsetsRequestPartition(partition_index=index, timestamp=timestamp)
                    for index in partitions
                ],
            )
        ],
    )
    response = connection.ask(ApiKey.LIST_OFFSETS, request, ListOffsetsResponse)
    return {
        partition.partition_index: partition.offset
        for partition in response.topics[0].partitions
        if partition.error_code == 0
    }


def _topic_info(topic: MetadataResponseTopic) -> TopicInfo:
    replicas = max((len(partition.replica_nodes) for partition in topic.partitions), default=0)
    return TopicInfo(
        topic.name or "",
        topic.topic_id or ZERO_TOPIC_ID,
        len(topic.partitions),
        replicas,
        topic.is_internal,
    )


def _raise_for(failure: str, code: int, message: str | None) -> None:
    if code == 0:
        return
    error = error_class(code)
    if code == UnknownTopicOrPartition.code:
        message = "there is no such topic; `trioq topic list` shows those there are"
    raise AdminError(f"{failure}: {message or error()} ({error.kafka_name})", code)
