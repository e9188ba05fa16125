"""The metastore backends that the contract suite runs against.

A backend makes sites; a site is one store's place (a file, a chroot), empty at first,
which can be opened, closed and opened again. A new backend is one class here and one
more entry in BACKENDS.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

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


BACKENDS = {"embedded": EmbeddedBackend}
