"""Coordination slots: created with the cluster or later, taken over at start."""

from __future__ import annotations

import pytest
import trio

from trioq.controller.takeover import take_over_alone
from trioq.metastore import feed, layout, store
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.embedded import open_embedded
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import SlotImage
from trioq.metastore.layout import CorruptNode, Slots, SlotState
from trioq.metastore.store import Check
from trioq.metastore.write_chain import Deposed, FencedChain

pytestmark = pytest.mark.trio


@pytest.fixture
async def metastore(tmp_path):
    async with open_embedded(tmp_path / "metastore.sqlite") as opened:
        yield opened


async def slots_of(metastore) -> Slots:
    node = await metastore.get(layout.SLOTS)
    return Slots.of(layout.decode_json(layout.SLOTS, node.value))


async def test_a_new_cluster_has_the_slots_configured_for_it(metastore):
    await ensure_cluster(metastore, slots=5)
    await ensure_cluster(metastore, slots=9)
    assert await slots_of(metastore) == Slots(5)
    assert await metastore.children(layout.SLOTS) == ["0", "1", "2", "3", "4"]
    assert await metastore.children("/slots/4") == ["groups", "seq"]


async def test_a_cluster_from_before_slots_gets_them(metastore):
    cluster_id = await ensure_cluster(metastore)
    tree = await metastore.read_tree(layout.SLOTS)
    for path in sorted(tree, key=lambda path: path.count("/"), reverse=True):
        await metastore.delete(path, store.ANY_VERSION)
    assert await ensure_cluster(metastore) == cluster_id
    assert await metastore.read_tree(layout.SLOTS) == tree
    await take_over_alone(metastore, 1, 0)


async def test_a_creation_that_ended_in_the_middle_is_finished(metastore):
    await ensure_cluster(metastore, slots=1)
    await metastore.delete("/slots/0/seq", 0)
    await metastore.delete("/slots/0/groups", 0)
    await metastore.delete("/slots/0", 0)
    await metastore.delete("/slots", 1)
    await metastore.create("/slots", b"")
    await metastore.create("/slots/0", SlotState(-1).encode())
    await ensure_cluster(metastore, slots=3)
    assert await slots_of(metastore) == Slots(3)
    assert await metastore.children("/slots/0") == ["groups", "seq"]


async def test_brokers_that_create_the_slots_at_once_agree(metastore):
    async with trio.open_nursery() as nursery:
        for number in (3, 4, 5):

            async def ensure(number=number):
                await ensure_cluster(metastore, slots=number)

            nursery.start_soon(ensure)
    number = (await slots_of(metastore)).number
    assert {str(slot) for slot in range(number)} <= set(await metastore.children(layout.SLOTS))


async def test_many_slots_are_created_in_steps(metastore):
    await ensure_cluster(metastore, slots=700)
    await take_over_alone(metastore, 1, 0)
    assert (await metastore.get("/slots/699")).value == SlotState(1, 0).encode()


async def test_safety_7_taking_over_gives_every_slot_a_new_epoch(metastore):
    await ensure_cluster(metastore, slots=3)
    await take_over_alone(metastore, 1, 0)
    old = FencedChain(
        metastore, fence=Check(layout.slot_path(2), 1), seq_path=layout.slot_seq_path(2)
    )
    await old.write([])
    await metastore.delete(layout.CONTROLLER_LEADER, 0)
    await take_over_alone(metastore, 7, 1)
    nodes = await metastore.get_many([layout.slot_path(slot) for slot in range(3)])
    assert nodes == [store.Node(SlotState(7, 1).encode(), 2)] * 3
    with pytest.raises(Deposed):
        await old.write([])


async def test_slots_of_a_version_without_broker_epochs_are_taken_over(metastore):
    await ensure_cluster(metastore, slots=2)
    for slot in range(2):
        await metastore.set(layout.slot_path(slot), b'{"leader":1}', 0)
    follower = ImageFollower(metastore)
    await follower.load()
    assert follower.image.slots == (SlotImage(1, -1, 1),) * 2
    await take_over_alone(metastore, 1, 6)
    await follower.catch_up()
    assert follower.image.slots == (SlotImage(1, 6, 2),) * 2


async def test_a_change_of_a_slot_is_told_by_the_feed_and_what_is_below_it_is_not(metastore):
    await ensure_cluster(metastore, slots=3)
    follower = ImageFollower(metastore)
    await follower.load()
    assert follower.image.slots == (SlotImage(-1, -1, 0),) * 3
    before = follower.image
    write = store.Set(layout.slot_path(1), SlotState(4, 2).encode(), 0)
    await metastore.multi(feed.with_entry([write]))
    await follower.catch_up()
    assert follower.image.slots == (SlotImage(-1, -1, 0), SlotImage(4, 2, 1), SlotImage(-1, -1, 0))
    assert follower.image.topics is before.topics
    below = [
        store.Set(layout.slot_seq_path(1), b"x", 0),
        store.Create(f"{layout.slot_groups_path(1)}/g", b""),
    ]
    assert feed.with_entry(below) == below
    await follower.load()
    assert follower.image.slots[1] == SlotImage(4, 2, 1)


async def test_an_image_names_a_slot_that_is_missing(metastore):
    await ensure_cluster(metastore, slots=2)
    for below in sorted(await metastore.read_tree("/slots/1"), reverse=True):
        await metastore.delete(below, store.ANY_VERSION)
    with pytest.raises(CorruptNode, match="/slots/1"):
        await ImageFollower(metastore).load()


@pytest.mark.parametrize("path", ["/slots", "/slots/1"])
async def test_lost_slots_stop_the_start(metastore, path):
    await ensure_cluster(metastore, slots=2)
    for below in sorted(await metastore.read_tree(path), key=lambda path: -path.count("/")):
        await metastore.delete(below, store.ANY_VERSION)
    with pytest.raises(CorruptNode, match=path):
        await take_over_alone(metastore, 1, 0)


@pytest.mark.parametrize(
    "value", [b'{"number":0,"hash":"crc32"}', b'{"number":64,"hash":"md5"}', b'{"number":64}', b"?"]
)
async def test_slots_that_this_version_does_not_know_stop_the_start(metastore, value):
    """Another number or hash would look for groups where they are not."""
    await ensure_cluster(metastore)
    await metastore.set(layout.SLOTS, value, store.ANY_VERSION)
    with pytest.raises(CorruptNode, match="/slots"):
        await take_over_alone(metastore, 1, 0)
