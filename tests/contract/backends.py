"""The metastore backends that the contract suite runs against.

A backend makes sites; a site is one store's place (a file, a chroot), empty at first,
which can be opened, closed and opened again. A new backend is one class here and one
more entry in BACKENDS.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from tests.zookeeper.server import ensemble, one_server
from trioq.clock import SystemClock
from trioq.metastore.embedded import open_embedded
from trioq.metastore.store import Metastore


class Site(Protocol):
    def open(self) -> AbstractAsyncContextManager[Metastore]: ...


class Backend(Protocol):
    def site(self) -> Site: ...


class EmbeddedSite:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> AbstractAsyncContextManager[Metastore]:
        return open_embedded(self.path)


class EmbeddedBackend:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def site(self) -> Site:
        return EmbeddedSite(self._directory / f"store-{next(self._numbers)}.sqlite")


class ZooKeeperSite:
    def __init__(self, hosts: str, chroot: str) -> None:
        self.hosts = hosts
        self.chroot = chroot

    def open(self) -> AbstractAsyncContextManager[Metastore]:
        from trioq.metastore.zookeeper import open_zookeeper
        from trioq.metastore.zookeeper_address import ZooKeeperAddress

        address = ZooKeeperAddress(self.hosts, self.chroot, session_timeout_s=10.0)
        return open_zookeeper(address, SystemClock())


class ZooKeeperBackend:
    def __init__(self, hosts: str) -> None:
        self._hosts = hosts
        self._numbers = itertools.count()

    def site(self) -> Site:
        return ZooKeeperSite(self._hosts, f"/contract/site-{next(self._numbers)}")


@contextlib.contextmanager
def embedded(directory: Path) -> Iterator[Backend]:
    yield EmbeddedBackend(directory)


@contextlib.contextmanager
def zookeeper(directory: Path) -> Iterator[Backend]:
    with one_server(directory) as server:
        yield ZooKeeperBackend(server.address)


@contextlib.contextmanager
def zookeeper_ensemble(directory: Path) -> Iterator[Backend]:
    with ensemble(directory) as servers:
        yield ZooKeeperBackend(",".join(server.address for server in servers))


BACKENDS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Backend]]] = {
    "embedded": embedded,
    "zookeeper": zookeeper,
    "zookeeper-ensemble": zookeeper_ensemble,
}
