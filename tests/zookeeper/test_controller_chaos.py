"""Brokers come and go at random, over a real ZooKeeper; in the end everything is in order."""

from __future__ import annotations

import random

import pytest
import trio

from tests.zookeeper.members import SHORT_SESSION_S, Member, World
from trioq.controller.election_state import LogEnd
from trioq.controller.partition_admin import Reassignment, reassignments_in
from trioq.controller.topic_rules import NewTopic
from trioq.metastore import feed, layout, store
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.store import Set
from trioq.types import TopicPartition

pytestmark = pytest.mark.trio

BROKERS = (1, 2, 3, 4)
STEPS = 20


class Chaos:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.draw = random.Random(seed)
        self.topics = 0
        self.silent: list[Member] = []

    async def step(self) -> None:
        chosen = self.draw.choice(
            [self.stop, self.start, self.start, self.silence, self.cut, self.create, self.move]
        )
        await chosen()
        await self.leaders_take_back()
        await trio.sleep(self.draw.random() * 0.2)

    async def join(self, broker: int, *, clean: bool = True) -> None:
        async def ask(asked, partitions):
            return {one: LogEnd(0, asked) for one in partitions}

        await self.world.join(broker, clean=clean, ask_log_ends=ask)

    def some(self) -> Member | None:
        live = self.world.live()
        return self.draw.choice(live) if live else None

    async def stop(self) -> None:
        member = self.some()
        if member is not None and len(self.world.live()) > 2:
            member.proxy.speak()
            await member.stop()

    async def start(self) -> None:
        missing = set(BROKERS) - {one.broker_id for one in self.world.live()}
        if missing:
            broker = self.draw.choice(sorted(missing))
            await self.join(broker, clean=self.draw.random() < 0.5)

    async def silence(self) -> None:
        member = self.some()
        if member is not None and not self.silent:
            member.proxy.fall_silent()
            self.silent.append(member)
        else:
            self.speak()

    def speak(self) -> None:
        for member in self.silent:
            member.proxy.speak()
        self.silent.clear()

    async def cut(self) -> None:
        member = self.some()
        if member is not None:
            member.proxy.cut()
            member.proxy.mend()

    async def create(self) -> None:
        member = self.some()
        admin = None if member is None else member.controller.admin
        if admin is not None:
            self.topics += 1
            new = NewTopic(f"t{self.topics}", self.draw.choice([1, 5, 30]), 2)
            await admin.create_topics([new], timeout_s=1)

    async def move(self) -> None:
        member = self.some()
        admin = None if member is None else member.controller.admin
        if member is None or admin is None or not member.image.topics:
            return
        name, topic = self.draw.choice(sorted(member.image.topics.items()))
        target = self.draw.choice([None, tuple(self.draw.sample(BROKERS, 2))])
        await admin.alter_reassignments(
            [
                Reassignment(TopicPartition(name, number), target)
                for number in range(len(topic.partitions))
            ],
            timeout_s=1,
        )

    async def leaders_take_back(self) -> None:
        """As if each leader had seen its followers catch up."""
        for member in self.world.live():
            if member in self.silent:
                continue
            for topic in list(member.image.topics_by_id.values()):
                for number, state in enumerate(topic.partitions):
                    if state.leader == member.broker_id and set(state.isr) != set(state.replicas):
                        await self.take_back(
                            member, layout.partition_path(topic.topic_id, number), state
                        )

    async def take_back(self, member: Member, path: str, state: layout.PartitionState) -> None:
        brokers = member.image.brokers
        isr = dict(zip(state.isr, state.broker_epochs, strict=True))
        isr |= {one: brokers[one].broker_epoch for one in state.replicas if one in brokers}
        after = state._replace(
            isr=tuple(isr), broker_epochs=tuple(isr.values()), elr=(), elr_epochs=()
        )
        if after == state or isr[member.broker_id] != member.registration.broker_epoch:
            return
        try:
            with trio.move_on_after(1):
                await member.metastore.multi(
                    feed.with_entry([Set(path, after.encode(), state.partition_epoch)])
                )
        except store.MetastoreError:
            pass


def is_settled(image: ClusterImage) -> bool:
    """Every partition and slot is led by a live broker in its epoch, and nothing moves."""
    epochs = {broker.broker_id: broker.broker_epoch for broker in image.brokers.values()}
    for topic in image.topics.values():
        for state in topic.partitions:
            members = dict(zip(state.isr, state.broker_epochs, strict=True))
            if members.get(state.leader, -1) != epochs.get(state.leader):
                return False
            if any(epochs.get(broker) != epoch for broker, epoch in members.items()):
                return False
    slots = all(epochs.get(slot.leader) == slot.broker_epoch for slot in image.slots)
    return slots and len(image.brokers) == len(BROKERS) and not list(reassignments_in(image))


@pytest.mark.parametrize("world", [SHORT_SESSION_S], indirect=True)
@pytest.mark.parametrize("seed", [1, 2])
async def test_after_any_faults_everything_is_led_and_the_images_are_the_stores(world, seed):
    chaos = Chaos(world, seed)
    for broker in BROKERS:
        await chaos.join(broker)
    await world.create(NewTopic("first", 20, 3))
    for _ in range(STEPS):
        await chaos.step()
    chaos.speak()
    for broker in BROKERS:
        if broker not in {one.broker_id for one in world.live()}:
            await chaos.join(broker)
    await world.controller()
    with trio.fail_after(60):
        while not all(is_settled(member.image) for member in world.live()):
            await chaos.leaders_take_back()
            await trio.sleep(0.05)
    fresh = ImageFollower(world.live()[0].metastore)
    await fresh.load()
    for member in world.live():
        await member.until(lambda image: image.position >= fresh.image.position)
        assert member.image.topics == fresh.image.topics
        assert member.image.slots == fresh.image.slots
