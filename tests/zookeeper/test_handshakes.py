"""ZooKeeper servers that take a connection and say nothing, as one that is starting may."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
import trio

from tests.zookeeper.server import ZooKeeperServer, one_server
from trioq.clock import SystemClock
from trioq.metastore.session import SessionState
from trioq.metastore.store import Node
from trioq.metastore.zookeeper import ZooKeeperMetastore, open_zookeeper
from trioq.metastore.zookeeper_address import ZooKeeperAddress

pytestmark = pytest.mark.trio
PATIENCE_S = 60.0
SESSION_S = 6.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    with one_server(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@contextmanager
def silent_servers(count: int) -> Iterator[list[str]]:
    """Addresses whose connections are taken, by the kernel, and never answered."""
    with ExitStack() as held:
        listeners = [
            held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        yield [f"127.0.0.1:{one.getsockname()[1]}" for one in listeners]


class Relay:
    """Passes connections on to a server; the next `silent` ones it takes and leaves unanswered."""

    def __init__(self, to_port: int) -> None:
        self.silent = 0
        self._to_port = to_port
        self._cut = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[str]) -> None:
        async with trio.open_nursery() as relay_nursery:
            serve = partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
            listeners = await relay_nursery.start(serve)
            port = listeners[0].socket.getsockname()[1]
            task_status.started(f"127.0.0.1:{port}")
            await trio.sleep_forever()

    def cut(self) -> None:
        """Break the connections that there are."""
        self._cut.cancel()
        self._cut = trio.CancelScope()

    async def _serve(self, client: trio.SocketStream) -> None:
        if self.silent:
            self.silent -= 1
            with suppress(trio.BrokenResourceError):
                async for _ in client:
                    pass
            return
        with self._cut:
            server = await trio.open_tcp_stream("127.0.0.1", self._to_port)
            async with server, trio.open_nursery() as pair_nursery:
                pair_nursery.start_soon(_pass_on, client, server)
                await _pass_on(server, client)
                pair_nursery.cancel_scope.cancel()


async def _pass_on(source: trio.SocketStream, target: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async for piece in source:
            await target.send_all(piece)
        await target.send_eof()


def opened(hosts: list[str], chroot: str):
    address = ZooKeeperAddress(
        ",".join(hosts), chroot, session_timeout_s=SESSION_S, connect_timeout_s=PATIENCE_S
    )
    return open_zookeeper(address, SystemClock())


async def reconnected(metastore: ZooKeeperMetastore) -> None:
    """Wait until the connection was seen to be broken, and is there again."""
    session = metastore.session
    with trio.fail_after(PATIENCE_S):
        await session.changed_from(SessionState.CONNECTED)
        while session.state is not SessionState.CONNECTED:
            await session.changed_from(session.state)


async def test_silent_servers_among_others_cost_no_session(server: ZooKeeperServer):
    async with trio.open_nursery() as nursery:
        relay = Relay(server.ports.client)
        with silent_servers(2) as hosts:
            hosts.append(await nursery.start(relay.run))
            async with opened(hosts, "/among") as metastore:
                metastore._client.randomize_hosts = False  # the silent ones are tried first
                await metastore.create("/me", b"", ephemeral=True)
                for relay.silent in (0, 1):
                    relay.cut()
                    await reconnected(metastore)
                    assert metastore.session.generation == 1
                assert await metastore.get("/me") == Node(b"", 0)
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_silent_for_a_while_costs_no_session(server: ZooKeeperServer):
    """With nobody else to ask, that one is asked again while the session lives."""
    async with trio.open_nursery() as nursery:
        relay = Relay(server.ports.client)
        hosts = [await nursery.start(relay.run)]
        async with opened(hosts, "/while") as metastore:
            await metastore.create("/me", b"", ephemeral=True)
            relay.silent = 2
            relay.cut()
            await reconnected(metastore)
            assert relay.silent == 0
            assert metastore.session.generation == 1
            assert await metastore.get("/me") == Node(b"", 0)
        nursery.cancel_scope.cancel()


async def test_a_first_connection_to_a_silent_server_is_tried_elsewhere(server: ZooKeeperServer):
    with silent_servers(3) as hosts:
        async with opened([*hosts, server.address], "/first") as metastore:
            assert metastore.session.state is SessionState.CONNECTED
