"""Every async test here runs under trio, asyncio and uvloop, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
import sniffio
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from tests.e2e.conftest import (  # noqa: F401  fixtures
    broker,
    group_broker,
    new_broker,
    pytest_runtest_makereport,
    shared_broker,
    shared_group_broker,
    start_broker,
    topic,
    zookeepers,
)

BACKENDS = [
    pytest.param(("trio", {}), id="trio"),
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/client" in item.path.as_posix() and "anyio_backend" in getattr(
            item, "fixturenames", ()
        ):
            item.add_marker(pytest.mark.usefixtures("leaves_nothing"))


def open_sockets() -> int:
    count = 0
    for path in Path("/dev/fd").iterdir():
        try:
            count += stat.S_ISSOCK(os.fstat(int(path.name)).st_mode)
        except OSError:
            continue
    return count


def running_tasks() -> int:
    if sniffio.current_async_library() == "asyncio":
        return len(asyncio.all_tasks())
    return 0  # trio has no tasks outside of nurseries


@pytest.fixture
async def leaves_nothing() -> AsyncIterator[None]:
    """Fails the test if tasks or sockets are left behind by it."""
    await anyio.sleep(0)
    before = open_sockets(), running_tasks()
    yield

    def left() -> tuple[int, int]:
        # Fewer sockets than before: those were of an earlier test, and are collected only now.
        sockets, tasks = before
        return max(open_sockets() - sockets, 0), max(running_tasks() - tasks, 0)

    with anyio.move_on_after(30):
        while left() != (0, 0):
            await anyio.sleep(0.01)
    assert left() == (0, 0), "sockets and tasks are left"


@pytest.fixture
def closed_port() -> int:
    """A port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Certificates:
    """An authority of the tests' own and a server's certificate for this machine."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_proxy(
    certificates: Certificates,
) -> Callable[[int], AbstractAsyncContextManager[int]]:
    """A function that gives a port with TLS in front of a port without."""

    @asynccontextmanager
    async def proxy(port: int) -> AsyncIterator[int]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)

        async def pump(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
            try:
                async for data in source:
                    await sink.send(data)
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass
            finally:
                await anyio.aclose_forcefully(source)
                await anyio.aclose_forcefully(sink)

        async def forward(front: anyio.abc.ByteStream) -> None:
            back = await anyio.connect_tcp("127.0.0.1", port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pump, front, back)
                await pump(back, front)

        secured = TLSListener(listener, certificates.server, standard_compatible=False)
        async with secured, anyio.create_task_group() as tasks:
            tasks.start_soon(secured.serve, forward)
            yield listener.extra(SocketAttribute.local_port)
            tasks.cancel_scope.cancel()

    return proxy
