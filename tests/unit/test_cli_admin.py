"""The commands that administrate, against a broker whose answers are written here."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import uuid

import pytest
from click.testing import CliRunner

from tests.unit.scripted_broker import Answer, ScriptedBroker
from trioq.cli import running
from trioq.cli.app import trioq
from trioq.errors import (
    GroupIdNotFound,
    InvalidConfig,
    NonEmptyGroup,
    TopicAlreadyExists,
    UnknownMemberId,
    UnknownTopicOrPartition,
)
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeResponse,
    ConsumerGroupDescribeResponseAssignment,
    ConsumerGroupDescribeResponseGroup,
    ConsumerGroupDescribeResponseMember,
    ConsumerGroupDescribeResponseTopicPartitions,
)
from trioq.wire.messages.create_partitions import (
    CreatePartitionsResponse,
    CreatePartitionsResponseTopic,
)
from trioq.wire.messages.create_topics import CreateTopicsResponse, CreateTopicsResponseTopic
from trioq.wire.messages.delete_groups import DeleteGroupsResponse, DeleteGroupsResponseResult
from trioq.wire.messages.delete_topics import DeleteTopicsResponse, DeleteTopicsResponseTopic
from trioq.wire.messages.describe_cluster import DescribeClusterResponse
from trioq.wire.messages.describe_configs import (
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResource,
)
from trioq.wire.messages.fetch import FetchResponse
from trioq.wire.messages.find_coordinator import (
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsResponse,
    IncrementalAlterConfigsResponseResource,
)
from trioq.wire.messages.list_groups import ListGroupsResponse, ListGroupsResponseGroup
from trioq.wire.messages.list_offsets import (
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from trioq.wire.messages.offset_commit import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from trioq.wire.schema import Message

TOPIC_ID = uuid.UUID("11111111-2222-4333-8444-555555555555")
START, END = 7, 42


class Cluster(ScriptedBroker):
    """A broker with the topic orders of two partitions; `answers` says what else it answers."""

    def __init__(self, answers: dict[ApiKey, Answer] | None = None) -> None:
        super().__init__(
            {
                ApiKey.METADATA: self._metadata,
                ApiKey.DESCRIBE_CLUSTER: lambda _: DescribeClusterResponse(controller_id=1),
                ApiKey.FIND_COORDINATOR: self._coordinator,
                ApiKey.LIST_OFFSETS: self._offsets,
                **(answers or {}),
            }
        )

    def _metadata(self, _: Message) -> Message:
        partitions = [
            MetadataResponsePartition(
                partition_index=number, leader_id=1, replica_nodes=[1], isr_nodes=[1]
            )
            for number in range(2)
        ]
        return MetadataResponse(
            cluster_id="the-cluster",
            controller_id=1,
            brokers=[MetadataResponseBroker(node_id=1, host="127.0.0.1", port=self.port)],
            topics=[
                MetadataResponseTopic(name="orders", topic_id=TOPIC_ID, partitions=partitions),
                MetadataResponseTopic(
                    name="[bold]", topic_id=uuid.UUID(int=7), partitions=partitions[:1]
                ),
            ],
        )

    def _coordinator(self, request: Message) -> Message:
        (key,) = request.coordinator_keys
        found = FindCoordinatorResponseCoordinator(
            key=key, node_id=1, host="127.0.0.1", port=self.port
        )
        return FindCoordinatorResponse(coordinators=[found])

    def _offsets(self, request: Message) -> Message:
        (topic,) = request.topics
        return ListOffsetsResponse(
            topics=[
                ListOffsetsResponseTopic(
                    name=topic.name,
                    partitions=[
                        ListOffsetsResponsePartition(
                            partition_index=one.partition_index,
                            offset={-2: START, -1: END}.get(one.timestamp, 20),
                        )
                        for one in topic.partitions
                    ],
                )
            ]
        )

    def asked(self, name: str) -> list[Message]:
        return [one for one in self.requests if type(one).__name__ == f"{name}Request"]


@pytest.fixture
def cluster(monkeypatch):
    started = []

    def start(answers: dict[ApiKey, Answer] | None = None) -> Cluster:
        started.append(Cluster(answers))
        return started[-1]

    monkeypatch.setattr(running.logs, "configure", lambda _level: None)
    yield start
    for each in started:
        each.close()


def run(broker: Cluster, group: str, *arguments: str):
    prefix = [group, "--bootstrap-server", broker.address, "--timeout", "5"]
    return CliRunner().invoke(trioq, [*prefix, *arguments])


# ---- topics ----


def created(code: int = 0, message: str | None = None) -> Message:
    topic = CreateTopicsResponseTopic(name="orders", error_code=code, error_message=message)
    return CreateTopicsResponse(topics=[topic])


def deleted(code: int = 0) -> Message:
    return DeleteTopicsResponse(responses=[DeleteTopicsResponseTopic(name="a", error_code=code)])


def test_create_sends_what_was_given(cluster):
    target = cluster({ApiKey.CREATE_TOPICS: lambda _: created()})
    result = run(
        target, "topic", "create", "orders", "--partitions", "3", "--config", "retention.ms=5"
    )
    assert (result.exit_code, result.output) == (0, "")
    (request,) = target.asked("CreateTopics")
    (topic,) = request.topics
    assert (topic.name, topic.num_partitions, topic.replication_factor) == ("orders", 3, -1)
    assert [(c.name, c.value) for c in topic.configs] == [("retention.ms", "5")]


def test_a_refusal_says_why(cluster):
    answer = created(InvalidConfig.code, "retention.ms=soon is not valid")
    result = run(cluster({ApiKey.CREATE_TOPICS: lambda _: answer}), "topic", "create", "orders")
    assert result.exit_code == 1
    assert result.stderr == (
        "trioq: creating topic 'orders': INVALID_CONFIG: retention.ms=soon is not valid\n"
    )
    assert result.stdout == ""


def test_existing_and_missing_topics_can_be_accepted(cluster):
    target = cluster(
        {
            ApiKey.CREATE_TOPICS: lambda _: created(TopicAlreadyExists.code),
            ApiKey.DELETE_TOPICS: lambda _: deleted(UnknownTopicOrPartition.code),
        }
    )
    assert run(target, "topic", "create", "orders").exit_code == 1
    assert run(target, "topic", "create", "orders", "--if-not-exists").exit_code == 0
    assert run(target, "topic", "delete", "a").exit_code == 1
    assert run(target, "topic", "delete", "a", "b", "--if-exists").exit_code == 0
    assert [one.topics[0].name for one in target.asked("DeleteTopics")] == ["a", "a", "b"]


def test_topics_for_people_and_programs(cluster):
    target = cluster()
    assert run(target, "topic", "list").output == "[bold]\t1\t1\norders\t2\t1\n"
    listed = json.loads(run(target, "topic", "list", "--json").output)
    assert [topic["name"] for topic in listed] == ["[bold]", "orders"]
    assert listed[1]["topic_id"] == "ERERESIiQzOERFVVVVVVVQ"  # as Kafka prints it
    assert not target.asked("Metadata")[-1].allow_auto_topic_creation


CONFIGS = DescribeConfigsResponse(
    results=[
        DescribeConfigsResponseResource(
            configs=[
                DescribeConfigsResponseConfig(name="retention.ms", value="5", config_source=1),
                DescribeConfigsResponseConfig(name="flush.ms", value="9", config_source=5),
            ]
        )
    ]
)


def test_describe_shows_configuration_and_offsets(cluster):
    target = cluster({ApiKey.DESCRIBE_CONFIGS: lambda _: CONFIGS})
    assert run(target, "topic", "describe", "orders").output == (
        "orders\t0\t1\t1\t1\t7\t42\norders\t1\t1\t1\t1\t7\t42\n"
    )
    (described,) = json.loads(run(target, "topic", "describe", "orders", "--json").output)
    assert described["config"] == {"retention.ms": "5"}
    assert described["partitions"][0]["end_offset"] == END


def altered(_: Message) -> Message:
    return IncrementalAlterConfigsResponse(
        responses=[IncrementalAlterConfigsResponseResource(resource_name="orders")]
    )


def test_alter_changes_keys_and_partitions(cluster):
    added = CreatePartitionsResponse(results=[CreatePartitionsResponseTopic(name="orders")])
    target = cluster(
        {
            ApiKey.INCREMENTAL_ALTER_CONFIGS: altered,
            ApiKey.CREATE_PARTITIONS: lambda _: added,
        }
    )
    arguments = ["--config", "flush.ms=5", "--delete-config", "retention.ms", "--partitions", "9"]
    assert run(target, "topic", "alter", "orders", *arguments).exit_code == 0
    (configs,), (partitions,) = (
        target.asked("IncrementalAlterConfigs"),
        target.asked("CreatePartitions"),
    )
    assert [(c.name, c.config_operation, c.value) for c in configs.resources[0].configs] == [
        ("flush.ms", 0, "5"),
        ("retention.ms", 1, None),
    ]
    assert partitions.topics[0].count == 9
    nothing = run(target, "topic", "alter", "orders")
    assert nothing.exit_code == 2
    assert "nothing to change" in nothing.output


# ---- configuration ----


def test_config_describe_leaves_defaults_out(cluster):
    target = cluster({ApiKey.DESCRIBE_CONFIGS: lambda _: CONFIGS})
    assert run(target, "config", "describe", "topic", "orders").output == (
        "retention.ms\t5\ttopic\tno\n"
    )
    rows = json.loads(run(target, "config", "describe", "broker", "1", "--all", "--json").output)
    assert [(row["key"], row["source"]) for row in rows] == [
        ("retention.ms", "topic"),
        ("flush.ms", "default"),
    ]
    kinds = [one.resources[0] for one in target.asked("DescribeConfigs")]
    assert [(one.resource_type, one.resource_name) for one in kinds] == [(2, "orders"), (4, "1")]


def test_config_alter_sends_every_operation(cluster):
    target = cluster({ApiKey.INCREMENTAL_ALTER_CONFIGS: altered})
    result = run(
        target, "config", "alter", "broker",
        "--set", "a=1", "--delete", "b", "--append", "c=x", "--subtract", "d=y", "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (request,) = target.asked("IncrementalAlterConfigs")
    assert request.validate_only
    (resource,) = request.resources
    assert (resource.resource_type, resource.resource_name) == (4, "")
    assert {(c.name, c.config_operation) for c in resource.configs} == {
        ("a", 0), ("b", 1), ("c", 2), ("d", 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["describe", "topic"], "which topic?"),
        (["describe", "broker", "one"], "one is no broker id"),
        (["describe", "broker", "7"], "there is no broker 7: the cluster has 1"),
        (["alter", "broker", "7", "--set", "a=1"], "there is no broker 7"),
        (["alter", "topic", "orders"], "nothing to change"),
        (["alter", "topic", "orders", "--set", "a"], "allowed is KEY=VALUE"),
        (["describe", "user", "me"], "is not one of"),
    ],
)
def test_config_mistakes(cluster, arguments, expected):
    result = run(cluster(), "config", *arguments)
    assert result.exit_code == 2
    assert expected in result.stderr


# ---- groups ----


def described_group(_: Message) -> Message:
    """One member that reads both partitions of orders."""
    reads = ConsumerGroupDescribeResponseTopicPartitions(
        topic_id=TOPIC_ID, topic_name="orders", partitions=[0, 1]
    )
    member = ConsumerGroupDescribeResponseMember(
        member_id="m-1",
        client_id="billing",
        client_host="/10.0.0.1",
        subscribed_topic_names=["orders"],
        assignment=ConsumerGroupDescribeResponseAssignment(topic_partitions=[reads]),
    )
    group = ConsumerGroupDescribeResponseGroup(
        group_id="g", group_state="Stable", assignor_name="uniform", members=[member]
    )
    return ConsumerGroupDescribeResponse(groups=[group])


def committed(request: Message) -> Message:
    """Something for partition 0 of orders, and for a topic that is gone."""
    topics = [
        OffsetFetchResponseTopic(
            name=name,
            partitions=[OffsetFetchResponsePartition(partition_index=0, committed_offset=offset)],
        )
        for name, offset in (("orders", 40), ("gone", 5))
    ]
    name = request.groups[0].group_id
    return OffsetFetchResponse(
        groups=[
            OffsetFetchResponseGroup(
                group_id=name, topics=topics if name == "g" else topics[:1] if name == "h" else []
            )
        ]
    )


def test_groups_are_listed(cluster):
    listed = ListGroupsResponse(
        groups=[
            ListGroupsResponseGroup(
                group_id=name, protocol_type="consumer", group_state=state, group_type="Classic"
            )
            for name, state in (("z", "Empty"), ("a", "Stable"))
        ]
    )
    target = cluster({ApiKey.LIST_GROUPS: lambda _: listed})
    assert run(target, "group", "list", "--state", "Stable").output == (
        "a\tclassic\tStable\tconsumer\nz\tclassic\tEmpty\tconsumer\n"
    )
    assert target.asked("ListGroups")[0].states_filter == ["Stable"]
    (first, _) = json.loads(run(target, "group", "list", "--json").output)
    assert first == {"group": "a", "type": "classic", "state": "Stable", "protocol": "consumer"}


def test_lag_of_each_partition(cluster):
    target = cluster(
        {ApiKey.CONSUMER_GROUP_DESCRIBE: described_group, ApiKey.OFFSET_FETCH: committed}
    )
    result = run(target, "group", "describe", "g")
    assert result.output.splitlines() == [
        "g\tgone\t0\t5\t-\t-\t-\t-\t-",
        "g\torders\t0\t40\t42\t2\tm-1\tbilling\t/10.0.0.1",
        "g\torders\t1\t-\t42\t-\tm-1\tbilling\t/10.0.0.1",
    ], result.stderr
    (described,) = json.loads(run(target, "group", "describe", "g", "--json").output)
    assert (described["lag"], described["state"]) == (2, "Stable")
    assert [one["lag"] for one in described["partitions"]] == [None, 2, None]
    assert described["members"][0]["topics"] == ["orders"]


def accepted(request: Message, code: int = 0) -> Message:
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetCommitResponsePartition(
                        partition_index=one.partition_index, error_code=code
                    )
                    for one in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


@pytest.mark.parametrize(
    ("where", "offset"),
    [("beginning", START), ("end", END), ("30", 30), ("1", START), ("99", END), ("-2", END - 2),
     ("@1769860800000", 20)],
)  # fmt: skip
def test_offsets_are_reset(cluster, where, offset):
    target = cluster({ApiKey.OFFSET_FETCH: committed, ApiKey.OFFSET_COMMIT: accepted})
    result = run(target, "group", "reset-offsets", "h", "--to", where)
    assert (result.exit_code, result.output) == (0, f"orders\t0\t40\t{offset}\n"), result.stderr
    (commit,) = target.asked("OffsetCommit")
    assert commit.topics[0].partitions[0].committed_offset == offset


def test_offsets_of_topics_and_partitions_are_reset(cluster):
    target = cluster({ApiKey.OFFSET_FETCH: committed, ApiKey.OFFSET_COMMIT: accepted})
    options = ["--to", "end", "--topic", "orders"]
    result = run(target, "group", "reset-offsets", "new", *options, "--json")
    assert json.loads(result.output) == [
        {"topic": "orders", "partition": number, "before": None, "now": END} for number in (0, 1)
    ]
    result = run(target, "group", "reset-offsets", "new", *options, "--partition", "1", "--dry-run")
    assert result.output == "orders\t1\t-\t42\n"
    assert len(target.asked("OffsetCommit")) == 1
    result = run(target, "group", "reset-offsets", "new", *options, "--partition", "5")
    assert result.exit_code == 1
    assert "there is no partition 5" in result.stderr


def test_groups_that_cannot_be_changed(cluster):
    def refused(code: int) -> Answer:
        return lambda request: DeleteGroupsResponse(
            results=[DeleteGroupsResponseResult(group_id=request.groups_names[0], error_code=code)]
        )

    target = cluster(
        {
            ApiKey.OFFSET_FETCH: committed,
            ApiKey.OFFSET_COMMIT: lambda request: accepted(request, UnknownMemberId.code),
            ApiKey.DELETE_GROUPS: refused(NonEmptyGroup.code),
        }
    )
    for arguments in (["reset-offsets", "h", "--to", "end"], ["delete", "h"]):
        result = run(target, "group", *arguments)
        assert result.exit_code == 1
        assert "group 'h' has members: stop its consumers first" in result.stderr
    result = run(target, "group", "reset-offsets", "new", "--to", "end")
    assert result.exit_code == 1
    assert "group 'new' has committed nothing" in result.stderr
    missing = cluster({ApiKey.DELETE_GROUPS: refused(GroupIdNotFound.code)})
    result = run(missing, "group", "delete", "g")
    assert result.exit_code == 1
    assert "there is no group 'g'; `trioq group list` shows" in result.stderr
    assert run(missing, "group", "delete", "g", "--if-exists").exit_code == 0


# ---- every command ----


def test_nobody_at_the_address(cluster):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    result = CliRunner().invoke(trioq, ["topic", "--bootstrap-server", address, "list"])
    assert result.exit_code == 1
    assert address in result.stderr
    assert "is it running" in result.stderr
    result = CliRunner().invoke(
        trioq, ["topic", "list", "--bootstrap-server", f"{address},{cluster().address}"]
    )
    assert result.exit_code == 0


def test_what_is_given_to_a_command_counts_more_than_its_group_and_the_environment(cluster):
    target = cluster()
    nowhere = "127.0.0.1:1"
    arguments = ["topic", "--bootstrap-server", nowhere, "list", "--bootstrap-server"]
    environment = {"TRIOQ_BOOTSTRAP_SERVER": nowhere}
    result = CliRunner().invoke(trioq, [*arguments, target.address], env=environment)
    assert result.exit_code == 0, result.output
    environment = {"TRIOQ_BOOTSTRAP_SERVER": target.address}
    assert CliRunner().invoke(trioq, ["topic", "list"], env=environment).exit_code == 0
    result = CliRunner().invoke(trioq, ["topic", "list", "--bootstrap-server", "nowhere"])
    assert result.exit_code == 2


def test_reading_what_does_not_come_ends_with_the_timeout(cluster):
    target = cluster({ApiKey.FETCH: lambda _: FetchResponse()})
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trioq.cli", "consume", "orders"),
            *("--bootstrap-server", target.address, "--timeout", "0.5"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing more came of orders-0 for 0.5 s, which goes to offset 42" in done.stderr


def test_a_signal_ends_a_command_that_waits(cluster):
    """Ctrl-C while the broker does not answer: status 130, and nothing is said."""
    silent = cluster({ApiKey.LIST_GROUPS: lambda _: b"\0"})
    process = subprocess.Popen(
        [sys.executable, "-m", "trioq.cli", "group", "--bootstrap-server", silent.address, "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while not silent.asked("ListGroups"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, errors) == (130, b"", b"")
