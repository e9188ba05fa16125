"""Controllers of several brokers against a real ZooKeeper: election, fencing, review."""

from __future__ import annotations

import pytest

from trioq.controller.topic_rules import NewTopic
from trioq.controller.write_chain import WriteChain
from trioq.errors import NotController
from trioq.metastore.session import SessionState
from trioq.metastore.store import Create

pytestmark = pytest.mark.trio


async def test_one_is_elected_and_the_next_takes_over_when_it_stops(world):
    for broker in (1, 2, 3):
        await world.join(broker)
    first = await world.controller()
    assert [one.controller.is_active for one in world.members.values()].count(True) == 1
    assert (await first.until(lambda image: image.controller_id == first.broker_id)).brokers
    await first.stop()
    second = await world.controller()
    assert second.controller.epoch == first.image.controller_epoch + 1
    await second.until(lambda image: image.controller_id == second.broker_id)


async def test_partitions_of_a_broker_that_stops_get_other_leaders(world):
    for broker in (1, 2, 3):
        await world.join(broker)
    (topic,) = await world.create(NewTopic("orders", 6, 3))
    assert topic.config["min.insync.replicas"] == "2"
    assert sorted(state.leader for state in topic.partitions) == [1, 1, 2, 2, 3, 3]
    controller = await world.controller()
    (gone,) = [one for one in world.live() if one is not controller][:1]
    await gone.stop()
    image = await controller.until(
        lambda image: all(
            gone.broker_id not in state.isr for state in image.topics["orders"].partitions
        )
    )
    for before, state in zip(topic.partitions, image.topics["orders"].partitions, strict=True):
        assert state.leader != gone.broker_id
        assert len(state.isr) == 2
        assert state.leader_epoch == before.leader_epoch + (before.leader == gone.broker_id)
        epochs = {b: image.brokers[b].broker_epoch for b in state.isr}
        assert dict(zip(state.isr, state.broker_epochs, strict=True)) == epochs


async def test_a_controller_whose_connection_falls_silent_is_succeeded_and_fenced(world):
    for broker in (1, 2, 3):
        await world.join(broker)
    old = await world.controller()
    chain = old.controller._term.chain
    old.proxy.fall_silent()
    new = await world.controller(other_than=old)
    # Its lease ends before its session does, so the two never act at once.
    assert not old.controller.is_active
    assert old.controller.admin is None
    assert new.controller.epoch == chain.controller_epoch + 1
    with pytest.raises(NotController):
        await chain.write([])
    # What it had sent before, or sends without minding its lease, is refused by the fence.
    old.proxy.speak()
    await old.metastore.session.changed_from(SessionState.SUSPENDED)
    unaware = WriteChain(new.metastore, chain.controller_epoch)
    with pytest.raises(NotController):
        await unaware.write([Create("/controller/late", b"")])
    await new.until(lambda image: len(image.brokers) == 3)
    assert old.registration.clean
    await new.stop()
    assert (await world.controller()).controller.epoch == chain.controller_epoch + 2
