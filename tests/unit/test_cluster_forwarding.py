"""Requests for the controller that reach another broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trioq.cluster.forwarding import (
    FORWARDED_BY,
    LOOK_PATIENCE_S,
    PATIENCE_S,
    ROLE_PATIENCE_S,
    Forwarder,
    RoutedAdmin,
    forwarded_frame,
)
from trioq.controller.topic_rules import NewPartitions, NewTopic
from trioq.controller.topics import CreatedTopic
from trioq.errors import (
    InvalidTopicException,
    NotController,
    PeerUnreachable,
    RequestTimedOut,
    TopicAlreadyExists,
)
from trioq.metastore.image import ClusterImage
from trioq.server.context import Request
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.header import decode_request_header, response_header
from trioq.wire.messages.create_topics import CreateTopicsResponse, CreateTopicsResponseTopic

pytestmark = pytest.mark.trio
FORWARDED = sorted(
    {ApiKey.CREATE_TOPICS, ApiKey.DELETE_TOPICS, ApiKey.CREATE_PARTITIONS, ApiKey.ALTER_CONFIGS}
)


class World:
    """One broker, number 1, and what it knows and reaches of the others."""

    def __init__(self, controller_id: int = 2) -> None:
        self.admin: Any = None
        self.image = ClusterImage(controller_id=controller_id, brokers=dict.fromkeys((1, 2, 3)))
        self.asked: list[tuple[int, Any]] = []
        self.answers: list[Any] = []
        self.caught_up = 0
        self.forwarder = Forwarder(1, self, self, self)
        self.routed = RoutedAdmin(self, self.forwarder)

    def elect(self, broker_id: int) -> None:
        self.image = ClusterImage(controller_id=broker_id, brokers=self.image.brokers)

    async def catch_up(self) -> None:
        self.caught_up += 1
        await trio.lowlevel.checkpoint()

    async def forward(self, broker_id: int, frame: bytes, *, timeout_s: float) -> bytes:
        return await self._answer(broker_id, frame)

    async def call(
        self, broker_id: int, request: Any, *, api_version: int, timeout_s: float
    ) -> Any:
        return await self._answer(broker_id, request)

    async def _answer(self, broker_id: int, request: Any) -> Any:
        self.asked.append((broker_id, request))
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def request_of(
    api: ApiKey = ApiKey.CREATE_TOPICS, version: int = 7, client_id: str | None = "admin"
) -> Request:
    request = Request.__new__(Request)
    request.api_key, request.api_version = api, version
    request.correlation_id, request.client_id = 77, client_id
    request.body = memoryview(b"----the body====")
    request.position, request.end = 4, 12
    return request


@given(
    st.sampled_from(FORWARDED).flatmap(
        lambda key: st.tuples(
            st.just(key), st.integers(APIS[key].min_version, APIS[key].max_version)
        )
    ),
    st.none() | st.text(max_size=5),
)
async def test_a_request_is_passed_on_as_it_is_but_for_who_sends_it(api, client_id):
    key, version = api
    frame = forwarded_frame(request_of(key, version, client_id), broker_id=3)
    header = decode_request_header(memoryview(frame), 0, len(frame))
    assert header[:4] == (key, version, 77, "trioq-forwarded-by-3")
    assert frame[header.position :] == b"the body"


async def test_the_controllers_answer_is_passed_back():
    world = World()
    world.answers = [response_header(ApiKey.CREATE_TOPICS, 7, 77) + b"the answer"]
    assert await world.forwarder.forward(request_of()) == b"the answer"
    assert [broker for broker, _ in world.asked] == [2]
    assert world.caught_up == 1, "this broker shows what was done, too"


async def test_the_controller_answers_itself():
    world = World(controller_id=1)
    world.admin = object()
    assert await world.forwarder.forward(request_of()) is None
    assert not world.asked


async def test_a_controller_that_is_elected_meanwhile_is_asked(autojump_clock):
    world = World()
    world.answers = [PeerUnreachable("broker 2 is gone"), response_header(19, 7, 77) + b"x"]

    async def elect() -> None:
        await trio.sleep(0.01)
        world.elect(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(elect)
        assert await world.forwarder.forward(request_of()) == b"x"
    assert [broker for broker, _ in world.asked] == [2, 3]


async def test_a_broker_that_becomes_controller_meanwhile_answers_itself(autojump_clock):
    world = World(controller_id=-1)

    async def win() -> None:
        await trio.sleep(1)
        world.admin = object()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(win)
        assert await world.forwarder.forward(request_of()) is None
    assert not world.asked


async def test_without_a_controller_a_request_waits_only_so_long(autojump_clock):
    world = World(controller_id=-1)
    began_s = trio.current_time()
    assert await world.forwarder.forward(request_of()) is None
    assert trio.current_time() - began_s == pytest.approx(PATIENCE_S)
    began_s = trio.current_time()
    look = request_of(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0)
    assert await world.forwarder.forward(look) is None
    assert trio.current_time() - began_s == pytest.approx(LOOK_PATIENCE_S)
    (grown,) = await world.routed.create_partitions([NewPartitions("t", 3)])
    assert isinstance(grown.error, NotController)


async def test_what_was_passed_on_is_not_passed_on_again(autojump_clock):
    world = World(controller_id=1)  # so it is thought elsewhere, but the role is not here yet
    request = request_of(client_id=f"{FORWARDED_BY}3")
    began_s = trio.current_time()
    assert await world.forwarder.forward(request) is None
    assert trio.current_time() - began_s == pytest.approx(ROLE_PATIENCE_S)
    world.elect(2)
    began_s = trio.current_time()
    assert await world.forwarder.forward(request) is None
    assert trio.current_time() == began_s
    assert not world.asked


async def test_topics_are_created_on_first_use_through_the_controller():
    world = World()
    world.answers = [
        CreateTopicsResponse(
            topics=[
                CreateTopicsResponseTopic(name="a", num_partitions=3, replication_factor=3),
                CreateTopicsResponseTopic(name="b", error_code=TopicAlreadyExists.code),
                CreateTopicsResponseTopic(
                    name="c", error_code=InvalidTopicException.code, error_message="no"
                ),
            ]
        )
    ]
    made, existing, wrong = await world.routed.create_topics([NewTopic(one) for one in "abc"])
    ((broker_id, request),) = world.asked
    assert broker_id == 2
    assert [(one.name, one.num_partitions) for one in request.topics] == [
        ("a", -1),
        ("b", -1),
        ("c", -1),
    ]
    assert made[2:] == (3, 3, {}, None)
    assert isinstance(existing.error, TopicAlreadyExists)
    assert isinstance(wrong.error, InvalidTopicException)
    assert str(wrong.error) == "no"


async def test_the_controller_creates_topics_itself():
    world = World(controller_id=1)

    async def create_topics(topics, *, validate_only, timeout_s):
        await trio.lowlevel.checkpoint()
        return [CreatedTopic(topic.name) for topic in topics]

    world.admin = SimpleNamespace(create_topics=create_topics)
    assert await world.routed.create_topics([NewTopic("a")]) == [CreatedTopic("a")]


async def test_topics_that_no_controller_creates_time_out(autojump_clock):
    world = World(controller_id=-1)
    (created,) = await world.routed.create_topics([NewTopic("a")], timeout_s=5)
    assert isinstance(created.error, RequestTimedOut)
