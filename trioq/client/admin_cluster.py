"""Brokers, their configuration and their disks, for `client.admin`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from trioq.client.admin_call import AdminCalls, check
from trioq.client.cluster_state import NO_NODE, Node
from trioq.errors import UnknownTopicOrPartition, UnsupportedByBroker
from trioq.types import TopicPartition
from trioq.wire.messages.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from trioq.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsRequestResource,
    DescribeConfigsResponse,
    DescribeConfigsResponseResource,
)
from trioq.wire.messages.describe_log_dirs import DescribeLogDirsRequest, DescribeLogDirsResponse
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource,
    IncrementalAlterConfigsResponse,
)

_TOPIC: Final = 2
_BROKER: Final = 4
_TOPICS_AT_ONCE: Final = 200


class _Operation(IntEnum):
    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


_SOURCES: Final = {
    1: "topic",
    2: "broker",
    3: "broker default",
    4: "broker file",
    5: "default",
    6: "broker logger",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescription:
    """A cluster as its brokers see it."""

    cluster_id: str | None
    controller_id: int | None
    brokers: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """One configuration key and where its value comes from."""

    name: str
    value: str | None
    """None where it is secret."""

    source: str
    """topic, broker, broker default, broker file or default."""

    is_read_only: bool
    is_sensitive: bool
    documentation: str | None

    @property
    def is_default(self) -> bool:
        """Nobody set it."""
        return self.source == _SOURCES[5]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDirDescription:
    """A log directory of one broker."""

    path: str
    total_bytes: int | None
    usable_bytes: int | None
    partitions: Mapping[TopicPartition, int]
    """The size of each log in bytes."""


class ClusterAdmin(AdminCalls):
    """The part of Admin for brokers and configuration."""

    async def describe_cluster(self) -> ClusterDescription:
        """The cluster as of now.

        `controller_id` is None where a broker says that it knows of none that acts: metadata name
        another broker as a place for requests then, so an older broker is believed them.
        """
        metadata = self._cluster.metadata
        await self._repeat(metadata.refreshed, "describing the cluster", None)
        state = metadata.state
        controller_id = state.controller_id
        try:
            told = await self._on_any(
                DescribeClusterRequest(), DescribeClusterResponse, "describing the cluster", None
            )
        except UnsupportedByBroker:
            pass
        else:
            check(told.error_code, "describing the cluster", told.error_message)
            controller_id = told.controller_id
        return ClusterDescription(
            cluster_id=state.cluster_id,
            controller_id=None if controller_id == NO_NODE else controller_id,
            brokers=tuple(state.nodes[node_id] for node_id in sorted(state.nodes)),
        )

    async def topic_configs(
        self, topic: str, *, timeout_ms: int | None = None
    ) -> dict[str, ConfigEntry]:
        """The configuration of a topic, by key."""
        return await self._configs(_TOPIC, topic, None, timeout_ms)

    async def topics_configs(
        self,
        topics: Iterable[str],
        *,
        keys: Iterable[str] | None = None,
        timeout_ms: int | None = None,
    ) -> dict[str, dict[str, ConfigEntry]]:
        """The configuration of several topics, by topic and key; only `keys` if given.

        Topics that do not exist (any more) are left out.
        """
        names, wanted = list(topics), None if keys is None else list(keys)
        found: dict[str, dict[str, ConfigEntry]] = {}
        for start in range(0, len(names), _TOPICS_AT_ONCE):
            resources = [
                DescribeConfigsRequestResource(
                    resource_type=_TOPIC, resource_name=name, configuration_keys=wanted
                )
                for name in names[start : start + _TOPICS_AT_ONCE]
            ]
            what = "reading the configuration of topics"
            response = await self._on_any(
                DescribeConfigsRequest(resources=resources),
                DescribeConfigsResponse,
                what,
                timeout_ms,
            )
            for result in response.results:
                if result.error_code != UnknownTopicOrPartition.code:
                    check(result.error_code, what, result.error_message)
                    found[result.resource_name] = _entries(result)
        return found

    async def broker_configs(
        self, broker_id: int | None = None, *, timeout_ms: int | None = None
    ) -> dict[str, ConfigEntry]:
        """The configuration of a broker, or what was set for all of them."""
        name = "" if broker_id is None else str(broker_id)
        return await self._configs(_BROKER, name, broker_id, timeout_ms)

    async def alter_topic_configs(
        self,
        topic: str,
        *,
        set_to: Mapping[str, str] | None = None,
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        validate_only: bool = False,
        timeout_ms: int | None = None,
    ) -> None:
        """Change keys of a topic; the others stay. Raises InvalidConfig, UnknownTopic..., ...

        `delete` returns keys to their default; `append` and `subtract` are for lists.
        """
        changes = _changes(set_to, delete, append, subtract)
        await self._alter(_TOPIC, topic, None, changes, validate_only, timeout_ms)

    async def alter_broker_configs(
        self,
        broker_id: int | None = None,
        *,
        set_to: Mapping[str, str] | None = None,
        delete: Iterable[str] = (),
        append: Mapping[str, str] | None = None,
        subtract: Mapping[str, str] | None = None,
        validate_only: bool = False,
        timeout_ms: int | None = None,
    ) -> None:
        """Change keys of a broker, or of all of them; as `alter_topic_configs`."""
        changes = _changes(set_to, delete, append, subtract)
        name = "" if broker_id is None else str(broker_id)
        await self._alter(_BROKER, name, broker_id, changes, validate_only, timeout_ms)

    async def describe_log_dirs(
        self, broker_ids: Iterable[int] | None = None, *, timeout_ms: int | None = None
    ) -> dict[int, list[LogDirDescription]]:
        """The log directories of these brokers, or of all; raises where one has failed."""
        cluster = self._cluster
        if broker_ids is None:
            await self._repeat(cluster.metadata.refreshed, "finding the brokers", timeout_ms)
        wanted = list(cluster.metadata.state.nodes if broker_ids is None else broker_ids)

        async def ask(node_id: int) -> list[LogDirDescription]:
            what = f"describing the log directories of broker {node_id}"
            response = await self._on_any(
                DescribeLogDirsRequest(topics=None),
                DescribeLogDirsResponse,
                what,
                timeout_ms,
                node_id=node_id,
            )
            check(response.error_code, what)
            described = []
            for one in response.results:
                check(one.error_code, f"log directory {one.log_dir} of broker {node_id}")
                described.append(
                    LogDirDescription(
                        path=one.log_dir,
                        total_bytes=one.total_bytes if one.total_bytes >= 0 else None,
                        usable_bytes=one.usable_bytes if one.usable_bytes >= 0 else None,
                        partitions={
                            TopicPartition(topic.name, log.partition_index): log.partition_size
                            for topic in one.topics
                            for log in topic.partitions
                        },
                    )
                )
            return described

        return await self._everywhere(ask, wanted)

    async def _configs(
        self, kind: int, name: str, node_id: int | None, timeout_ms: int | None
    ) -> dict[str, ConfigEntry]:
        what = f"reading the configuration of {_called(kind, name)}"
        resource = DescribeConfigsRequestResource(
            resource_type=kind, resource_name=name, configuration_keys=None
        )
        response = await self._on_any(
            DescribeConfigsRequest(resources=[resource]),
            DescribeConfigsResponse,
            what,
            timeout_ms,
            node_id=node_id,
        )
        (result,) = response.results
        check(result.error_code, what, result.error_message)
        return _entries(result)

    async def _alter(
        self,
        kind: int,
        name: str,
        node_id: int | None,
        changes: list[IncrementalAlterConfigsRequestConfig],
        validate_only: bool,
        timeout_ms: int | None,
    ) -> None:
        what = f"changing the configuration of {_called(kind, name)}"
        resource = IncrementalAlterConfigsRequestResource(
            resource_type=kind, resource_name=name, configs=changes
        )
        request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)

        def read(response: IncrementalAlterConfigsResponse, _maybe_done: bool) -> None:
            (result,) = response.responses
            check(result.error_code, what, result.error_message)

        if node_id is None:
            await self._on_controller(
                request, IncrementalAlterConfigsResponse, read, what, timeout_ms
            )
            return
        response = await self._on_any(
            request, IncrementalAlterConfigsResponse, what, timeout_ms, node_id=node_id
        )
        read(response, False)


def _entries(result: DescribeConfigsResponseResource) -> dict[str, ConfigEntry]:
    return {
        one.name: ConfigEntry(
            name=one.name,
            value=one.value,
            source=_SOURCES.get(one.config_source, "unknown"),
            is_read_only=one.read_only,
            is_sensitive=one.is_sensitive,
            documentation=one.documentation,
        )
        for one in result.configs
    }


def _called(kind: int, name: str) -> str:
    if kind == _TOPIC:
        return f"topic {name!r}"
    return f"broker {name}" if name else "all brokers"


def _changes(
    set_to: Mapping[str, str] | None,
    delete: Iterable[str],
    append: Mapping[str, str] | None,
    subtract: Mapping[str, str] | None,
) -> list[IncrementalAlterConfigsRequestConfig]:
    wanted = [(key, _Operation.SET, value) for key, value in (set_to or {}).items()]
    wanted += [(key, _Operation.APPEND, value) for key, value in (append or {}).items()]
    wanted += [(key, _Operation.SUBTRACT, value) for key, value in (subtract or {}).items()]
    changes = [
        IncrementalAlterConfigsRequestConfig(name=key, config_operation=operation, value=value)
        for key, operation, value in wanted
    ]
    changes += [
        IncrementalAlterConfigsRequestConfig(name=key, config_operation=_Operation.DELETE)
        for key in delete
    ]
    return changes
