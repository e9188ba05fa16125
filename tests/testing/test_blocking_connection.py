"""The connection of the testing tools against a broker whose answers are written here."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.unit.scripted_broker import Answer, ScriptedBroker
from trioq.client.address import HostPort
from trioq.errors import InvalidConfig, NotController, UnknownTopicOrPartition
from trioq.testing import blocking_topics
from trioq.testing.blocking_connection import AdminError, BlockingConnection
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.create_topics import CreateTopicsResponse, CreateTopicsResponseTopic
from trioq.wire.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponseTopic,
)
from trioq.wire.schema import Message


@pytest.fixture
def broker():
    running = []

    def start(answers: dict[ApiKey, Answer] | None = None, **options) -> ScriptedBroker:
        running.append(ScriptedBroker(answers or {}, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def connected(broker: ScriptedBroker, timeout_s: float = 5) -> BlockingConnection:
    return BlockingConnection(HostPort("127.0.0.1", broker.port), timeout_s=timeout_s)


def metadata(_: Message) -> Message:
    return MetadataResponse(brokers=[MetadataResponseBroker(node_id=1, host="h", port=1)])


def ask(broker: ScriptedBroker, timeout_s: float = 5) -> MetadataResponse:
    with connected(broker, timeout_s) as connection:
        return connection.ask(ApiKey.METADATA, MetadataRequest(topics=[]), MetadataResponse)


def test_an_answer(broker):
    assert ask(broker({ApiKey.METADATA: metadata})).brokers[0].host == "h"


def test_nobody_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = HostPort("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(AdminError, match=f"no broker answers at {address}"):
        BlockingConnection(address, timeout_s=5)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, r"broke \(closed by the other side\)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Kafka's protocol"),
        (struct.pack(">i", -1), "does not speak Kafka's protocol"),
        (struct.pack(">ii", 4, 999), "answer 999 to request"),
        (struct.pack(">iib", 5, 2, 0), "does not speak Kafka's protocol"),
    ],
)
def test_answers_that_are_none(broker, answer, expected):
    with pytest.raises(AdminError, match=expected):
        ask(broker({ApiKey.METADATA: lambda _: answer}))


def test_an_api_that_is_not_served(broker):
    with pytest.raises(AdminError, match="does not serve Metadata"):
        ask(broker(served={ApiKey.API_VERSIONS}))


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
    assert ask(broker({ApiKey.API_VERSIONS: lambda _: frame, ApiKey.METADATA: metadata})).brokers


def test_a_broker_that_does_not_answer(broker):
    with pytest.raises(AdminError, match=r"did not answer within 0\.1 s"):
        ask(broker({ApiKey.METADATA: lambda _: b"\0"}), timeout_s=0.1)


def created(code: int = 0, message: str | None = None) -> Message:
    topic = CreateTopicsResponseTopic(name="orders", error_code=code, error_message=message)
    return CreateTopicsResponse(topics=[topic])


def test_a_topic_is_created_once_the_broker_is_controller(broker, monkeypatch):
    monkeypatch.setattr(blocking_topics, "_RETRY_PAUSE_S", 0)
    answers = iter([created(NotController.code), created()])
    target = broker({ApiKey.CREATE_TOPICS: lambda _: next(answers)})
    with connected(target) as connection:
        blocking_topics.create_topic(connection, "orders", 3, {"flush.ms": "5"}, timeout_s=5)
    (topic,) = target.requests[-1].topics
    assert (topic.name, topic.num_partitions) == ("orders", 3)
    assert [(one.name, one.value) for one in topic.configs] == [("flush.ms", "5")]
    assert next(answers, None) is None


def test_refusals_say_why(broker):
    unknown = MetadataResponse(
        topics=[MetadataResponseTopic(name="orders", error_code=UnknownTopicOrPartition.code)]
    )
    target = broker(
        {
            ApiKey.CREATE_TOPICS: lambda _: created(InvalidConfig.code, "soon is not valid"),
            ApiKey.METADATA: lambda _: unknown,
        }
    )
    with connected(target) as connection:
        with pytest.raises(AdminError, match="orders was not created: soon is not valid") as error:
            blocking_topics.create_topic(connection, "orders", 3, {}, timeout_s=5)
        assert error.value.code == InvalidConfig.code
        with pytest.raises(AdminError, match="there is no such topic"):
            blocking_topics.extents(connection, "orders")
