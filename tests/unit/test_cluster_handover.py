"""Controlled shutdown as the broker that stops sees it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import trio

from trioq.cluster.handover import Handover
from trioq.errors import NotController, PeerUnreachable
from trioq.logs import captured
from trioq.metastore.image import ClusterImage, SlotImage, TopicImage
from trioq.metastore.layout import NO_CONFIG, BrokerRegistration, PartitionState
from trioq.metastore.store import SessionLost
from trioq.types import TopicPartition
from trioq.wire.messages.controlled_shutdown import (
    ControlledShutdownResponse,
    ControlledShutdownResponsePartition,
)

pytestmark = pytest.mark.trio
TOPIC_ID = uuid.UUID(int=7)
US = BrokerRegistration(1, 5, None, {}, ("dir",), "host", "incarnation", True)


class World:
    """Broker 1, which stops; what it knows, and who answers."""

    def __init__(self, *, controller_id: int = 2, leader: int = 1, slot_leader: int = 2) -> None:
        self.is_active = controller_id == 1
        self.asked: list[Any] = []
        self.answers: list[Any] = []
        self.image = self._image(controller_id, leader, slot_leader)
        self.written: ClusterImage | None = None
        self.reads: list[Any] = []
        self.handover = Handover(self, self, self, self)

    def _image(self, controller_id: int, leader: int, slot_leader: int) -> ClusterImage:
        states = (
            PartitionState(leader, 0, (1, 2), (5, 5), (1, 2)),
            PartitionState(1, 0, (1,), (5,), (1,)),  # nobody else holds it
        )
        topic = TopicImage("t", TOPIC_ID, states, NO_CONFIG, 0)
        return ClusterImage(
            controller_id=controller_id,
            topics={"t": topic},
            topics_by_id={TOPIC_ID: topic},
            brokers=dict.fromkeys((1, 2)),
            slots=(SlotImage(slot_leader, 5, 0),),
        )

    def write(self, **changed: int) -> None:
        """What the controller has written, and this broker not read yet."""
        self.written = self._image(**{"controller_id": 2, "leader": 2, "slot_leader": 2, **changed})

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()
        outcome = self.reads.pop(0) if self.reads else None
        if outcome is not None:
            raise outcome
        self.image, self.written = self.written or self.image, self.image

    async def catch_up(self) -> None:
        await trio.lowlevel.checkpoint()

    async def call(
        self, broker_id: int, request: Any, *, api_version: int, timeout_s: float
    ) -> Any:
        self.asked.append((broker_id, request.broker_id, request.broker_epoch))
        return await self._answer()

    async def hand_over(self, broker_id: int, broker_epoch: int) -> Any:
        self.asked.append((1, broker_id, broker_epoch))
        return await self._answer()

    async def _answer(self) -> Any:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


REMAINING = ControlledShutdownResponse(
    remaining_partitions=[ControlledShutdownResponsePartition(topic_name="t", partition_index=0)]
)


async def test_it_asks_until_nothing_remains_and_its_own_image_shows_it(autojump_clock):
    world = World()
    world.answers = [
        PeerUnreachable("broker 2 is busy"),
        ControlledShutdownResponse(error_code=NotController.code),
        REMAINING,
        ControlledShutdownResponse(),
    ]
    world.write()
    with captured() as lines:
        await world.handover.run(US, timeout_s=5)
    assert world.asked == [(2, 1, 5)] * 4
    assert world.image.topics["t"].partitions[0].leader == 2
    assert lines[-1]["event"] == "leaderships handed over"
    assert lines[-1]["remaining"] == 0


async def test_the_controller_hands_over_its_own(autojump_clock):
    world = World(controller_id=1)
    world.answers = [[TopicPartition("t", 0)], []]
    world.write(controller_id=1)
    await world.handover.run(US, timeout_s=5)
    assert world.asked == [(1, 1, 5)] * 2


async def test_it_asks_again_where_it_could_not_read_what_was_written(autojump_clock):
    world = World()
    world.answers = [ControlledShutdownResponse()]
    world.reads = [SessionLost("gone")]
    world.write()
    await world.handover.run(US, timeout_s=5)
    assert world.asked == [(2, 1, 5)] * 2
    assert world.image.topics["t"].partitions[0].leader == 2


async def test_where_all_others_stop_too_there_is_nothing_to_wait_for(autojump_clock):
    world = World()
    world.answers = [ControlledShutdownResponse()]
    began_s = trio.current_time()
    with captured() as lines:
        await world.handover.run(US, timeout_s=5)
    assert trio.current_time() == began_s
    assert lines[-1]["remaining"] == 1


async def test_what_remains_is_told_after_so_long(autojump_clock):
    world = World()
    world.answers = [REMAINING]
    began_s = trio.current_time()
    with captured() as lines:
        await world.handover.run(US, timeout_s=5)
    assert trio.current_time() - began_s == pytest.approx(5)
    assert lines[-1]["reason"] == "no other replica is in sync yet to lead them"
    assert lines[-1]["remaining"] == 1


async def test_who_leads_nothing_leaves_the_isrs_of_others():
    world = World(leader=2)
    world.answers = [ControlledShutdownResponse()]
    await world.handover.run(US, timeout_s=5)
    assert world.asked == [(2, 1, 5)]


async def test_nobody_is_asked_where_there_is_nothing_to_hand_over():
    world = World(leader=2)
    world.image = ClusterImage(brokers=world.image.brokers)
    await world.handover.run(US, timeout_s=5)
    alone = World()
    alone.image = ClusterImage(
        topics=alone.image.topics, topics_by_id=alone.image.topics_by_id, brokers={1: None}
    )
    await alone.handover.run(US, timeout_s=5)
    assert not world.asked
    assert not alone.asked
