"""What every metastore backend must do; see trioq/metastore/store.py."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioq.metastore import store
from trioq.metastore.session import SessionState
from trioq.metastore.store import ANY_VERSION, Check, Create, Delete, Node, Set

pytestmark = pytest.mark.trio


@pytest.fixture
async def metastore(backend):
    async with backend.site().open() as opened:
        yield opened


async def test_a_created_node_reads_back_at_version_0(metastore):
    await metastore.create("/a", b"one")
    assert await metastore.get("/a") == Node(b"one", 0)


async def test_each_set_adds_one_to_the_version(metastore):
    await metastore.create("/a", b"one")
    assert await metastore.set("/a", b"two", 0) == 1
    assert await metastore.set("/a", b"", 1) == 2
    assert await metastore.set("/a", b"any", ANY_VERSION) == 3
    assert await metastore.get("/a") == Node(b"any", 3)


async def test_a_node_created_again_starts_at_version_0(metastore):
    await metastore.create("/a", b"")
    await metastore.set("/a", b"x", 0)
    await metastore.delete("/a", 1)
    await metastore.create("/a", b"y")
    assert await metastore.get("/a") == Node(b"y", 0)


async def test_children_are_names_and_sorted(metastore):
    for path in ("/a", "/a/b", "/a/c", "/a/b/deep", "/a.b", "/a-b", "/a0"):
        await metastore.create(path, path.encode())
    assert await metastore.children("/a") == ["b", "c"]
    assert await metastore.children("/a/c") == []
    assert await metastore.children("/") == ["a", "a-b", "a.b", "a0"]


async def test_a_tree_is_the_node_and_all_below_parents_first(metastore):
    paths = ["/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/e", "/a-b", "/a-b/x", "/a0", "/a.b"]
    for path in paths:
        await metastore.create(path, path.encode())
    tree = await metastore.read_tree("/a")
    assert tree == {p: Node(p.encode(), 0) for p in ("/a", "/a/b", "/a/b/c", "/a/b/c/d", "/a/e")}
    seen: set[str] = {"/"}
    for path in tree:
        assert store.parent_of(path) in seen
        seen.add(path)
    assert set(await metastore.read_tree("/")) >= set(paths)


async def test_names_beyond_ascii_and_any_bytes_are_kept(metastore):
    value = bytes(range(256))
    await metastore.create("/größe ✓", value)
    assert (await metastore.get("/größe ✓")).value == value
    assert "größe ✓" in await metastore.children("/")


async def test_reading_what_is_not_there(metastore):
    for read in (metastore.get, metastore.children, metastore.read_tree):
        with pytest.raises(store.NoNode) as caught:
            await read("/missing")
        assert caught.value.path == "/missing"
    await metastore.create("/a", b"x")
    assert await metastore.get_many(["/missing", "/a"]) == [None, Node(b"x", 0)]
    assert await metastore.get_many([]) == []


async def test_errors_name_the_path(metastore):
    await metastore.create("/a", b"")
    await metastore.create("/a/b", b"")
    refused = [
        (store.NodeExists, "/a", metastore.create("/a", b"")),
        (store.NoNode, "/x", metastore.create("/x/y", b"")),
        (store.NoNode, "/x", metastore.set("/x", b"", 0)),
        (store.VersionConflict, "/a", metastore.set("/a", b"", 1)),
        (store.NoNode, "/x", metastore.delete("/x", 0)),
        (store.VersionConflict, "/a/b", metastore.delete("/a/b", 7)),
        (store.NotEmpty, "/a", metastore.delete("/a", 0)),
    ]
    for error, path, call in refused:
        with pytest.raises(error) as caught:
            await call
        assert caught.value.path == path
        assert path in str(caught.value)


@pytest.mark.parametrize(
    "path", ["", "a", "/a/", "//", "/a//b", "/a/./b", "/a/..", "/a\0b", "/\ud800"]
)
async def test_illegal_paths_are_refused(metastore, path):
    with pytest.raises(ValueError):
        await metastore.create(path, b"")
    with pytest.raises(ValueError):
        await metastore.get(path)


async def test_the_root_stays(metastore):
    assert await metastore.get("/")
    with pytest.raises(ValueError):
        await metastore.create("/", b"")
    with pytest.raises(ValueError):
        await metastore.delete("/", ANY_VERSION)


async def test_a_multi_sees_its_own_earlier_operations(metastore):
    results = await metastore.multi(
        [
            Create("/a", b"1"),
            Create("/a/b", b"2"),
            Set("/a", b"3", 0),
            Check("/a", 1),
            Set("/a", b"4", 1),
            Delete("/a/b", 0),
        ]
    )
    assert results == ["/a", "/a/b", 1, None, 2, None]
    assert await metastore.read_tree("/a") == {"/a": Node(b"4", 2)}
    assert await metastore.multi([]) == []


@pytest.mark.parametrize(
    ("last", "error", "path"),
    [
        (Create("/a", b""), store.NodeExists, "/a"),
        (Create("/none/x", b""), store.NoNode, "/none"),
        (Set("/a", b"", 5), store.VersionConflict, "/a"),
        (Delete("/a", 1), store.NotEmpty, "/a"),
        (Check("/a", 0), store.VersionConflict, "/a"),
        (Check("/none", ANY_VERSION), store.NoNode, "/none"),
    ],
)
async def test_a_multi_that_fails_leaves_nothing(metastore, last, error, path):
    await metastore.create("/a", b"before")
    await metastore.create("/a/old", b"")
    before = await metastore.read_tree("/")
    with pytest.raises(error) as caught:
        await metastore.multi(
            [Create("/a/new", b""), Set("/a", b"after", 0), Delete("/a/old", 0), last]
        )
    assert caught.value.path == path
    assert caught.value.index == 3
    assert await metastore.read_tree("/") == before


async def test_too_large_multis_are_refused_before_sending(metastore):
    too_many = [Create(f"/n{i}", b"") for i in range(store.MAX_MULTI_OPERATIONS + 1)]
    with pytest.raises(store.TooLarge):
        await metastore.multi(too_many)
    await metastore.multi(too_many[:-1])
    with pytest.raises(store.TooLarge):
        await metastore.create("/big", b"x" * store.MAX_MULTI_BYTES)
    await metastore.create("/big", b"x" * (store.MAX_MULTI_BYTES - 200))
    assert len((await metastore.get("/big")).value) == store.MAX_MULTI_BYTES - 200


async def test_bulk_takes_more_than_a_multi_and_keeps_the_order(metastore):
    await metastore.create("/top", b"")
    groups = [[Create(f"/top/{g}-{i}", b"") for i in range(400)] for g in range(3)]
    await metastore.bulk([*groups, [Set("/top", b"done", 0)]])
    assert len(await metastore.children("/top")) == 1200
    assert await metastore.get("/top") == Node(b"done", 1)
    with pytest.raises(store.NodeExists):
        await metastore.bulk([[Create("/top/0-0", b"")]])


async def test_a_sequential_node_gets_a_growing_number(metastore):
    await metastore.create("/seq", b"")
    first, second = await metastore.multi(
        [Create("/seq/n-", b"1", sequential=True), Create("/seq/n-", b"2", sequential=True)]
    )
    assert len(first) == len("/seq/n-") + 10
    assert second > first
    await metastore.delete(first, 0)
    await metastore.delete(second, 0)
    (third,) = await metastore.multi([Create("/seq/n-", b"3", sequential=True)])
    assert third > second
    assert await metastore.children("/seq") == [third.rpartition("/")[2]]


async def test_sequences_go_on_after_reopening(backend):
    site = backend.site()
    async with site.open() as metastore:
        await metastore.create("/seq", b"")
        (first,) = await metastore.multi([Create("/seq/n-", b"", sequential=True)])
        await metastore.delete(first, 0)
    async with site.open() as metastore:
        (second,) = await metastore.multi([Create("/seq/n-", b"", sequential=True)])
    assert second > first


async def test_persistent_nodes_stay_and_ephemerals_go_with_the_session(backend):
    site = backend.site()
    async with site.open() as metastore:
        await metastore.create("/a", b"kept")
        await metastore.set("/a", b"kept2", 0)
        await metastore.create("/a/me", b"gone", ephemeral=True)
        assert await metastore.children("/a") == ["me"]
        with pytest.raises(store.EphemeralParent):
            await metastore.create("/a/me/child", b"")
    async with site.open() as metastore:
        assert await metastore.read_tree("/a") == {"/a": Node(b"kept2", 1)}


async def test_a_closed_store_says_that_the_session_is_lost(backend):
    async with backend.site().open() as metastore:
        await metastore.create("/a", b"")
        watch = metastore.watch_node("/a")
    assert metastore.session.state is SessionState.LOST
    with pytest.raises(store.SessionLost):
        await metastore.get("/a")
    with pytest.raises(store.SessionLost):
        await metastore.set("/a", b"", 0)
    with pytest.raises(store.SessionLost):
        await watch.changed()


async def test_a_lease_is_cut_when_the_session_ends(backend):
    cut = trio.Event()

    async def hold(metastore, task_status):
        with metastore.session.lease() as lease:
            assert lease.is_held(0.0)
            task_status.started()
            await trio.sleep_forever()
        assert lease.scope.cancelled_caught
        assert not lease.is_held(0.0)
        cut.set()

    async with trio.open_nursery() as role_nursery:
        async with backend.site().open() as metastore:
            await role_nursery.start(hold, metastore)
        await cut.wait()


async def test_of_writers_at_one_version_exactly_one_wins(metastore):
    await metastore.create("/a", b"")
    won: list[int] = []

    async def write(number: int) -> None:
        try:
            await metastore.set("/a", b"%d" % number, 0)
        except store.VersionConflict:
            return
        won.append(number)

    async with trio.open_nursery() as writer_nursery:
        for number in range(20):
            writer_nursery.start_soon(write, number)
    assert len(won) == 1
    assert await metastore.get("/a") == Node(b"%d" % won[0], 1)


async def test_of_creators_of_one_node_exactly_one_wins(metastore):
    created: list[int] = []

    async def create(number: int) -> None:
        try:
            await metastore.multi([Create(f"/own-{number}", b""), Create("/one", b"")])
        except store.NodeExists as error:
            assert (error.path, error.index) == ("/one", 1)
            return
        created.append(number)

    async with trio.open_nursery() as creator_nursery:
        for number in range(20):
            creator_nursery.start_soon(create, number)
    assert len(created) == 1
    assert await metastore.children("/") == sorted(["one", f"own-{created[0]}"])


async def test_concurrent_compare_and_set_loses_no_increment(metastore):
    await metastore.create("/count", b"0")

    async def increment() -> None:
        for _ in range(10):
            while True:
                node = await metastore.get("/count")
                try:
                    await metastore.set("/count", b"%d" % (int(node.value) + 1), node.version)
                except store.VersionConflict:
                    continue
                break

    async with trio.open_nursery() as increment_nursery:
        for _ in range(5):
            increment_nursery.start_soon(increment)
    assert await metastore.get("/count") == Node(b"50", 50)


async def test_writes_of_one_caller_keep_their_order(metastore):
    await metastore.create("/a", b"")
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(metastore.set, "/a", b"%d" % number, ANY_VERSION)
            await trio.lowlevel.checkpoint()
    assert (await metastore.get("/a")).version == 50


async def test_a_node_watch_tells_of_creation_value_and_deletion(metastore):
    with metastore.watch_node("/a") as watch:
        await metastore.create("/a", b"")
        await watch.changed()
        await metastore.set("/a", b"x", 0)
        await watch.changed()
        await metastore.delete("/a", 1)
        await watch.changed()


async def test_a_child_watch_tells_of_children_and_coalesces(metastore):
    await metastore.create("/a", b"")
    with metastore.watch_children("/a") as watch:
        await metastore.multi([Create("/a/b", b""), Create("/a/c", b"")])
        await metastore.create("/a/d", b"")
        await watch.changed()
        assert await metastore.children("/a") == ["b", "c", "d"]
        await metastore.delete("/a/d", 0)
        await watch.changed()
        assert await metastore.children("/a") == ["b", "c"]


async def test_a_watch_never_misses_the_last_change(metastore):
    await metastore.create("/a", b"0")
    seen: list[int] = []

    async def read(task_status) -> None:
        with metastore.watch_node("/a") as watch:
            task_status.started()
            while not seen or seen[-1] < 100:
                await watch.changed()
                seen.append(int((await metastore.get("/a")).value))

    async with trio.open_nursery() as reader_nursery:
        await reader_nursery.start(read)
        for number in range(1, 101):
            await metastore.set("/a", b"%d" % number, ANY_VERSION)
    assert seen == sorted(seen)


async def test_a_refused_write_and_another_node_wake_nobody(metastore):
    await metastore.create("/a", b"")
    await metastore.create("/b", b"")
    woken: list[str] = []

    async def wait(name: str, watch: store.Watch) -> None:
        with watch:
            await watch.changed()
        woken.append(name)

    async with trio.open_nursery() as watch_nursery:
        watch_nursery.start_soon(wait, "node", metastore.watch_node("/a"))
        watch_nursery.start_soon(wait, "children", metastore.watch_children("/a"))
        await wait_all_tasks_blocked()
        with pytest.raises(store.NodeExists):
            await metastore.multi([Create("/a/x", b""), Set("/a", b"", 0), Create("/b", b"")])
        await metastore.set("/b", b"", 0)
        await wait_all_tasks_blocked()
        assert woken == []
        await metastore.multi([Set("/a", b"", 0), Create("/a/x", b"")])
    assert sorted(woken) == ["children", "node"]


async def test_a_cancelled_write_is_applied_as_a_whole_or_not_at_all(metastore):
    for number in range(30):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    metastore.multi, [Create(f"/a{number}", b""), Create(f"/a{number}/b", b"")]
                )
                for _ in range(number % 5):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        first, second = await metastore.get_many([f"/a{number}", f"/a{number}/b"])
        assert (first is None) == (second is None)
    await metastore.create("/after", b"")
