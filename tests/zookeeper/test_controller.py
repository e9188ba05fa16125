"""Controllers of several brokers against a real ZooKeeper: election, fencing, review."""

from __future__ import annotations

import uuid

import pytest
import trio

from tests.zookeeper.members import PATIENCE_S, SHORT_SESSION_S
from trioq.controller import topic_plan
from trioq.controller.election_state import LogEnd, first_state
from trioq.controller.partition_admin import Reassignment, reassignments_in
from trioq.controller.topic_rules import NewTopic
from trioq.controller.write_chain import WriteChain
from trioq.errors import NotController, StaleBrokerEpoch
from trioq.metastore import feed, layout
from trioq.metastore.image_audit import ImageAudit
from trioq.metastore.layout import TopicNode
from trioq.metastore.session import SessionState
from trioq.metastore.store import Create, Set
from trioq.types import TopicPartition

pytestmark = pytest.mark.trio


async def three(world, **options):
    for broker in (1, 2, 3):
        await world.join(broker, **options)
    controller = await world.controller()
    await controller.until(lambda image: len(image.brokers) == len(world.members))
    return controller


async def until(holds):
    with trio.fail_after(PATIENCE_S):
        while not holds():
            await trio.sleep(0.005)


def another(world, *than):
    return next(one for one in world.live() if one not in than)


async def test_one_is_elected_and_the_next_takes_over_when_it_stops(world):
    first = await three(world)
    assert [one.controller.is_active for one in world.members.values()].count(True) == 1
    assert (await first.until(lambda image: image.controller_id == first.broker_id)).brokers
    assert first.controller.counters.active == 1
    await first.stop()
    second = await world.controller()
    assert second.controller.epoch == first.image.controller_epoch + 1
    await second.until(lambda image: image.controller_id == second.broker_id)


async def test_partitions_of_a_broker_that_stops_get_other_leaders(world):
    controller = await three(world)
    (topic,) = await world.create(NewTopic("orders", 6, 3))
    assert topic.config["min.insync.replicas"] == "2"
    assert sorted(state.leader for state in topic.partitions) == [1, 1, 2, 2, 3, 3]
    gone = another(world, controller)
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


@pytest.mark.parametrize("world", [SHORT_SESSION_S], indirect=True)
async def test_safety_7_a_controller_whose_connection_falls_silent_is_succeeded_and_fenced(world):
    old = await three(world)
    chain = old.controller._term.chain
    old.proxy.fall_silent()
    new = await world.controller(other_than=old)
    # Its lease ends before its session does, so the two never act at once.
    assert not old.controller.is_active
    assert old.controller.admin is None
    assert new.controller.epoch == chain.controller_epoch + 1
    with pytest.raises(NotController):
        await chain.write([])
    # What it had sent before, or sends without minding its lease, is refused by the fence:
    # although the new controller's ephemeral has version 0, as its own had.
    old.proxy.speak()
    await old.metastore.session.changed_from(SessionState.SUSPENDED)
    unaware = WriteChain(new.metastore, chain.controller_epoch)
    with pytest.raises(NotController):
        await unaware.write([Create("/controller/late", b"")])
    with pytest.raises(NotController):
        await unaware.write_all([[Create("/controller/late", b"")]])
    await new.until(lambda image: len(image.brokers) == 3)
    assert old.registration.clean
    await new.stop()
    assert (await world.controller()).controller.epoch == chain.controller_epoch + 2


async def test_safety_7_what_was_written_before_the_claim_is_read_before_anything_is_decided(world):
    first = await world.join(1)
    second = await world.join(2)
    await world.controller()
    await second.follower._lock.acquire()  # from now on it reads nothing
    await world.create(NewTopic("late", 1, 1))
    await first.stop()
    with trio.fail_after(30):
        while (await second.metastore.get(layout.CONTROLLER_EPOCH)).version < 2:
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert not second.controller.is_active
    second.follower._lock.release()
    assert await world.controller() is second
    assert "late" in second.image.topics


async def test_a_broken_connection_ends_the_term_and_the_next_begins_in_the_same_session(world):
    only = await world.join(1)
    await world.controller()
    epoch = only.controller.epoch
    only.proxy.cut()
    await only.metastore.session.changed_from(SessionState.CONNECTED)
    await trio.testing.wait_all_tasks_blocked()
    assert not only.controller.is_active
    only.proxy.mend()
    await world.controller()
    assert only.controller.epoch == epoch + 1
    assert only.metastore.session.generation == 1


async def test_a_controller_of_another_registration_does_not_stand(world):
    only = await world.join(1)
    await world.controller()
    with trio.fail_after(60):
        await only.controller.run(only.registration.broker_epoch + 1)


async def test_safety_6_a_restart_with_another_directory_leaves_every_isr_first(world):
    await three(world)
    await world.create(NewTopic("t", 3, 3))
    controller = await world.controller()
    gone = another(world, controller)
    await gone.stop()
    back = await world.join(gone.broker_id, clean=True, directory="new-disk")
    assert not back.registration.clean
    image = await controller.until(
        lambda image: (
            image.brokers.get(back.broker_id) == back.registration
            and all(back.broker_id not in state.isr for state in image.topics["t"].partitions)
        )
    )
    assert all(state.leader != back.broker_id for state in image.topics["t"].partitions)


async def test_safety_9_after_unclean_stops_of_all_the_longest_log_leads(world):
    async def ask(broker, partitions):
        return {one: LogEnd(0, 100 + broker) for one in partitions}

    await three(world)
    await world.create(NewTopic("t", 1, 3))
    for member in world.live():
        await member.stop()
    for broker in (1, 2):
        await world.join(broker, clean=False, ask_log_ends=ask)
    controller = await world.controller()
    # The last leader may be one of the two: until the first review it leads by its old epoch.
    image = await controller.until(
        lambda image: len(image.brokers) == 2 and image.topics["t"].partitions[0].leader == -1
    )
    assert image.topics["t"].partitions[0].isr
    await until(lambda: controller.controller.counters.offline_partitions == 1)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert controller.topic("t").partitions[0].leader == -1
    assert controller.controller.offline_partitions == [TopicPartition("t", 0)]
    await world.join(3, clean=False, ask_log_ends=ask)
    image = await controller.until(lambda image: image.topics["t"].partitions[0].leader == 3)
    assert image.topics["t"].partitions[0].isr == (3,)
    assert image.topics["t"].partitions[0].broker_epochs == (image.brokers[3].broker_epoch,)


async def test_safety_16_the_controller_trims_what_leaders_wrote_as_well(world):
    only = await world.join(1)
    await world.controller()
    config = layout.BrokerConfig({}).encode()
    path = layout.BrokerConfig.path("")
    await only.metastore.multi(feed.with_entry([Create(path, config)]))
    for version in range(1_150):
        await only.metastore.multi(feed.with_entry([Set(path, config, version)]))
    assert await only.controller._term.chain.trim() > 0
    names = await only.metastore.children(layout.FEED_ENTRIES)
    assert len(names) == feed.KEPT_ENTRIES


async def test_safety_16_an_image_that_differs_from_the_store_is_read_again(world):
    only = await world.join(1)
    (topic,) = await world.create(NewTopic("t", 2))
    audit = ImageAudit(only.metastore, only.follower)
    assert await audit.audit() == 0
    state = topic.partitions[1]._replace(leader_epoch=9)
    # Behind the brokers' backs: without an entry of the feed.
    path = layout.partition_path(topic.topic_id, 1)
    await only.metastore.set(path, state.encode(), state.partition_epoch)
    assert only.topic("t").partitions[1].leader_epoch == 0
    assert await audit.audit() == 1
    assert only.topic("t").partitions[1].leader_epoch == 9
    assert await audit.audit() == 0


async def test_what_a_controller_left_half_done_is_undone_by_the_next(world):
    await world.join(1)
    await world.join(2)
    old = await world.controller()
    chain = old.controller._term.chain
    await world.create(NewTopic("whole", 2))
    half = uuid.uuid4()
    states = [first_state((1,), {1: 0})] * 1_200
    plan = topic_plan.creation(half, TopicNode("half", 1_200), states)
    for step in plan.steps[:2]:
        await chain.write(step)
    whole = old.topic("whole")
    growth = topic_plan.growth(whole, states)
    await chain.write(growth.steps[0])
    await old.stop()
    new = await world.controller()
    assert new.image.unfinished_topics() == ()
    assert len(new.topic("whole").partitions) == 2
    paths = [layout.topic_path(half), layout.partition_path(whole.topic_id, 2)]
    assert await new.metastore.get_many(paths) == [None, None]
    await world.create(NewTopic("half", 3))


async def test_safety_17_a_batch_that_a_leader_overtook_is_written_again_without_the_loser(world):
    controller = await three(world)
    overtaken, _ = await world.create(NewTopic("t", 1, 3), NewTopic("u", 2, 3))
    gone = another(world, controller)
    chain = controller.controller._term.chain
    windows, was_refused = [], trio.Event()

    async def write_all(writes):
        written = await WriteChain.write_all(chain, writes)
        if writes[0][0].path.startswith(layout.TOPIC_IDS):
            windows.append([operation.path for write in writes for operation in write])
            if written.refused:
                was_refused.set()
        return written

    chain.write_all = write_all
    # A change by a leader that the controller has not seen when it decides.
    await controller.follower._lock.acquire()
    state = overtaken.partitions[0]
    after = state._replace(isr=state.isr[:2], broker_epochs=state.broker_epochs[:2])
    path = layout.partition_path(overtaken.topic_id, 0)
    await controller.metastore.multi(
        feed.with_entry([Set(path, after.encode(), state.partition_epoch)])
    )
    await gone.stop()
    with trio.fail_after(PATIENCE_S):
        await was_refused.wait()
    controller.follower._lock.release()
    image = await controller.until(
        lambda image: all(
            gone.broker_id not in state.isr
            for topic in image.topics.values()
            for state in topic.partitions
        )
    )
    others = {layout.partition_path(image.topics["u"].topic_id, number) for number in range(2)}
    first, second, *_ = windows
    assert set(first) == {path, *others}
    assert set(second) == others
    assert [state.partition_epoch for state in image.topics["u"].partitions] == [1, 1]


async def test_safety_17_two_hundred_leaders_that_died_are_followed_in_two_multis(world):
    controller = await three(world)
    gone, other = (one for one in world.live() if one is not controller)
    ids = gone.broker_id, other.broker_id, controller.broker_id
    led = {number: list(ids) for number in range(200)}
    followed = {number: [ids[2], ids[0], ids[1]] for number in range(200, 300)}
    await world.create(NewTopic("t", assignments={**followed, **led}))
    chain = controller.controller._term.chain
    windows = []

    async def write_all(writes):
        windows.append(writes)
        return await WriteChain.write_all(chain, writes)

    chain.write_all = write_all
    await gone.stop()
    image = await controller.until(
        lambda image: all(gone.broker_id not in one.isr for one in image.topics["t"].partitions)
    )
    (writes,) = [window for window in windows if window[0][0].path.startswith(layout.TOPIC_IDS)]
    assert [len(write) for write in writes] == [100, 100, 100]
    numbers = [int(one.path.rpartition("/")[2]) for write in writes[:2] for one in write]
    assert sorted(numbers) == list(range(200))
    assert {one.leader for one in image.topics["t"].partitions[:200]} == {other.broker_id}


async def test_a_broker_that_stops_in_order_leads_nothing_before_it_does(world):
    controller = await three(world)
    await world.create(NewTopic("t", 6, 3), NewTopic("alone", 3, 1))
    leaving = another(world, controller)
    with pytest.raises(StaleBrokerEpoch):
        await controller.controller.hand_over(leaving.broker_id, 77)
    with pytest.raises(NotController):
        await another(world, controller).controller.hand_over(leaving.broker_id, -1)
    assert not await controller.controller.hand_over(
        leaving.broker_id, leaving.registration.broker_epoch
    )
    image = controller.image
    assert all(
        leaving.broker_id != state.leader and leaving.broker_id not in state.isr
        for state in image.topics["t"].partitions
    )
    assert leaving.broker_id in [state.leader for state in image.topics["alone"].partitions]
    assert leaving.broker_id not in [slot.leader for slot in image.slots]
    # Taken back by its leader into an ISR, it is not thrown out each time it asks.
    topic = image.topics["t"]
    state = topic.partitions[0]
    back = state._replace(
        isr=(*state.isr, leaving.broker_id),
        broker_epochs=(*state.broker_epochs, leaving.registration.broker_epoch),
    )
    path = layout.partition_path(topic.topic_id, 0)
    await controller.metastore.multi(
        feed.with_entry([Set(path, back.encode(), state.partition_epoch)])
    )
    await controller.until(lambda image: len(image.topics["t"].partitions[0].isr) == 3)
    assert not await controller.controller.hand_over(leaving.broker_id, -1)
    assert leaving.broker_id in controller.topic("t").partitions[0].isr
    # The controller can hand over its own.
    assert not await controller.controller.hand_over(controller.broker_id, -1)
    last = another(world, controller, leaving).broker_id
    assert {state.leader for state in controller.topic("t").partitions} == {last}
    # With nobody left who stays, what the last one leads stays with it, and nothing is waited for.
    led = controller.topic("t").partitions
    assert not await controller.controller.hand_over(last, -1)
    assert controller.topic("t").partitions == led
    assert {slot.leader for slot in controller.image.slots} == {last}


async def test_every_slot_has_a_live_leader(world):
    controller = await three(world)
    await controller.until(lambda image: all(slot.leader != -1 for slot in image.slots))
    gone = another(world, controller)
    await controller.controller._term.reviewer.balance(partitions=False)
    image = await controller.until(lambda image: {slot.leader for slot in image.slots} == {1, 2, 3})
    await gone.stop()
    image = await controller.until(
        lambda image: gone.broker_id not in {slot.leader for slot in image.slots}
    )
    for slot in image.slots:
        assert slot.broker_epoch == image.brokers[slot.leader].broker_epoch


async def test_slots_and_leaders_are_balanced_soon_after_a_broker_came(world):
    config = {"leader.imbalance.check.interval.seconds": "1"}
    controller = await world.join(1, settled_after_s=0.05, config=config)
    await world.join(2)
    await controller.until(lambda image: {slot.leader for slot in image.slots} == {1, 2})
    await world.create(NewTopic("t", assignments={0: [2, 1]}))
    await world.members[2].stop()
    await controller.until(lambda image: image.topics["t"].partitions[0].leader == 1)
    back = await world.join(2)
    image = await controller.until(lambda image: {slot.leader for slot in image.slots} == {1, 2})
    state = image.topics["t"].partitions[0]
    assert state.leader == 1
    joined = state._replace(
        isr=(1, 2), broker_epochs=(*state.broker_epochs, back.registration.broker_epoch)
    )
    path = layout.partition_path(image.topics["t"].topic_id, 0)
    await controller.metastore.multi(
        feed.with_entry([Set(path, joined.encode(), state.partition_epoch)])
    )
    await controller.until(lambda image: image.topics["t"].partitions[0].leader == 2)


async def test_replicas_move_when_the_new_ones_are_in_sync(world):
    controller = await three(world)
    await world.join(4)
    await controller.until(lambda image: len(image.brokers) == 4)
    (topic,) = await world.create(
        NewTopic("t", assignments={number: [1, 2, 3] for number in range(250)})
    )
    admin = controller.controller.admin
    altered = await admin.alter_reassignments(
        [Reassignment(TopicPartition("t", number), (4, 2, 3)) for number in range(250)]
    )
    assert {one.error for one in altered} == {None}
    moving = list(reassignments_in(controller.image))
    assert len(moving) == 250
    # As their leader writes it when the new replica has caught up.
    for start in range(0, 250, 50):
        await controller.metastore.multi(
            feed.with_entry(
                [
                    Set(
                        layout.partition_path(topic.topic_id, where.partition),
                        state._replace(
                            isr=(*state.isr, 4), broker_epochs=(*state.broker_epochs, 0)
                        ).encode(),
                        state.partition_epoch,
                    )
                    for where, state in moving[start : start + 50]
                ]
            )
        )
    image = await controller.until(lambda image: not list(reassignments_in(image)))
    for state in image.topics["t"].partitions:
        assert (state.replicas, set(state.isr), state.leader) == ((4, 2, 3), {4, 2, 3}, 4)


async def test_preferred_leaders_lead_again(world):
    controller = await three(world)
    await world.create(NewTopic("t", 6, 3))
    leaving = another(world, controller)
    await controller.controller.hand_over(leaving.broker_id, -1)
    state = controller.controller._term.reviewer.state
    state.leaving.clear()
    topic = controller.topic("t")
    # In sync again, as their leaders write it.
    await controller.metastore.multi(
        feed.with_entry(
            [
                Set(
                    layout.partition_path(topic.topic_id, number),
                    one._replace(
                        isr=(*one.isr, leaving.broker_id), broker_epochs=(*one.broker_epochs, 0)
                    ).encode(),
                    one.partition_epoch,
                )
                for number, one in enumerate(topic.partitions)
            ]
        )
    )
    await controller.until(
        lambda image: all(len(one.isr) == 3 for one in image.topics["t"].partitions)
    )
    await controller.controller._term.reviewer.balance(partitions=True)
    assert all(one.leader == one.replicas[0] for one in controller.topic("t").partitions)
