"""Handlers that describe: brokers, topics, configuration, producers."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trioq._native.kept_answers import KeptAnswers
from trioq.config import BrokerConfig
from trioq.controller.topics import CreatedTopic
from trioq.errors import InvalidReplicationFactor, RequestTimedOut, TopicAlreadyExists
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import BrokerRegistration, PartitionState
from trioq.metastore.session import Session, SessionState
from trioq.server.handlers.describe_cluster import handle_describe_cluster
from trioq.server.handlers.describe_configs import handle_describe_configs
from trioq.server.handlers.describe_producers import handle_describe_producers
from trioq.server.handlers.describe_topic_partitions import handle_describe_topic_partitions
from trioq.server.handlers.metadata import handle_metadata
from trioq.storage.producer_entry import ActiveProducer
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.kinds import UNKNOWN_OPERATIONS
from trioq.wire.messages.describe_cluster import DescribeClusterRequest
from trioq.wire.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsRequestResource,
)
from trioq.wire.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersRequestTopic,
)
from trioq.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    DescribeTopicPartitionsRequestTopic,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

CONFIG = BrokerConfig.from_mapping({"node.id": "1"})


def registration(broker_id: int) -> BrokerRegistration:
    endpoints = {
        "INSIDE": (f"inside-{broker_id}", 9092),
        "OUTSIDE": (f"outside-{broker_id}", 9093),
    }
    if broker_id == 3:
        del endpoints["OUTSIDE"]
    return BrokerRegistration(
        broker_id, 1, f"rack-{broker_id}", endpoints, ("dir",), "host", "incarnation", clean=True
    )


def partition(leader: int, *replicas: int, epoch: int = 5) -> PartitionState:
    return PartitionState(leader, epoch, replicas, (1,) * len(replicas), replicas)


def topic(name: str, *partitions: PartitionState, **config: str) -> TopicImage:
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return TopicImage(name, uuid.uuid5(uuid.NAMESPACE_DNS, name), partitions, settings, 0)


def image_of(*topics: TopicImage, brokers: tuple[int, ...] = (1, 2, 3)) -> ClusterImage:
    return ClusterImage(
        cluster_id="cluster",
        controller_id=2,
        topics={one.name: one for one in topics},
        topics_by_id={one.topic_id: one for one in topics},
        brokers={number: registration(number) for number in brokers},
        broker_configs={"": {"message.max.bytes": "5000"}},
    )


class Asked:
    """A request, its slot and its connection in one; an answer of any kind is `answer`."""

    def __init__(self, message: Any, version: int, listener_name: str = "INSIDE") -> None:
        self.api_version = version
        self.connection = self
        self.listener_name = listener_name
        self.answer: Any = None
        self.tasks: list[tuple[Any, ...]] = []
        self.body = memoryview(message.encode(version))
        self.position, self.end = 0, len(self.body)

    def decode(self, message_class: Any) -> Any:
        return message_class.decode(self.body, self.position, self.end, self.api_version)

    def complete(self, message: Any) -> None:
        self.answer = message

    def complete_raw(self, body: list[bytes]) -> None:
        data = memoryview(b"".join(body))
        self.answer = MetadataResponse.decode(data, 0, len(data), self.api_version)

    def start_task(self, *task: Any) -> None:
        self.tasks.append(task)


class Admin:
    """Stands for TopicAdmin: answers what it is told to, after adding topics to the image."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.asked: list[str] = []
        self.errors: dict[str, Any] = {}

    async def create_topics(self, topics: Any) -> list[CreatedTopic]:
        await trio.lowlevel.checkpoint()
        self.asked += [new.name for new in topics]
        made = [topic(new.name, partition(1, 1)) for new in topics if new.name not in self.errors]
        self.ctx.image = image_of(*self.ctx.image.topics.values(), *made)
        return [CreatedTopic(new.name, error=self.errors.get(new.name)) for new in topics]


def context(image: ClusterImage, config: BrokerConfig = CONFIG) -> Any:
    ctx = SimpleNamespace(image=image, config=config, kept_metadata=KeptAnswers(1 << 20), gate=None)
    ctx.topic_admin = Admin(ctx)
    return ctx


def metadata(ctx: Any, message: MetadataRequest, version: int, listener: str = "INSIDE") -> Any:
    """The answer to a Metadata request, whether at once or by a task."""
    asked = Asked(message, version, listener)
    answer = handle_metadata(ctx, asked, asked)  # type: ignore[arg-type]
    if answer is not None:
        return answer
    for task in asked.tasks:
        trio.run(*task)
    assert asked.answer is not None
    return asked.answer


def named(*names: str | None, **fields: Any) -> MetadataRequest:
    return MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in names], **fields)


A = topic("a", partition(1, 1, 2), partition(2, 2, 9, epoch=7))
B = topic("b", partition(9, 9, 1))


# ---- Metadata ----


@pytest.mark.parametrize("version", range(14))
def test_all_topics(version: int) -> None:
    message = MetadataRequest(topics=[] if version == 0 else None)
    answer = metadata(context(image_of(A, B)), message, version)
    assert [one.name for one in answer.topics] == ["a", "b"]
    assert [(one.node_id, one.host, one.port) for one in answer.brokers] == [
        (1, "inside-1", 9092),
        (2, "inside-2", 9092),
        (3, "inside-3", 9092),
    ]
    if version >= 10:
        assert answer.topics[0].topic_id == A.topic_id


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (9, "00000000 01 00 00 00"),
        (10, "00000000 01 00 00 00"),
        (11, "00000000 01 00 00"),
        (13, "00000000 01 00 00"),
    ],
)
def test_all_topics_as_librdkafka_asks_for_them(version: int, body: str) -> None:
    """Its null array is four bytes long: what follows is not where it should be."""
    data = memoryview(bytes.fromhex(body))
    message = MetadataRequest.decode(data, 0, len(data), version)
    assert message.topics is None
    assert [one.name for one in metadata(context(image_of(A)), message, version).topics] == ["a"]


def test_a_kept_answer_is_of_its_request_listener_and_image() -> None:
    before, after = context(image_of(A)), context(image_of(A, B))
    for _ in range(2):  # the second time from what was kept
        for version in (9, 12):
            for listener, host in (("INSIDE", "inside-1"), ("OUTSIDE", "outside-1")):
                answer = metadata(before, named("a"), version, listener)
                assert answer.brokers[0].host == host
                assert [one.name for one in answer.topics] == ["a"]
                both = metadata(after, MetadataRequest(topics=None), version, listener)
                assert [one.name for one in both.topics] == ["a", "b"]
                operations = named("a", include_topic_authorized_operations=True)
                allowed = metadata(before, operations, version, listener)
                assert allowed.topics[0].topic_authorized_operations > 0


def test_answers_with_errors_are_not_kept() -> None:
    image = image_of(A)
    never = BrokerConfig.from_mapping({"auto.create.topics.enable": "false"})
    asked = named("new")
    assert metadata(context(image, never), asked, 9).topics[0].error_code == 3
    may = context(image)
    assert metadata(may, asked, 9).topics[0].error_code == 0
    assert may.topic_admin.asked == ["new"]


def test_kept_answers_are_bounded() -> None:
    ctx = context(image_of(A, B))
    ctx.kept_metadata = KeptAnswers(500)
    for version in (*range(1, 14), *range(1, 14)):
        answer = metadata(ctx, named("a", "b"), version)
        assert [one.name for one in answer.topics] == ["a", "b"]


@pytest.mark.parametrize("version", range(1, 14))
def test_no_topics(version: int) -> None:
    answer = metadata(context(image_of(A)), MetadataRequest(topics=[]), version)
    assert answer.topics == []
    assert answer.controller_id == 2


def test_a_broker_that_registered_anew_does_not_lead_by_an_old_state() -> None:
    held = PartitionState(1, 5, (1, 2), (0, 1), (1, 2))
    image = image_of(topic("a", held, held._replace(broker_epochs=(1, 1))))
    answer = metadata(context(image), named("a"), 12)
    old, new = answer.topics[0].partitions
    assert (old.error_code, old.leader_id, old.offline_replicas) == (5, -1, [])
    assert (new.error_code, new.leader_id) == (0, 1)


def test_a_broker_whose_log_failed_is_offline_for_that_partition() -> None:
    held = PartitionState(1, 5, (1, 2), (1, 1), (1, 2))
    states = (held.with_failed({1: 1}), held.with_failed({2: 1}), held.with_failed({2: 0}))
    answer = metadata(context(image_of(topic("a", *states))), named("a"), 12)
    leads, follows, registered_anew = answer.topics[0].partitions
    assert (leads.error_code, leads.leader_id, leads.offline_replicas) == (5, -1, [1])
    assert (follows.error_code, follows.leader_id, follows.offline_replicas) == (0, 1, [2])
    assert (registered_anew.leader_id, registered_anew.offline_replicas) == (1, [])


def test_partitions_and_a_leader_that_is_not_live() -> None:
    answer = metadata(context(image_of(A, B)), named("a", "b"), 9)
    first, second = answer.topics[0].partitions
    assert (first.error_code, first.leader_id, first.leader_epoch) == (0, 1, 5)
    assert (second.leader_id, second.leader_epoch, second.offline_replicas) == (2, 7, [9])
    (dead,) = answer.topics[1].partitions
    assert (dead.error_code, dead.leader_id, dead.offline_replicas) == (5, -1, [9])
    assert dead.replica_nodes == [9, 1]


def test_each_listener_is_told_its_own_addresses() -> None:
    answer = metadata(context(image_of(A)), named("a"), 9, "OUTSIDE")
    assert [(one.node_id, one.host) for one in answer.brokers] == [
        (1, "outside-1"),
        (2, "outside-2"),
    ]


def test_the_cached_answer_follows_image_version_and_listener() -> None:
    everything = MetadataRequest(topics=None)
    ctx = context(image_of(A))
    for version in (1, 9, 1):
        assert len(metadata(ctx, everything, version).topics) == 1
    assert metadata(ctx, everything, 9, "OUTSIDE").brokers[0].host == "outside-1"
    assert metadata(ctx, everything, 9, "INSIDE").brokers[0].host == "inside-1"
    ctx.image = image_of(A, B)
    assert len(metadata(ctx, everything, 9).topics) == 2


def test_missing_topics_are_created() -> None:
    ctx = context(image_of(A))
    answer = metadata(ctx, named("a", "new", "new", "other"), 9)
    assert ctx.topic_admin.asked == ["new", "other"]
    assert [(one.error_code, one.name) for one in answer.topics] == [
        (0, "a"),
        (0, "new"),
        (0, "other"),
    ]
    assert len(answer.topics[1].partitions) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidReplicationFactor(), InvalidReplicationFactor.code),
        (RequestTimedOut(), 5),
        (TopicAlreadyExists(), 3),
    ],
)
def test_a_topic_that_cannot_be_created(error: Any, code: int) -> None:
    ctx = context(image_of(A))
    ctx.topic_admin.errors["new"] = error
    answer = metadata(ctx, named("new", "fine"), 9)
    assert [one.error_code for one in answer.topics] == [code, 0]


def test_creation_needs_leave_of_broker_and_request_and_a_legal_name() -> None:
    refusing = BrokerConfig.from_mapping({"auto.create.topics.enable": "false"})
    for ctx, message in (
        (context(image_of(A), refusing), named("new")),
        (context(image_of(A)), named("new", allow_auto_topic_creation=False)),
    ):
        assert metadata(ctx, message, 9).topics[0].error_code == 3
        assert ctx.topic_admin.asked == []
    ctx = context(image_of(A))
    answer = metadata(ctx, named("../etc", "", "x" * 250, ".."), 9)
    assert [one.error_code for one in answer.topics] == [17] * 4
    assert ctx.topic_admin.asked == []


def test_topics_by_id() -> None:
    unknown = uuid.uuid4()
    message = MetadataRequest(
        topics=[
            MetadataRequestTopic(topic_id=A.topic_id, name=None),
            MetadataRequestTopic(topic_id=unknown, name=None),
            MetadataRequestTopic(topic_id=ZERO_TOPIC_ID, name=None),
        ]
    )
    ctx = context(image_of(A))
    answer = metadata(ctx, message, 12)
    assert [(one.error_code, one.name, one.topic_id) for one in answer.topics] == [
        (0, "a", A.topic_id),
        (100, None, unknown),
    ]
    assert [one.error_code for one in metadata(ctx, message, 10).topics] == [42, 42]


def test_operations_only_when_asked() -> None:
    ctx = context(image_of(A))
    silent = metadata(ctx, named("a"), 8)
    assert silent.cluster_authorized_operations == UNKNOWN_OPERATIONS
    assert silent.topics[0].topic_authorized_operations == UNKNOWN_OPERATIONS
    told = metadata(
        ctx,
        named(
            "a",
            include_cluster_authorized_operations=True,
            include_topic_authorized_operations=True,
        ),
        8,
    )
    assert told.topics[0].topic_authorized_operations == 0b1101_1111_1000
    assert told.cluster_authorized_operations & (1 << 12)


# ---- DescribeCluster ----


def test_describe_cluster() -> None:
    ctx = context(image_of(A))
    message = DescribeClusterRequest()
    answer = handle_describe_cluster(ctx, Asked(message, 1, "OUTSIDE"), message)  # type: ignore[arg-type]
    assert (answer.error_code, answer.cluster_id, answer.controller_id) == (0, "cluster", 2)
    assert [one.broker_id for one in answer.brokers] == [1, 2]
    for endpoint_type, code in ((2, 114), (7, 115)):
        message = DescribeClusterRequest(endpoint_type=endpoint_type)
        answer = handle_describe_cluster(ctx, Asked(message, 1), message)  # type: ignore[arg-type]
        assert (answer.error_code, answer.brokers) == (code, [])


def test_another_live_broker_stands_in_for_a_dead_controller() -> None:
    message = DescribeClusterRequest()
    for brokers, expected in (((1, 3), 1), ((), -1)):
        ctx = context(image_of(brokers=brokers))
        answer = handle_describe_cluster(ctx, Asked(message, 0), message)  # type: ignore[arg-type]
        assert answer.controller_id == expected


def test_a_broker_that_does_not_reach_the_metastore_knows_of_no_controller() -> None:
    message = DescribeClusterRequest()
    ctx = context(image_of(A))
    ctx.gate, ctx.metastore = object(), SimpleNamespace(session=Session())
    for state, expected in ((SessionState.CONNECTED, 2), (SessionState.SUSPENDED, -1)):
        ctx.metastore.session.move(state)
        answer = handle_describe_cluster(ctx, Asked(message, 1, "OUTSIDE"), message)  # type: ignore[arg-type]
        assert answer.controller_id == expected


# ---- FindCoordinator ----


# ---- DescribeTopicPartitions ----


@given(
    counts=st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 6), max_size=7),
    limit=st.integers(-1, 8),
    data=st.data(),
)
def test_pages_cover_every_partition_once(
    counts: dict[str, int], limit: int, data: st.DataObject
) -> None:
    topics = [topic(name, *([partition(1, 1)] * count)) for name, count in counts.items()]
    ctx = context(image_of(*topics))
    asked = data.draw(st.lists(st.sampled_from("abcdefgh"), max_size=8))
    names = sorted(set(asked) or set(counts))
    found: list[tuple[str, int]] = []
    cursor = None
    while True:
        message = DescribeTopicPartitionsRequest(
            topics=[DescribeTopicPartitionsRequestTopic(name=name) for name in asked],
            response_partition_limit=limit,
            cursor=cursor,
        )
        answer = handle_describe_topic_partitions(ctx, None, message)  # type: ignore[arg-type]
        page = [
            (one.name, part.partition_index) for one in answer.topics for part in one.partitions
        ]
        assert len(page) <= max(limit, 1)
        found += page
        if answer.next_cursor is None:
            break
        assert page
        cursor = DescribeTopicPartitionsRequestCursor(
            topic_name=answer.next_cursor.topic_name,
            partition_index=answer.next_cursor.partition_index,
        )
    assert found == [(name, n) for name in names for n in range(counts.get(name, 0))]


def test_unknown_topics_and_bad_cursors() -> None:
    ctx = context(image_of(A))
    message = DescribeTopicPartitionsRequest(
        topics=[DescribeTopicPartitionsRequestTopic(name="none")]
    )
    answer = handle_describe_topic_partitions(ctx, None, message)  # type: ignore[arg-type]
    assert [(one.name, one.error_code) for one in answer.topics] == [("none", 3)]
    message.cursor = DescribeTopicPartitionsRequestCursor(topic_name="a", partition_index=-1)
    answer = handle_describe_topic_partitions(ctx, None, message)  # type: ignore[arg-type]
    assert [one.error_code for one in answer.topics] == [42]


# ---- DescribeConfigs ----


def describe(ctx: Any, resource_type: int, name: str, **fields: Any) -> Any:
    keys = fields.pop("keys", None)
    message = DescribeConfigsRequest(
        resources=[
            DescribeConfigsRequestResource(
                resource_type=resource_type, resource_name=name, configuration_keys=keys
            )
        ],
        **fields,
    )
    (result,) = handle_describe_configs(ctx, None, message).results  # type: ignore[arg-type]
    for version in range(1, 5):
        handle_describe_configs(ctx, None, message).encode(version)  # type: ignore[arg-type]
    return result


def test_topic_configs() -> None:
    ctx = context(image_of(topic("t", partition(1, 1), retention_ms="77")))
    result = describe(ctx, 2, "t", include_synonyms=True, include_documentation=True)
    assert result.error_code == 0
    rows = {row.name: row for row in result.configs}
    row = rows["retention.ms"]
    assert (row.value, row.config_source, row.config_type) == ("77", 1, 5)
    assert [(one.name, one.source) for one in row.synonyms][:1] == [("retention.ms", 1)]
    assert row.documentation
    assert (rows["cleanup.policy"].config_source, rows["cleanup.policy"].config_type) == (5, 7)
    assert not any(one.is_sensitive for one in rows.values())
    plain = describe(ctx, 2, "t", keys=["retention.ms", "no.such"])
    assert [one.name for one in plain.configs] == ["retention.ms"]
    assert plain.configs[0].synonyms == []
    assert plain.configs[0].documentation is None
    assert len(describe(ctx, 2, "t", keys=[]).configs) == len(rows)


def test_broker_configs() -> None:
    ctx = context(image_of())
    rows = {row.name: row for row in describe(ctx, 4, "1").configs}
    assert (rows["node.id"].value, rows["node.id"].read_only) == ("1", True)
    assert rows["node.id"].config_source == 4
    (only,) = describe(ctx, 4, "", include_synonyms=True).configs
    assert (only.name, only.value, only.config_source) == ("message.max.bytes", "5000", 3)
    assert describe(ctx, 4, "", keys=["node.id"]).configs == []


@pytest.mark.parametrize(
    ("resource_type", "name", "code"), [(2, "none", 3), (4, "2", 42), (4, "x", 42), (8, "1", 42)]
)
def test_what_cannot_be_described(resource_type: int, name: str, code: int) -> None:
    result = describe(context(image_of()), resource_type, name)
    assert (result.error_code, result.configs) == (code, [])
    assert result.error_message


# ---- DescribeProducers ----


def test_describe_producers() -> None:
    producers = SimpleNamespace(active_producers=lambda: [ActiveProducer(7, 1, 9, 1000, -1, -1)])
    hosted = {
        ("a", 0): SimpleNamespace(is_leader=True, log=SimpleNamespace(producers=producers)),
        ("a", 1): SimpleNamespace(is_leader=False),
    }
    ctx = context(image_of(A))
    ctx.partitions = SimpleNamespace(find=lambda name, number: hosted.get((name, number)))
    message = DescribeProducersRequest(
        topics=[
            DescribeProducersRequestTopic(name="a", partition_indexes=[0, 1, 5]),
            DescribeProducersRequestTopic(name="none", partition_indexes=[0]),
        ]
    )
    answer = handle_describe_producers(ctx, None, message)  # type: ignore[arg-type]
    answer.encode(0)
    first, second, third = answer.topics[0].partitions
    (producer,) = first.active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (7, 1, 9)
    assert [second.error_code, third.error_code] == [6, 3]
    assert answer.topics[1].partitions[0].error_code == 3
