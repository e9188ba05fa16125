"""The feed and its follower over a real embedded store."""

from __future__ import annotations

import itertools
import uuid

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioq.errors import StartupError
from trioq.metastore import feed, layout, store
from trioq.metastore.bootstrap import (
    RegistrationTaken,
    ensure_cluster,
    new_cluster_id,
    new_topic_id,
    register_broker,
)
from trioq.metastore.embedded import open_embedded
from trioq.metastore.feed import ImageFollower
from trioq.metastore.layout import BrokerConfig, PartitionState, TopicNode
from trioq.metastore.store import ANY_VERSION, Check, Create, Delete, Set

pytestmark = pytest.mark.trio


@pytest.fixture
async def metastore(tmp_path):
    async with open_embedded(tmp_path / "metastore.sqlite") as opened:
        await ensure_cluster(opened)
        yield opened


INCARNATIONS = map("incarnation-{}".format, itertools.count())


def registration(broker_id: int, directory: str = "dir", port: int = 9092, *, clean: bool = False):
    return layout.BrokerRegistration(
        broker_id,
        -1,
        None,
        {"PLAINTEXT": ("h", port)},
        (directory,),
        "host",
        next(INCARNATIONS),
        clean,
    )


async def add_topic(metastore, name: str) -> uuid.UUID:
    topic_id = new_topic_id()
    state = PartitionState(1, 0, (1,), (0,), (1,))
    operations = [
        Create(layout.topic_path(topic_id), TopicNode(name, 1).encode()),
        Create(layout.partition_path(topic_id, 0), state.encode()),
    ]
    await metastore.multi(feed.with_entry(operations))
    return topic_id


async def set_config(metastore, value: int) -> None:
    path = BrokerConfig.path("")
    (node,) = await metastore.get_many([path])
    data = BrokerConfig({"k": str(value)}).encode()
    write = Create(path, data) if node is None else Set(path, data, node.version)
    await metastore.multi(feed.with_entry([write]))


async def test_the_cluster_is_created_once(tmp_path):
    path = tmp_path / "metastore.sqlite"
    async with open_embedded(path) as metastore:
        ids = []

        async def ensure():
            ids.append(await ensure_cluster(metastore))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ensure)
    async with open_embedded(path) as metastore:
        ids.append(await ensure_cluster(metastore))
    assert len(set(ids)) == 1
    assert len(ids[0]) == 22


async def test_ids_have_their_form():
    assert all(len(new_cluster_id()) == 22 for _ in range(50))
    assert all(new_topic_id().version == 4 for _ in range(50))


async def test_a_follower_sees_changes_in_order_and_at_once(metastore):
    swaps = []
    follower = ImageFollower(metastore, on_swap=lambda old, new: swaps.append((old, new)))
    async with trio.open_nursery() as follower_nursery:
        image = await follower_nursery.start(follower.run)
        assert image is follower.image
        assert image.cluster_id == await ensure_cluster(metastore)
        for number in range(20):
            await set_config(metastore, number)
            position = await feed.last_sequence(metastore)
            image = await follower.wait_for(position)
            assert image.position == position
            assert image.broker_configs[""] == {"k": str(number)}
        topic_id = await add_topic(metastore, "t")
        await follower.wait_for(await feed.last_sequence(metastore))
        assert follower.image.topics_by_id[topic_id].name == "t"
        seen = follower.image
        await set_config(metastore, 99)
        assert await follower.wait_for_swap(seen) is follower.image
        follower_nursery.cancel_scope.cancel()
    assert all(new is old for (_, new), (old, _) in itertools.pairwise(swaps))


async def test_many_changes_make_few_swaps(metastore):
    swaps = []
    follower = ImageFollower(metastore, on_swap=lambda _, new: swaps.append(new))
    await follower.load()
    for number in range(50):
        await set_config(metastore, number)
    await follower.catch_up()
    assert len(swaps) == 2
    assert follower.image.broker_configs[""] == {"k": "49"}
    await follower.catch_up()
    assert len(swaps) == 2


async def test_trimming_keeps_the_newest_and_a_reader_behind_reloads(metastore):
    behind, level = ImageFollower(metastore), ImageFollower(metastore)
    await behind.load()
    await add_topic(metastore, "only-in-what-was-trimmed")
    for number in range(30):
        await set_config(metastore, number)
    await level.load()
    assert await feed.trim(metastore, kept=40) == 0
    assert await feed.trim(metastore, kept=10) == 21
    assert len(await metastore.children(layout.FEED_ENTRIES)) == 10
    await set_config(metastore, 30)
    fresh = ImageFollower(metastore)
    await fresh.load()
    for follower in (behind, level):
        await follower.catch_up()
        assert follower.image == fresh.image
        assert len(follower.image.topics) == 1
        assert follower.image.broker_configs[""] == {"k": "30"}


async def test_a_feed_trimmed_to_nothing_still_has_a_position(metastore):
    follower = ImageFollower(metastore)
    assert await feed.last_sequence(metastore) == -1
    await set_config(metastore, 1)
    last = await feed.last_sequence(metastore)
    await feed.trim(metastore, kept=0)
    assert await metastore.children(layout.FEED_ENTRIES) == []
    assert await feed.last_sequence(metastore) == last
    await follower.load()
    assert follower.image.position == last
    await set_config(metastore, 2)
    await follower.catch_up()
    assert follower.image.broker_configs[""] == {"k": "2"}


async def test_safety_3_a_store_that_went_back_in_time_is_not_followed(metastore):
    """Else what was created since would be dropped, with its data."""
    swaps = []
    follower = ImageFollower(metastore, on_swap=lambda *both: swaps.append(both))
    await add_topic(metastore, "old")
    await follower.load()
    backup = await metastore.children(layout.FEED_ENTRIES)
    await add_topic(metastore, "new")
    await follower.catch_up()
    assert sorted(follower.image.topics) == ["new", "old"]
    (entry,) = set(await metastore.children(layout.FEED_ENTRIES)) - set(backup)
    await metastore.delete(f"{layout.FEED_ENTRIES}/{entry}", 0)
    swaps.clear()
    with pytest.raises(StartupError, match=r"went back in time, from change \d+ to \d+"):
        await follower.load()
    assert not swaps
    assert sorted(follower.image.topics) == ["new", "old"]


async def test_trimming_is_fenced(metastore):
    for number in range(5):
        await set_config(metastore, number)
    with pytest.raises(store.VersionConflict):
        await feed.trim(metastore, fence=[Check(layout.CONTROLLER_EPOCH, 7)], kept=1)
    assert len(await metastore.children(layout.FEED_ENTRIES)) == 5


async def test_a_reload_entry_makes_followers_read_everything(metastore):
    follower = ImageFollower(metastore)
    await follower.load()
    path = BrokerConfig.path("")
    await metastore.multi([Create(path, b'{"k":"bulk"}'), feed.reload_entry()])
    await follower.catch_up()
    assert follower.image.broker_configs[""] == {"k": "bulk"}
    assert follower.image.position == await feed.last_sequence(metastore)


async def test_what_the_image_does_not_hold_is_not_told():
    untold = [Create("/producer_ids", b"{}"), Check(layout.CLUSTER, 0)]
    assert feed.with_entry(untold) == untold
    topic_id = new_topic_id()
    with pytest.raises(ValueError):
        feed.with_entry([Set(layout.topic_path(topic_id), b"{}", ANY_VERSION)])
    *_, entry = feed.with_entry([Delete(layout.topic_path(topic_id), ANY_VERSION)])
    (change,) = feed.decode_entry("e-0000000001", entry.value).changes
    assert change.data is None


async def test_an_entry_has_its_limit():
    topic_id = new_topic_id()
    value = b'"' + b"x" * (feed.MAX_ENTRY_BYTES // 2) + b'"'
    big = [Create(layout.partition_path(topic_id, number), value) for number in range(2)]
    with pytest.raises(store.TooLarge):
        feed.with_entry(big)
    feed.with_entry(big[:1])


async def test_brokers_come_and_go_in_the_image(metastore):
    follower = ImageFollower(metastore)
    async with trio.open_nursery() as follower_nursery:
        await follower_nursery.start(follower.run)
        first = await register_broker(metastore, registration(1))
        second = await register_broker(metastore, registration(2, port=9999))
        while len(follower.image.brokers) < 2:
            await follower.wait_for_swap(follower.image)
        assert follower.image.brokers == {1: first, 2: second}
        assert follower.image.brokers[2].endpoints == {"PLAINTEXT": ("h", 9999)}
        await metastore.delete(first.path(), 0)
        while len(follower.image.brokers) > 1:
            await follower.wait_for_swap(follower.image)
        assert follower.image.brokers == {2: second}
        again = await register_broker(metastore, registration(1))
        assert (first.broker_epoch, again.broker_epoch) == (0, 1)
        follower_nursery.cancel_scope.cancel()


async def test_a_broker_that_goes_while_everything_is_read_again_is_gone(metastore, monkeypatch):
    gone = await register_broker(metastore, registration(2))
    follower = ImageFollower(metastore)
    read_tree, reads, may_read = metastore.read_tree, trio.Event(), trio.Event()

    async def read_slowly(path):
        reads.set()
        await may_read.wait()
        return await read_tree(path)

    async with trio.open_nursery() as follower_nursery:
        await follower_nursery.start(follower.run)
        monkeypatch.setattr(metastore, "read_tree", read_slowly)
        async with trio.open_nursery() as load_nursery:
            load_nursery.start_soon(follower.load)
            await reads.wait()
            await metastore.delete(gone.path(), 0)
            while follower.image.brokers:
                await follower.wait_for_swap(follower.image)
            may_read.set()
        assert not follower.image.brokers
        follower_nursery.cancel_scope.cancel()


async def test_a_broker_id_held_by_another_directory_is_refused(metastore):
    await register_broker(metastore, registration(1, "mine"))
    with pytest.raises(StartupError, match="broker id 1 is taken by a broker on host host"):
        await register_broker(metastore, registration(1, "yours"))
    with pytest.raises(StartupError):
        await register_broker(metastore, registration(1, "mine"), patience_s=0)


async def test_a_stop_was_clean_only_if_the_directories_are_the_same(metastore):
    """SAFETY rule 6."""
    ends = []
    for directory in ("mine", "mine", "yours", "yours"):
        made = await register_broker(metastore, registration(1, directory, clean=True))
        ends.append((made.broker_epoch, made.clean))
        await metastore.delete(made.path(), 0)
    assert ends == [(0, True), (1, True), (2, False), (3, True)]


async def test_a_registration_whose_answer_was_lost_is_found(metastore):
    asked = registration(1)
    made = await register_broker(metastore, asked)
    assert await register_broker(metastore, asked) == made
    other = registration(1)
    with pytest.raises(StartupError, match="is taken"):
        await register_broker(metastore, other, patience_s=0)


async def test_safety_14_a_registration_is_renewed_only_while_nobody_else_has_registered(metastore):
    first = await register_broker(metastore, registration(1))
    await metastore.delete(first.path(), 0)
    renewal = registration(1, clean=True)
    ours = {first.incarnation, renewal.incarnation}
    renewed = await register_broker(metastore, renewal, renewing=ours)
    assert (renewed.broker_epoch, renewed.clean) == (1, True)
    await metastore.delete(renewed.path(), 0)
    # The answer to a renewal was lost, and its session ended as well: the next one is still ours.
    again = await register_broker(metastore, registration(1), renewing=ours)
    assert again.broker_epoch == 2
    await metastore.delete(again.path(), 0)
    other = await register_broker(metastore, registration(1))
    await metastore.delete(other.path(), 0)
    with pytest.raises(RegistrationTaken, match=r"broker epoch 3\) while this one had no session"):
        await register_broker(metastore, registration(1), renewing=ours | {again.incarnation})
    assert await metastore.get_many([first.path()]) == [None]


async def test_a_restarted_broker_waits_for_its_old_session_to_end(metastore):
    old = await register_broker(metastore, registration(1))
    registered = []

    async def register():
        registered.append(await register_broker(metastore, registration(1)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(register)
        await wait_all_tasks_blocked()
        await metastore.delete(old.path(), 0)
    assert registered[0].broker_epoch == old.broker_epoch + 1
    (node,) = await metastore.get_many([layout.BrokerEpoch.path(1)])
    assert node.version == registered[0].broker_epoch
