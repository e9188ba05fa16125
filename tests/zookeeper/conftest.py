from __future__ import annotations

import itertools

import pytest

from tests.zookeeper.members import world_of
from tests.zookeeper.server import one_server

_numbers = itertools.count()


@pytest.fixture(scope="package")
def zookeeper_port(tmp_path_factory):
    with one_server(tmp_path_factory.mktemp("zookeeper")) as server:
        yield server.ports.client


@pytest.fixture
async def world(zookeeper_port):
    """An empty cluster in a chroot of its own."""
    async with world_of(zookeeper_port, f"/world-{next(_numbers)}") as made:
        yield made
