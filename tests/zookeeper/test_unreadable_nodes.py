"""Nodes that cannot be read, in a real ZooKeeper: they cost what they are about, and no broker."""

from __future__ import annotations

import pytest
import trio

from tests.zookeeper.members import PATIENCE_S, Member, World
from trioq.controller.partition_admin import Reassignment
from trioq.controller.topic_rules import NewTopic
from trioq.errors import KafkaStorageError
from trioq.logs import captured
from trioq.metastore import feed, layout
from trioq.metastore.image import ClusterImage
from trioq.metastore.image_audit import ImageAudit
from trioq.metastore.store import Create, Node
from trioq.types import TopicPartition

pytestmark = pytest.mark.trio
NONSENSE = b"\xff\xfe{"
EVENT = "a metastore node cannot be read; nobody writes it until it is repaired"


async def damaged(world: World) -> tuple[Member, Member, str]:
    """Three brokers; the partition of "t" led by one that is not the controller is damaged.

    The controller, that leader and the node's path.
    """
    for broker in (1, 2, 3):
        await world.join(broker)
    controller = await world.controller()
    (topic,) = await world.create(NewTopic("t", 6, 3))
    number, state = next(
        (number, state)
        for number, state in enumerate(topic.partitions)
        if state.leader != controller.broker_id
    )
    path = layout.partition_path(topic.topic_id, number)
    await controller.metastore.set(path, NONSENSE, state.partition_epoch)
    return controller, world.members[state.leader], path


def partition_of(image: ClusterImage, path: str) -> layout.PartitionState:
    return image.topics["t"].partitions[int(path.rpartition("/")[2])]


async def run_audit(member: Member) -> None:
    audit = ImageAudit(member.metastore, member.follower, interval_s=0.01)
    await audit.run()


async def audit(member: Member) -> int:
    return await ImageAudit(member.metastore, member.follower).audit()


async def elsewhere(controller: Member, gone: int, path: str) -> None:
    """Wait until what the broker led is led by others, but for the node at `path`."""
    number = int(path.rpartition("/")[2])
    await controller.until(
        lambda image: all(
            state.leader != gone
            for at, state in enumerate(image.topics["t"].partitions)
            if at != number
        )
    )


async def test_the_audit_names_the_node_and_goes_on_with_what_was_known(world):
    controller, _, path = await damaged(world)
    known = controller.image
    with captured() as lines:
        assert await audit(controller) == 1
        assert await audit(controller) == 0
    (line,) = [line for line in lines if line["event"] == EVENT]
    assert line["log_level"] == "error"
    assert line["node"] == path
    assert path in str(line["reason"])
    assert "zkCli.sh" in str(line["what_to_do"])
    assert controller.topic("t") == known.topics["t"]
    assert controller.follower.gauges.unreadable_nodes == 1
    # As the line says: its last known value, written to the node, is taken.
    node = await controller.metastore.get(path)
    await controller.metastore.set(path, str(line["last_known"]).encode(), node.version)
    await audit(controller)
    assert controller.follower.gauges.unreadable_nodes == 0
    state = partition_of(controller.image, path)
    assert state == partition_of(known, path)._replace(partition_epoch=node.version + 1)


async def test_the_audit_survives_nodes_on_which_all_rests(world):
    only = await world.join(1)
    await world.controller()
    (topic,) = await world.create(NewTopic("t", 1))
    state = topic.partitions[0]._replace(leader_epoch=5)
    path = layout.partition_path(topic.topic_id, 0)
    await only.metastore.set(path, state.encode(), state.partition_epoch)  # so that all is read
    slots = await only.metastore.get(layout.SLOTS)
    with captured() as lines, trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await only.metastore.set(layout.SLOTS, NONSENSE, slots.version)
            nursery.start_soon(run_audit, only)
            while [line["event"] for line in lines].count("the image cannot be read again") < 2:
                await trio.sleep(0.01)
            await only.metastore.set(layout.SLOTS, slots.value, slots.version + 1)
            await only.until(lambda image: image.topics["t"].partitions[0].leader_epoch == 5)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_controller_leaves_it_and_elects_for_all_others(world, is_known):
    """Known from an audit, or first met when the controller's own write is refused."""
    controller, leader, path = await damaged(world)
    if is_known:
        await audit(controller)
    damage = await controller.metastore.get(path)
    with captured() as lines:
        await leader.stop()
        await elsewhere(controller, leader.broker_id, path)
        await controller.until(lambda image: path in image.unreadable)
        with trio.fail_after(PATIENCE_S):
            while not controller.controller.offline_partitions:
                await trio.sleep(0.01)
    number = int(path.rpartition("/")[2])
    assert controller.controller.offline_partitions == [TopicPartition("t", number)]
    assert await controller.metastore.get(path) == damage == Node(NONSENSE, damage.version)
    assert partition_of(controller.image, path).leader == leader.broker_id
    assert controller.controller.counters.terms == 1
    assert [line["node"] for line in lines if line["event"] == EVENT] == [path] * (not is_known)
    # Repaired, it gets a leader like the others.
    last_known = controller.image.last_known(path).encode()
    await controller.metastore.set(path, last_known, damage.version)
    await audit(controller)
    await controller.until(lambda image: partition_of(image, path).leader != leader.broker_id)
    with trio.fail_after(PATIENCE_S):
        while controller.controller.offline_partitions:
            await trio.sleep(0.01)


async def test_what_an_administrator_asks_of_it_is_refused(world):
    controller, _, path = await damaged(world)
    await audit(controller)
    admin = controller.controller.admin
    assert admin is not None
    partition = TopicPartition("t", int(path.rpartition("/")[2]))
    (moved,) = await admin.alter_reassignments([Reassignment(partition, (1, 2))])
    assert isinstance(moved.error, KafkaStorageError)
    assert path in str(moved.error)
    elected = await admin.elect_leaders(None)
    assert [path in str(one.error) for one in elected].count(True) == 1
    (deleted,) = await admin.delete_topics(["t"])
    assert deleted.error is None, "the way out for who has no good value"
    assert await controller.metastore.get_many([path]) == [None]
    await controller.until(lambda image: not image.unreadable)


async def test_a_broker_that_never_knew_it_serves_everything_else(world):
    old, _, path = await damaged(world)
    late = await world.join(4)
    await late.until(lambda image: 4 in image.brokers)
    assert partition_of(late.image, path) is layout.UNKNOWN_STATE
    for number, state in enumerate(late.topic("t").partitions):
        if late.image.is_readable(late.topic("t").topic_id, number):
            assert state == old.topic("t").partitions[number]
    # It may even become the controller, and leaves the node and its topic alone.
    for broker in (1, 2, 3):
        await world.members[broker].stop()
    new = await world.controller()
    assert new is late
    await late.until(lambda image: image.controller_id == 4)
    node = await late.metastore.get(path)
    assert node.value == NONSENSE
    assert set(late.image.topics) == {"t"}


async def test_a_feed_entry_that_cannot_be_read_has_everything_read_anew(world):
    only = await world.join(1)
    (topic,) = await world.create(NewTopic("t", 1))
    state = topic.partitions[0]._replace(leader_epoch=5)
    path = layout.partition_path(topic.topic_id, 0)
    await only.metastore.set(path, state.encode(), state.partition_epoch)
    with captured() as lines:
        await only.metastore.multi([Create(f"{layout.FEED_ENTRIES}/e-", NONSENSE, sequential=True)])
        await only.until(lambda image: image.topics["t"].partitions[0].leader_epoch == 5)
    assert any("a feed entry cannot be read" in str(line["event"]) for line in lines)
    assert only.image.position == await feed.last_sequence(only.metastore)


async def test_a_registration_that_cannot_be_read_counts_as_the_last_one(world):
    one = await world.join(1)
    two = await world.join(2)
    await one.until(lambda image: image.brokers.keys() == {1, 2})
    path = two.registration.path()
    node = await two.metastore.get(path)
    with captured() as lines:
        await two.metastore.set(path, NONSENSE, node.version)
        await world.join(3)  # so that they are read
        image = await one.until(lambda image: 3 in image.brokers)
    assert image.brokers.keys() == {1, 2, 3}
    assert any("registration cannot be read" in str(line["event"]) for line in lines)


async def test_without_its_epoch_there_is_no_controller_but_there_are_brokers(world):
    only = await world.join(1)
    await world.controller()
    with captured() as lines:
        epoch = await only.metastore.get(layout.CONTROLLER_EPOCH)
        await only.metastore.delete(layout.CONTROLLER_EPOCH, epoch.version)
        only.proxy.cut()
        only.proxy.mend()
        with trio.fail_after(PATIENCE_S):
            while not any(line["event"] == "the controller cannot act" for line in lines):
                await trio.sleep(0.01)
    assert not only.controller.is_active
    assert not only.ended.is_set()
