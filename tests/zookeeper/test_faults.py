"""The ZooKeeper backend while servers stop, die and come back, and sessions expire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from kazoo.client import KazooClient

from tests.zookeeper.server import ZooKeeperServer, ensemble, one_server
from trioq.clock import Clock, ManualClock, SystemClock
from trioq.errors import StartupError
from trioq.metastore import store
from trioq.metastore.bootstrap import ensure_cluster
from trioq.metastore.feed import ImageFollower
from trioq.metastore.session import SessionState
from trioq.metastore.store import Create, Node, Set
from trioq.metastore.zookeeper import ZooKeeperMetastore, open_zookeeper
from trioq.metastore.zookeeper_address import ZooKeeperAddress

pytestmark = pytest.mark.trio
PATIENCE_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ZooKeeperServer]:
    with one_server(tmp_path) as running:
        yield running


def opened(hosts: str, *, chroot: str = "/t", clock: Clock | None = None, timeout_s: float = 30.0):
    address = ZooKeeperAddress(hosts, chroot, session_timeout_s=timeout_s)
    return open_zookeeper(address, clock or SystemClock())


async def until(metastore: ZooKeeperMetastore, state: SessionState) -> None:
    with trio.fail_after(PATIENCE_S):
        while metastore.session.state is not state:
            await metastore.session.changed_from(metastore.session.state)


async def restart(server: ZooKeeperServer) -> None:
    await trio.to_thread.run_sync(server.start)


async def test_a_server_that_dies_and_comes_back_keeps_session_and_watches(server):
    async with opened(server.address) as metastore:
        await metastore.create("/a", b"1")
        await metastore.create("/me", b"", ephemeral=True)
        watch = metastore.watch_node("/a")
        server.kill()
        await until(metastore, SessionState.SUSPENDED)
        with pytest.raises(store.MetastoreUnavailable):
            await metastore.set("/a", b"2", 0)
        read: list[Node] = []

        async def read_later() -> None:
            read.append(await metastore.get("/a"))

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_later)
                await restart(server)
            assert read == [Node(b"1", 0)]
            assert metastore.session.generation == 1
            assert await metastore.get("/me") == Node(b"", 0)
            await watch.changed()
            await metastore.set("/a", b"2", 0)
            await watch.changed()


async def test_a_write_whose_answer_is_lost_has_an_unknown_outcome(server):
    unknown: list[store.OutcomeUnknown] = []

    async def write(metastore: ZooKeeperMetastore) -> None:
        try:
            await metastore.set("/a", b"2", 0)
        except store.OutcomeUnknown as error:
            unknown.append(error)

    async with opened(server.address) as metastore:
        await metastore.create("/a", b"1")
        server.pause()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, metastore)
                await trio.testing.wait_all_tasks_blocked()
                server.kill()
            assert len(unknown) == 1
            await restart(server)
            node = await metastore.get("/a")
        assert node in {Node(b"1", 0), Node(b"2", 1)}


async def test_an_expired_session_is_lost_and_a_new_one_begins(server):
    async with opened(server.address) as metastore:
        await metastore.create("/me", b"", ephemeral=True)
        watch = metastore.watch_node("/me")
        with metastore.session.lease() as lease:
            await trio.to_thread.run_sync(expire, server.address, metastore)
            await trio.sleep_forever()
        assert lease.scope.cancelled_caught
        await until(metastore, SessionState.CONNECTED)
        assert metastore.session.generation == 2
        assert not lease.is_held(0.0)
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    await watch.changed()
                except store.SessionLost:
                    continue
                break
            assert await metastore.get_many(["/me"]) == [None]
            await metastore.create("/me", b"again", ephemeral=True)


def expire(address: str, metastore: ZooKeeperMetastore) -> None:
    """End the metastore's session from another connection, as a timeout would."""
    other = KazooClient(hosts=address, client_id=metastore._client.client_id)
    other.start()
    other.stop()
    other.close()


async def test_the_lease_rests_on_what_was_answered(server):
    clock = ManualClock()
    async with opened(server.address, clock=clock, timeout_s=6.0) as metastore:
        session = metastore.session
        assert session.lease_end_s == pytest.approx(4.0)
        clock.advance(3.0)
        await metastore.get("/")
        assert session.lease_end_s == pytest.approx(7.0)
        assert session.holds_lease(6.9)
        assert not session.holds_lease(7.0)
        server.pause()
        clock.advance(1.0)
        with trio.move_on_after(0.5):
            await metastore.get("/")
        assert session.lease_end_s == pytest.approx(7.0)
        server.go_on()


async def test_a_dead_leader_of_the_ensemble_costs_no_acknowledged_write(tmp_path):
    with ensemble(tmp_path) as servers:
        hosts = ",".join(server.address for server in servers)
        async with opened(hosts) as metastore:
            await metastore.create("/n", b"0")
            version = await count_up(metastore, 0, 30)
            (leader,) = [one for one in servers if "Mode: leader" in one.ask("srvr")]
            leader.kill()
            version = await count_up(metastore, version, 30)
            others = [one for one in servers if one is not leader]
            others[0].kill()  # no quorum any more
            with trio.fail_after(PATIENCE_S):
                await until(metastore, SessionState.SUSPENDED)
                await restart_without_waiting(others[0])
                await until(metastore, SessionState.CONNECTED)
            await count_up(metastore, version, 10)


async def restart_without_waiting(server: ZooKeeperServer) -> None:
    await trio.to_thread.run_sync(server.launch)


async def count_up(metastore: ZooKeeperMetastore, version: int, times: int) -> int:
    """Set /n so often, reading back where the outcome is unknown; its version afterwards."""
    target = version + times
    with trio.fail_after(PATIENCE_S):
        while version < target:
            try:
                version = await metastore.set("/n", b"%d" % (version + 1), version)
            except (store.OutcomeUnknown, store.MetastoreUnavailable):
                node = await metastore.get("/n")
                assert node.version in {version, version + 1}
                assert int(node.value) == node.version
                version = node.version
    node = await metastore.get("/n")
    assert node == Node(b"%d" % version, version)
    return version


async def test_a_large_tree_is_read_in_bulk(server):
    async with opened(server.address) as metastore:
        await metastore.create("/top", b"")
        await metastore.bulk(
            [Create(f"/top/{group}-{number}", b"x") for number in range(400)] for group in range(5)
        )
        await metastore.multi([Create(f"/top/0-{number}/leaf", b"y") for number in range(300)])
        tree = await metastore.read_tree("/top")
        assert len(tree) == 1 + 2000 + 300
        assert tree["/top/0-7/leaf"] == Node(b"y", 0)


async def test_two_brokers_see_one_cluster_and_each_others_changes(server):
    async with opened(server.address) as one, opened(server.address) as two:
        assert await ensure_cluster(one) == await ensure_cluster(two)
        follower = ImageFollower(two, coalesce_s=0.01)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(follower.run)
                before = follower.image
                await one.create("/brokers/ids/7", REGISTRATION, ephemeral=True)
                image = await follower.wait_for_swap(before)
                assert set(image.brokers) == {7}
                nursery.cancel_scope.cancel()


REGISTRATION = (
    b'{"broker_id":7,"broker_epoch":0,"rack":null,"endpoints":{"PLAINTEXT":["h",1]},'
    b'"directory_ids":["d"],"host":"h","incarnation":"i","clean":true}'
)


async def test_nobody_at_the_address_is_said_so():
    address = ZooKeeperAddress("127.0.0.1:1", connect_timeout_s=0.5)
    with pytest.raises(StartupError, match=r"no ZooKeeper server answered at 127\.0\.0\.1:1"):
        async with open_zookeeper(address, SystemClock()):
            pass


async def test_a_multi_at_the_limit_is_taken(server):
    async with opened(server.address) as metastore:
        await metastore.multi([Create(f"/n{number}", b"v" * 900) for number in range(500)])
        await metastore.multi([Set(f"/n{number}", b"w" * 900, 0) for number in range(500)])
        assert (await metastore.get("/n499")).version == 1


@pytest.mark.parametrize(("asked_s", "granted_s"), [(600.0, 60.0), (0.5, 1.0)])
async def test_safety_12_the_lease_goes_by_the_timeout_that_the_server_granted(
    server, asked_s, granted_s
):
    clock = ManualClock()
    async with opened(server.address, clock=clock, timeout_s=asked_s) as metastore:
        assert metastore.session_timeout_s == granted_s
        await metastore.get("/")
        assert metastore.session.holds_lease(granted_s * 0.66)
        assert not metastore.session.holds_lease(granted_s * 0.67)


async def test_a_session_given_up_by_another_thread_ends_at_once_and_is_followed_by_a_new_one(
    server,
):
    async with opened(server.address) as metastore, opened(server.address) as other:
        await metastore.create("/me", b"", ephemeral=True)
        with other.watch_node("/me") as watch, trio.fail_after(PATIENCE_S):
            await trio.to_thread.run_sync(metastore.give_up)
            while (await other.get_many(["/me"]))[0] is not None:
                await watch.changed()
            await metastore.session.ended(1)
            # `run` probes every sixth of a session, and then connects anew.
            assert await metastore.session.connected() == 2
            await metastore.create("/me", b"again", ephemeral=True)


async def test_a_client_that_loses_count_of_its_answers_begins_a_new_session(server):
    """kazoo's loop has been seen to end so after the server stood still: "xids do not match"."""
    async with opened(server.address, timeout_s=3.0) as metastore:
        await metastore.create("/a", b"1")
        await metastore.create("/me", b"", ephemeral=True)
        connection = metastore._client._connection
        read = connection._read_response

        def lose_count(*_: object) -> None:
            connection._read_response = read
            _, answer, _ = connection.client._pending.popleft()
            error = RuntimeError("xids do not match, expected 1 received 2")
            answer.set_exception(error)
            raise error

        connection._read_response = lose_count
        with pytest.raises((store.OutcomeUnknown, store.SessionLost)):
            while True:
                await metastore.set("/a", b"2", (await metastore.get("/a")).version)
        await until(metastore, SessionState.LOST)
        await until(metastore, SessionState.CONNECTED)
        assert (await metastore.get("/a")).value in (b"1", b"2")
