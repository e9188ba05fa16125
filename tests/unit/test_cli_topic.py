"""`trioq topic` against a broker whose answers are written here."""

from __future__ import annotations

import json
import socket
import struct
import uuid

import pytest
from click.testing import CliRunner

from tests.unit.scripted_broker import Answer, ScriptedBroker
from trioq.cli.app import trioq
from trioq.errors import (
    InvalidConfig,
    NotController,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.create_partitions import (
    CreatePartitionsResponse,
    CreatePartitionsResponseTopic,
)
from trioq.wire.messages.create_topics import CreateTopicsResponse, CreateTopicsResponseTopic
from trioq.wire.messages.delete_topics import DeleteTopicsResponse, DeleteTopicsResponseTopic
from trioq.wire.messages.describe_configs import (
    DescribeConfigsResponse,
    DescribeConfigsResponseConfig,
    DescribeConfigsResponseResource,
)
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsResponse,
    IncrementalAlterConfigsResponseResource,
)
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
from trioq.wire.schema import Message

TOPIC_ID = uuid.UUID("11111111-2222-4333-8444-555555555555")


@pytest.fixture
def broker():
    running = []

    def start(answers: dict[ApiKey, Answer] | None = None, **options) -> ScriptedBroker:
        running.append(ScriptedBroker(answers or {}, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def run(broker: ScriptedBroker, *arguments: str, timeout: str = "5"):
    prefix = ["topic", "--bootstrap-server", broker.address, "--timeout", timeout]
    return CliRunner().invoke(trioq, [*prefix, *arguments])


def created(code: int = 0, message: str | None = None) -> Message:
    topic = CreateTopicsResponseTopic(name="orders", error_code=code, error_message=message)
    return CreateTopicsResponse(topics=[topic])


def deleted(code: int = 0) -> Message:
    return DeleteTopicsResponse(responses=[DeleteTopicsResponseTopic(name="a", error_code=code)])


def metadata(port: int = 1) -> Message:
    partition = MetadataResponsePartition(
        partition_index=0, leader_id=1, replica_nodes=[1], isr_nodes=[1]
    )
    return MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=1, host="127.0.0.1", port=port)],
        controller_id=1,
        topics=[
            MetadataResponseTopic(name="orders", topic_id=TOPIC_ID, partitions=[partition]),
            MetadataResponseTopic(name="[bold]", topic_id=TOPIC_ID, partitions=[]),
        ],
    )


def test_create_sends_what_was_given(broker):
    target = broker({ApiKey.CREATE_TOPICS: lambda _: created()})
    result = run(target, "create", "orders", "--partitions", "3", "--config", "retention.ms=5")
    assert (result.exit_code, result.output) == (0, "")
    (topic,) = target.requests[-1].topics
    assert (topic.name, topic.num_partitions, topic.replication_factor) == ("orders", 3, -1)
    assert [(c.name, c.value) for c in topic.configs] == [("retention.ms", "5")]


def test_a_refusal_says_why(broker):
    answer = created(InvalidConfig.code, "retention.ms=soon is not valid")
    result = run(broker({ApiKey.CREATE_TOPICS: lambda _: answer}), "create", "orders")
    assert result.exit_code == 1
    assert result.stderr == (
        "trioq: topic orders was not created: retention.ms=soon is not valid (INVALID_CONFIG)\n"
    )
    assert result.stdout == ""


def test_existing_and_missing_topics_can_be_accepted(broker):
    target = broker(
        {
            ApiKey.CREATE_TOPICS: lambda _: created(TopicAlreadyExists.code),
            ApiKey.DELETE_TOPICS: lambda _: deleted(UnknownTopicOrPartition.code),
        }
    )
    assert run(target, "create", "orders").exit_code == 1
    assert run(target, "create", "orders", "--if-not-exists").exit_code == 0
    assert run(target, "delete", "a").exit_code == 1
    assert run(target, "delete", "a", "--if-exists").exit_code == 0


def test_delete_names_every_topic(broker):
    target = broker({ApiKey.DELETE_TOPICS: lambda _: deleted()})
    assert run(target, "delete", "a", "b").exit_code == 0
    deletes = [r for r in target.requests if type(r).__name__ == "DeleteTopicsRequest"]
    assert [r.topics[0].name for r in deletes] == ["a", "b"]


def test_list_for_people_and_programs(broker):
    target = broker({ApiKey.METADATA: lambda _: metadata()})
    assert run(target, "list").output == "[bold]\t0\t0\norders\t1\t1\n"
    listed = json.loads(run(target, "list", "--json").output)
    assert [topic["name"] for topic in listed] == ["[bold]", "orders"]
    assert listed[1]["topic_id"] == "ERERESIiQzOERFVVVVVVVQ"  # as Kafka prints it
    assert target.requests[-1].topics is None
    assert not target.requests[-1].allow_auto_topic_creation


def test_describe_shows_configuration_and_offsets(broker):
    def offsets(request: Message) -> Message:
        (topic,) = request.topics
        offset = 7 if topic.partitions[0].timestamp == -2 else 42
        partition = ListOffsetsResponsePartition(partition_index=0, offset=offset)
        return ListOffsetsResponse(
            topics=[ListOffsetsResponseTopic(name="orders", partitions=[partition])]
        )

    configs = DescribeConfigsResponse(
        results=[
            DescribeConfigsResponseResource(
                configs=[
                    DescribeConfigsResponseConfig(name="retention.ms", value="5", config_source=1),
                    DescribeConfigsResponseConfig(name="flush.ms", value="9", config_source=5),
                ]
            )
        ]
    )
    target = broker(
        {
            ApiKey.METADATA: lambda _: metadata(target.port),
            ApiKey.LIST_OFFSETS: offsets,
            ApiKey.DESCRIBE_CONFIGS: lambda _: configs,
        }
    )
    assert run(target, "describe", "orders").output == "orders\t0\t1\t1\t1\t7\t42\n"
    (described,) = json.loads(run(target, "describe", "orders", "--json").output)
    assert described["config"] == {"retention.ms": "5"}
    assert described["partitions"][0]["end_offset"] == 42


def test_alter_changes_keys_and_partitions(broker):
    altered = IncrementalAlterConfigsResponse(
        responses=[IncrementalAlterConfigsResponseResource(resource_name="orders")]
    )
    added = CreatePartitionsResponse(results=[CreatePartitionsResponseTopic(name="orders")])
    target = broker(
        {
            ApiKey.INCREMENTAL_ALTER_CONFIGS: lambda _: altered,
            ApiKey.CREATE_PARTITIONS: lambda _: added,
        }
    )
    arguments = ["--config", "flush.ms=5", "--delete-config", "retention.ms", "--partitions", "9"]
    assert run(target, "alter", "orders", *arguments).exit_code == 0
    configs, partitions = target.requests[-2:]
    assert [(c.name, c.config_operation, c.value) for c in configs.resources[0].configs] == [
        ("flush.ms", 0, "5"),
        ("retention.ms", 1, None),
    ]
    assert partitions.topics[0].count == 9
    nothing = run(target, "alter", "orders")
    assert nothing.exit_code == 2
    assert "nothing to change" in nothing.output


def test_changes_follow_the_controller(broker, monkeypatch):
    monkeypatch.setattr("trioq.cli.topic_admin._RETRY_PAUSE_S", 0)
    controller = broker({ApiKey.CREATE_TOPICS: lambda _: created()})
    other = broker(
        {
            ApiKey.CREATE_TOPICS: lambda _: created(NotController.code),
            ApiKey.METADATA: lambda _: metadata(controller.port),
        }
    )
    assert run(other, "create", "orders").exit_code == 0
    assert type(controller.requests[-1]).__name__ == "CreateTopicsRequest"


def test_nobody_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    result = CliRunner().invoke(trioq, ["topic", "--bootstrap-server", address, "list"])
    assert result.exit_code == 1
    assert f"no broker answers at {address}" in result.stderr
    assert "trioq serve" in result.stderr


def test_the_first_that_answers_is_used(broker):
    target = broker({ApiKey.METADATA: lambda _: metadata()})
    servers = f"127.0.0.1:1,{target.address}"
    result = CliRunner().invoke(trioq, ["topic", "--bootstrap-server", servers, "list"])
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "broke (closed by the other side)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Kafka's protocol"),
        (struct.pack(">i", -1), "does not speak Kafka's protocol"),
        (struct.pack(">ii", 4, 999), "answer 999 to request"),
        (struct.pack(">iib", 5, 2, 0), "does not speak Kafka's protocol"),
    ],
)
def test_answers_that_are_none(broker, answer, expected):
    result = run(broker({ApiKey.METADATA: lambda _: answer}), "list")
    assert result.exit_code == 1
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_an_api_that_is_not_served(broker):
    result = run(broker(served={ApiKey.API_VERSIONS}), "list")
    assert result.exit_code == 1
    assert "does not serve Metadata" in result.stderr


def test_a_broker_that_knows_only_older_versions_of_api_versions(broker):
    """It answers in version 0 with an error and its range, which is all that is needed."""
    body = ApiVersionsResponse(
        error_code=35,
        api_keys=[
            ApiVersionsResponseKey(api_key=18, min_version=0, max_version=2),
            ApiVersionsResponseKey(api_key=3, min_version=0, max_version=8),
        ],
    ).encode(0)
    frame = struct.pack(">ii", 4 + len(body), 1) + body
    target = broker({ApiKey.API_VERSIONS: lambda _: frame, ApiKey.METADATA: lambda _: metadata()})
    assert run(target, "list").exit_code == 0


def test_a_broker_that_does_not_answer(broker):
    silent = broker({ApiKey.METADATA: lambda _: b"\0"})
    result = run(silent, "list", timeout="0.1")
    assert result.exit_code == 1
    assert "did not answer within 0.1 s" in result.stderr


@pytest.mark.parametrize("server", ["nowhere", "host:0", ":9092", "::1:9092"])
def test_addresses_that_are_none(server):
    result = CliRunner().invoke(trioq, ["topic", "--bootstrap-server", server, "list"])
    assert result.exit_code == 2
    assert "--bootstrap-server" in result.stderr
