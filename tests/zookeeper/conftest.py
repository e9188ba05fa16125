from __future__ import annotations

import itertools

import pytest

from tests.zookeeper.members import SESSION_S, world_of
from tests.zookeeper.server import one_server

_numbers = itertools.count()


@pytest.fixture(scope="package")
def zookeeper_port(tmp_path_factory):
    with one_server(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server.ports.client


@pytest.fixture
async def world(zookeeper_port, request):
    """An empty cluster in a chroot of its own; its parameter is how long sessions last."""
    session_s = getattr(request, "param", SESSION_S)
    async with world_of(zookeeper_port, f"/world-{next(_numbers)}", session_s=session_s) as made:
        yield made
