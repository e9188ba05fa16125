"""Every async test here runs under trio, asyncio and uvloop, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
import sniffio

from tests.e2e.conftest import (  # noqa: F401  fixtures
    broker,
    pytest_runtest_makereport,
    shared_broker,
    start_broker,
    topic,
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
    with anyio.move_on_after(5):
        while (open_sockets(), running_tasks()) != before:
            await anyio.sleep(0.01)
    assert (open_sockets(), running_tasks()) == before


@pytest.fixture
def closed_port() -> int:
    """A port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
