"""Handlers that change topics, configuration and records; and the one that gives producer ids.

What they hand to the parts below, and what they make of the answers. The rules themselves
are tested with TopicAdmin and Partition.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from trioq.clock import ManualClock
from trioq.config import BrokerConfig
from trioq.controller.config_admin import ConfigResult
from trioq.controller.config_changes import ConfigChange, ConfigResource
from trioq.controller.topic_rules import NewPartitions, NewTopic
from trioq.controller.topics import CreatedTopic, DeletedTopic, GrownTopic
from trioq.errors import (
    InvalidConfig,
    InvalidPartitions,
    KafkaError,
    MetastoreError,
    NotLeaderOrFollower,
    OffsetOutOfRange,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from trioq.server.handlers.admin_timeout import timeout_s
from trioq.server.handlers.alter_configs import handle_alter_configs
from trioq.server.handlers.create_partitions import handle_create_partitions
from trioq.server.handlers.create_topics import handle_create_topics
from trioq.server.handlers.delete_records import handle_delete_records
from trioq.server.handlers.delete_topics import handle_delete_topics
from trioq.server.handlers.describe_log_dirs import handle_describe_log_dirs
from trioq.server.handlers.incremental_alter_configs import handle_incremental_alter_configs
from trioq.server.handlers.init_producer_id import handle_init_producer_id
from trioq.storage.disk import DiskUsage
from trioq.storage.log_dirs import LogDirs
from trioq.storage.memory_disk import MemoryDisk
from trioq.types import ZERO_TOPIC_ID, TopicPartition
from trioq.wire.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsRequestConfig,
    AlterConfigsRequestResource,
)
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsRequestAssignment,
    CreatePartitionsRequestTopic,
)
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestAssignment,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
)
from trioq.wire.messages.delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsRequestPartition,
    DeleteRecordsRequestTopic,
)
from trioq.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsRequestTopic
from trioq.wire.messages.describe_log_dirs import (
    DescribeLogDirsRequest,
    DescribeLogDirsRequestTopic,
)
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource,
)
from trioq.wire.messages.init_producer_id import InitProducerIdRequest

CONFIG = BrokerConfig.from_mapping({"node.id": "1"})
SOME_ID = uuid.uuid5(uuid.NAMESPACE_DNS, "topic")


class Recorder:
    """Stands for TopicAdmin: remembers how it was called, and gives prepared answers."""

    def __init__(self, answers: Sequence[Any] = ()) -> None:
        self.answers = list(answers)
        self.asked: Any = None
        self.options: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        async def call(asked: Any, **options: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.asked, self.options = list(asked), options
            return self.answers

        return call


def answered(handler: Any, message: Any, version: int, **parts: Any) -> Any:
    """The handler's answer, after it went over the wire at `version`."""
    body = memoryview(message.encode(version))
    request = SimpleNamespace(
        api_version=version,
        decode=lambda message_class: message_class.decode(body, 0, len(body), version),
        connection=SimpleNamespace(peer="127.0.0.1:5"),
    )
    ctx = SimpleNamespace(config=CONFIG, **parts)
    answer = trio.run(handler, ctx, request)
    data = memoryview(answer.encode(version))
    return type(answer).decode(data, 0, len(data), version)


@pytest.mark.parametrize(("given_ms", "expected_s"), [(60_000, 60.0), (0, 1.0), (-1, 1.0)])
def test_timeout(given_ms: int, expected_s: float) -> None:
    assert timeout_s(given_ms) == expected_s


@pytest.mark.parametrize("version", range(2, 8))
def test_create_topics(version: int) -> None:
    admin = Recorder(
        [
            CreatedTopic("a", SOME_ID, 3, 1, {"retention.ms": "5"}),
            CreatedTopic("b", error=TopicAlreadyExists("it is there")),
        ]
    )
    message = CreateTopicsRequest(
        topics=[
            CreateTopicsRequestTopic(
                name="a",
                num_partitions=3,
                replication_factor=1,
                configs=[CreateTopicsRequestConfig(name="retention.ms", value="5")],
            ),
            CreateTopicsRequestTopic(
                name="b",
                num_partitions=-1,
                replication_factor=-1,
                assignments=[CreateTopicsRequestAssignment(partition_index=0, broker_ids=[1])],
            ),
        ],
        timeout_ms=5_000,
        validate_only=True,
    )
    answer = answered(handle_create_topics, message, version, topic_admin=admin)
    assert admin.asked == [
        NewTopic("a", 3, 1, {}, {"retention.ms": "5"}),
        NewTopic("b", -1, -1, {0: [1]}, {}),
    ]
    assert admin.options == {"validate_only": True, "timeout_s": 5.0}
    first, second = answer.topics
    assert (first.name, first.error_code) == ("a", 0)
    assert (second.error_code, second.error_message) == (36, "it is there")
    if version >= 5:
        assert (first.num_partitions, first.replication_factor) == (3, 1)
        values = {row.name: (row.value, row.config_source) for row in first.configs}
        assert values["retention.ms"] == ("5", 1)
        assert values["cleanup.policy"] == ("delete", 5)
        assert second.num_partitions == -1
    if version >= 7:
        assert first.topic_id == SOME_ID


def test_create_topics_refuses_what_a_mapping_would_hide() -> None:
    twice = [CreateTopicsRequestConfig(name="retention.ms", value=value) for value in "12"]
    same = [CreateTopicsRequestAssignment(partition_index=0, broker_ids=[1])] * 2
    message = CreateTopicsRequest(
        topics=[
            CreateTopicsRequestTopic(name="configs", configs=twice),
            CreateTopicsRequestTopic(name="assignments", assignments=same),
        ]
    )
    admin = Recorder()
    answer = answered(handle_create_topics, message, 5, topic_admin=admin)
    assert admin.asked == []
    assert [(one.name, one.error_code) for one in answer.topics] == [
        ("configs", 42),
        ("assignments", 39),
    ]


@pytest.mark.parametrize("version", range(1, 7))
def test_delete_topics_by_name(version: int) -> None:
    admin = Recorder(
        [
            DeletedTopic("a", SOME_ID),
            DeletedTopic("b", ZERO_TOPIC_ID, UnknownTopicOrPartition("none such")),
        ]
    )
    message = DeleteTopicsRequest(timeout_ms=100)
    if version >= 6:
        message.topics = [DeleteTopicsRequestTopic(name=name) for name in "ab"]
    else:
        message.topic_names = ["a", "b"]
    answer = answered(handle_delete_topics, message, version, topic_admin=admin)
    assert admin.asked == ["a", "b"]
    assert [(one.name, one.error_code) for one in answer.responses] == [("a", 0), ("b", 3)]
    if version >= 5:
        assert answer.responses[1].error_message == "none such"


def test_delete_topics_by_id() -> None:
    admin = Recorder([DeletedTopic("a", SOME_ID)])
    message = DeleteTopicsRequest(
        topics=[
            DeleteTopicsRequestTopic(topic_id=SOME_ID),
            DeleteTopicsRequestTopic(name="both", topic_id=SOME_ID),
            DeleteTopicsRequestTopic(),
        ]
    )
    answer = answered(handle_delete_topics, message, 6, topic_admin=admin)
    assert admin.asked == [SOME_ID]
    assert [one.error_code for one in answer.responses] == [42, 42, 0]
    assert answer.responses[2].topic_id == SOME_ID


@pytest.mark.parametrize("version", range(4))
def test_create_partitions(version: int) -> None:
    admin = Recorder([GrownTopic("a"), GrownTopic("b", InvalidPartitions("no increase"))])
    message = CreatePartitionsRequest(
        topics=[
            CreatePartitionsRequestTopic(name="a", count=4, assignments=None),
            CreatePartitionsRequestTopic(
                name="b",
                count=2,
                assignments=[CreatePartitionsRequestAssignment(broker_ids=[1])],
            ),
        ],
        timeout_ms=2_000,
    )
    answer = answered(handle_create_partitions, message, version, topic_admin=admin)
    assert admin.asked == [NewPartitions("a", 4), NewPartitions("b", 2, [[1]])]
    assert admin.options == {"validate_only": False, "timeout_s": 2.0}
    assert [(one.name, one.error_code, one.error_message) for one in answer.results] == [
        ("a", 0, None),
        ("b", 37, "no increase"),
    ]


@pytest.mark.parametrize("version", range(3))
def test_alter_configs(version: int) -> None:
    topic, broker = ConfigResource(2, "a"), ConfigResource(4, "1")
    admin = Recorder([ConfigResult(topic), ConfigResult(broker, InvalidConfig("wrong"))])
    message = AlterConfigsRequest(
        resources=[
            AlterConfigsRequestResource(
                resource_type=2,
                resource_name="a",
                configs=[AlterConfigsRequestConfig(name="retention.ms", value="5")],
            ),
            AlterConfigsRequestResource(resource_type=4, resource_name="1"),
            AlterConfigsRequestResource(
                resource_type=2,
                resource_name="twice",
                configs=[AlterConfigsRequestConfig(name="retention.ms", value="5")] * 2,
            ),
        ],
        validate_only=True,
    )
    answer = answered(handle_alter_configs, message, version, topic_admin=admin)
    assert admin.asked == [(topic, {"retention.ms": "5"}), (broker, {})]
    assert admin.options["validate_only"] is True
    assert {one.resource_name: one.error_code for one in answer.responses} == {
        "a": 0,
        "1": 40,
        "twice": 42,
    }


@pytest.mark.parametrize("version", range(2))
def test_incremental_alter_configs(version: int) -> None:
    topic = ConfigResource(2, "a")
    admin = Recorder([ConfigResult(topic, InvalidConfig("wrong"))])
    message = IncrementalAlterConfigsRequest(
        resources=[
            IncrementalAlterConfigsRequestResource(
                resource_type=2,
                resource_name="a",
                configs=[
                    IncrementalAlterConfigsRequestConfig(
                        name="retention.ms", config_operation=1, value=None
                    )
                ],
            )
        ]
    )
    answer = answered(handle_incremental_alter_configs, message, version, topic_admin=admin)
    assert admin.asked == [(topic, [ConfigChange("retention.ms", 1, None)])]
    (only,) = answer.responses
    assert (only.resource_name, only.error_code, only.error_message) == ("a", 40, "wrong")


class Records:
    """Stands for a Partition with records 3 .. 9, whose followers delete at the `looks`th look."""

    def __init__(self, looks: int = 0, error: type[KafkaError] | None = None) -> None:
        self.looks = looks
        self.error = error
        self.log = SimpleNamespace(
            log_dir=LogDirs.open(
                ("/data",), cluster_id="c", node_id=1, disk=MemoryDisk(), clock=ManualClock()
            ).dirs[0]
        )

    def delete_records(self, offset: int) -> int:
        if offset > 10:
            raise OffsetOutOfRange
        return 10 if offset == -1 else max(offset, 3)

    def is_deleted_below(self, offset: int) -> bool:
        if self.error is not None:
            raise self.error
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("version", range(3))
def test_delete_records(version: int) -> None:
    partitions = SimpleNamespace(
        find=lambda topic, number: Records() if (topic, number) == ("a", 0) else None
    )
    image = SimpleNamespace(topics={})
    message = DeleteRecordsRequest(
        topics=[
            DeleteRecordsRequestTopic(
                name=name,
                partitions=[
                    DeleteRecordsRequestPartition(partition_index=0, offset=offset)
                    for offset in offsets
                ],
            )
            for name, offsets in (("a", [5, -1, 11, 0]), ("none", [0]))
        ]
    )
    answer = answered(handle_delete_records, message, version, partitions=partitions, image=image)
    found = [(one.error_code, one.low_watermark) for one in answer.topics[0].partitions]
    assert found == [(0, 5), (0, 10), (1, -1), (0, 3)]
    assert answer.topics[1].partitions[0].error_code == 3


@pytest.mark.parametrize(
    ("records", "timeout_ms", "found"),
    [
        (Records(3), 60_000, (0, 5)),
        (Records(1 << 30), 50, (7, -1)),
        (Records(error=NotLeaderOrFollower), 60_000, (6, -1)),
    ],
    ids=["followers follow", "they do not in time", "another leads now"],
)
def test_records_are_deleted_when_followers_have_deleted_them(records, timeout_ms, found) -> None:
    partitions = SimpleNamespace(find=lambda _topic, _number: records)
    asked = DeleteRecordsRequestPartition(partition_index=0, offset=5)
    message = DeleteRecordsRequest(
        topics=[DeleteRecordsRequestTopic(name="a", partitions=[asked])], timeout_ms=timeout_ms
    )
    image = SimpleNamespace(topics={})
    answer = answered(handle_delete_records, message, 2, partitions=partitions, image=image)
    (one,) = answer.topics[0].partitions
    assert (one.error_code, one.low_watermark) == found


class Ids:
    """Stands for ProducerIds; without ids it fails as a metastore fails."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)

    async def next_producer_id(self) -> int:
        await trio.lowlevel.checkpoint()
        if not self.ids:
            raise MetastoreError("out of reach")
        return self.ids.pop(0)


@pytest.mark.parametrize("version", range(5))
def test_init_producer_id(version: int) -> None:
    ids = Ids(7, 8)
    for expected in (7, 8):
        answer = answered(
            handle_init_producer_id, InitProducerIdRequest(), version, producer_ids=ids
        )
        assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, expected, 0)
    answer = answered(handle_init_producer_id, InitProducerIdRequest(), version, producer_ids=ids)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (15, -1, -1)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"transactional_id": "t"}, 53),
        ({"transactional_id": ""}, 42),
        ({"producer_id": 5}, 42),
        ({"producer_epoch": 5}, 42),
        ({"producer_id": 5, "producer_epoch": 5}, 0),
    ],
)
def test_init_producer_id_with_more(fields: dict[str, Any], code: int) -> None:
    message = InitProducerIdRequest(**fields)
    answer = answered(handle_init_producer_id, message, 4, producer_ids=Ids(9))
    assert answer.error_code == code
    assert answer.producer_id == (9 if code == 0 else -1)


class Dir:
    """Stands for a LogDir with two logs."""

    def __init__(self, path: str, error: OSError | None = None) -> None:
        self.path = path
        self.error = error
        self.broken = False
        self.disk = self
        names = (("a", 0, 100), ("a", 1, 200), ("b", 0, 300))
        self.logs = [
            SimpleNamespace(topic_partition=TopicPartition(name, number), size_bytes=size)
            for name, number, size in names
        ]

    def usage(self, path: str) -> DiskUsage:
        assert path == self.path
        if self.broken:
            raise OSError("gone")
        return DiskUsage(1000, 400)

    def fail(self, error: OSError) -> None:
        self.error = error


def log_dirs(message: DescribeLogDirsRequest, version: int, *dirs: Dir) -> Any:
    ctx: Any = SimpleNamespace(log_dirs=SimpleNamespace(dirs=dirs))
    request: Any = None
    answer = handle_describe_log_dirs(ctx, request, message)
    data = memoryview(answer.encode(version))
    return type(answer).decode(data, 0, len(data), version).results


@pytest.mark.parametrize("version", range(1, 5))
def test_describe_log_dirs(version: int) -> None:
    online, offline = Dir("/one"), Dir("/two", OSError("dead"))
    first, second = log_dirs(DescribeLogDirsRequest(topics=None), version, online, offline)
    assert (first.log_dir, first.error_code) == ("/one", 0)
    sizes = {
        (topic.name, part.partition_index): part.partition_size
        for topic in first.topics
        for part in topic.partitions
    }
    assert sizes == {("a", 0): 100, ("a", 1): 200, ("b", 0): 300}
    assert (second.log_dir, second.error_code, second.topics) == ("/two", 56, [])
    if version >= 4:
        assert (first.total_bytes, first.usable_bytes) == (1000, 400)
        assert (second.total_bytes, second.usable_bytes) == (-1, -1)


def test_describe_log_dirs_of_some_partitions() -> None:
    asked = [DescribeLogDirsRequestTopic(topic="a", partitions=[1, 7])]
    (only,) = log_dirs(DescribeLogDirsRequest(topics=asked), 4, Dir("/one"))
    assert [(one.name, len(one.partitions)) for one in only.topics] == [("a", 1)]
    assert only.topics[0].partitions[0].partition_size == 200


def test_a_volume_that_cannot_be_asked_is_offline() -> None:
    broken = Dir("/one")
    broken.broken = True
    (only,) = log_dirs(DescribeLogDirsRequest(topics=None), 4, broken)
    assert only.error_code == 56
    assert broken.error is not None
