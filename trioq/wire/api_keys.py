"""The one table of APIs and versions: what is in it is served and documented, and advertised
unless it is for brokers among themselves.

Importing this module imports no message; their classes come at first use.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from trioq.wire.kinds import NEVER
from trioq.wire.schema import Message


class ApiKey(IntEnum):
    """Kafka's number of each API that trioq serves."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    CONTROLLED_SHUTDOWN = 7
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    DESCRIBE_LOG_DIRS = 35
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    DESCRIBE_TOPIC_PARTITIONS = 75


class Api(NamedTuple):
    """One API; versions are inclusive.

    `implemented_min` differs from the advertised `min_version` for Produce alone: old
    librdkafka does not compress for a broker that advertises a higher minimum than 0.
    `flexible_from` is the first version with compact lengths and tagged fields. What is not
    `advertised` is for brokers of one cluster, who know each other's versions.
    """

    key: ApiKey
    name: str
    min_version: int
    max_version: int
    flexible_from: int
    implemented_min: int
    advertised: bool = True

    def implements(self, version: int) -> bool:
        return self.implemented_min <= version <= self.max_version

    def is_flexible(self, version: int) -> bool:
        return version >= self.flexible_from

    @property
    def request_class(self) -> type[Message]:
        return _message_class(self.key, f"{self.name}Request")

    @property
    def response_class(self) -> type[Message]:
        return _message_class(self.key, f"{self.name}Response")


@functools.cache
def _message_class(key: ApiKey, name: str) -> type[Message]:
    module = importlib.import_module(f"trioq.wire.messages.{key.name.lower()}")
    found: type[Message] = getattr(module, name)
    return found


def _api(
    key: ApiKey,
    name: str,
    advertised: tuple[int, int],
    *,
    flexible: int,
    implemented_min: int | None = None,
) -> tuple[int, Api]:
    first, last = advertised
    return int(key), Api(
        key, name, first, last, flexible, first if implemented_min is None else implemented_min
    )


def _among_brokers(
    key: ApiKey, name: str, versions: tuple[int, int], *, flexible: int
) -> tuple[int, Api]:
    number, api = _api(key, name, versions, flexible=flexible)
    return number, api._replace(advertised=False)


APIS: Final[Mapping[int, Api]] = dict(
    (
        _api(ApiKey.PRODUCE, "Produce", (0, 11), flexible=9, implemented_min=3),
        _api(ApiKey.FETCH, "Fetch", (4, 16), flexible=12),
        _api(ApiKey.LIST_OFFSETS, "ListOffsets", (1, 8), flexible=6),
        _api(ApiKey.METADATA, "Metadata", (0, 13), flexible=9),
        _among_brokers(ApiKey.CONTROLLED_SHUTDOWN, "ControlledShutdown", (0, 3), flexible=3),
        _api(ApiKey.OFFSET_COMMIT, "OffsetCommit", (2, 9), flexible=8),
        _api(ApiKey.OFFSET_FETCH, "OffsetFetch", (1, 9), flexible=6),
        _api(ApiKey.FIND_COORDINATOR, "FindCoordinator", (0, 5), flexible=3),
        _api(ApiKey.JOIN_GROUP, "JoinGroup", (0, 9), flexible=6),
        _api(ApiKey.HEARTBEAT, "Heartbeat", (0, 4), flexible=4),
        _api(ApiKey.LEAVE_GROUP, "LeaveGroup", (0, 5), flexible=4),
        _api(ApiKey.SYNC_GROUP, "SyncGroup", (0, 5), flexible=4),
        _api(ApiKey.DESCRIBE_GROUPS, "DescribeGroups", (0, 6), flexible=5),
        _api(ApiKey.LIST_GROUPS, "ListGroups", (0, 5), flexible=3),
        _api(ApiKey.API_VERSIONS, "ApiVersions", (0, 4), flexible=3),
        _api(ApiKey.CREATE_TOPICS, "CreateTopics", (2, 7), flexible=5),
        _api(ApiKey.DELETE_TOPICS, "DeleteTopics", (1, 6), flexible=4),
        _api(ApiKey.DELETE_RECORDS, "DeleteRecords", (0, 2), flexible=2),
        _api(ApiKey.INIT_PRODUCER_ID, "InitProducerId", (0, 4), flexible=2),
        _api(ApiKey.OFFSET_FOR_LEADER_EPOCH, "OffsetForLeaderEpoch", (2, 4), flexible=4),
        _api(ApiKey.DESCRIBE_CONFIGS, "DescribeConfigs", (1, 4), flexible=4),
        _api(ApiKey.ALTER_CONFIGS, "AlterConfigs", (0, 2), flexible=2),
        _api(ApiKey.DESCRIBE_LOG_DIRS, "DescribeLogDirs", (1, 4), flexible=2),
        _api(ApiKey.CREATE_PARTITIONS, "CreatePartitions", (0, 3), flexible=2),
        _api(ApiKey.DELETE_GROUPS, "DeleteGroups", (0, 2), flexible=2),
        _api(ApiKey.ELECT_LEADERS, "ElectLeaders", (0, 2), flexible=2),
        _api(ApiKey.INCREMENTAL_ALTER_CONFIGS, "IncrementalAlterConfigs", (0, 1), flexible=1),
        _api(
            ApiKey.ALTER_PARTITION_REASSIGNMENTS, "AlterPartitionReassignments", (0, 0), flexible=0
        ),
        _api(ApiKey.LIST_PARTITION_REASSIGNMENTS, "ListPartitionReassignments", (0, 0), flexible=0),
        _api(ApiKey.OFFSET_DELETE, "OffsetDelete", (0, 0), flexible=NEVER),
        _api(ApiKey.DESCRIBE_CLUSTER, "DescribeCluster", (0, 1), flexible=0),
        _api(ApiKey.DESCRIBE_PRODUCERS, "DescribeProducers", (0, 0), flexible=0),
        _api(ApiKey.CONSUMER_GROUP_HEARTBEAT, "ConsumerGroupHeartbeat", (0, 1), flexible=0),
        _api(ApiKey.CONSUMER_GROUP_DESCRIBE, "ConsumerGroupDescribe", (0, 1), flexible=0),
        _api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, "DescribeTopicPartitions", (0, 0), flexible=0),
    )
)
"""Every API that is served, by its key."""


@functools.cache
def request_api(request_class: type[Message]) -> Api:
    """The row of the API that `request_class` belongs to; raises KeyError where there is none."""
    name = request_class.__name__.removesuffix("Request")
    return {api.name: api for api in APIS.values()}[name]
