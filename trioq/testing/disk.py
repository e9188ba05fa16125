"""A disk that a broker inside a test can lose without notice."""

# Paths are strings, as in trioq.storage.disk.
# ruff: noqa: PTH110

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trioq.storage.disk import OsDisk, OsFile

if TYPE_CHECKING:
    from typing_extensions import Buffer


class CrashingFile(OsFile):
    """A file of a CrashingDisk: once that is dead nothing is written any more."""

    __slots__ = ("_disk",)

    def __init__(self, fd: int, disk: CrashingDisk) -> None:
        super().__init__(fd)
        self._disk = disk

    def pwritev(self, buffers: list[Buffer], position: int) -> float:
        return 0.0 if self._disk.is_dead else super().pwritev(buffers, position)

    def truncate(self, size: int) -> None:
        if not self._disk.is_dead:
            super().truncate(size)

    def fdatasync(self) -> None:
        """Does nothing: what was written outlives the process, and no test cuts the power."""

    def preallocate(self, position: int, length: int, /) -> None:
        if not self._disk.is_dead:
            super().preallocate(position, length)


class CrashingDisk(OsDisk):
    """The real disk until `die`; from then on it reads, and forgets what it is told to change.

    So whatever a broker still does on its way out, the files stay as `kill -9` would leave them.
    Nothing is synced, which kill -9 does not need either. `die` may be called in any thread.
    """

    __slots__ = ("is_dead",)

    def __init__(self) -> None:
        self.is_dead = False

    def die(self) -> None:
        """Change nothing from now on."""
        self.is_dead = True

    def open(self, path: str, *, create: bool = False) -> OsFile:
        if self.is_dead and create and not os.path.exists(path):
            path = os.devnull
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return CrashingFile(os.open(path, flags, 0o644), self)

    def write_file(self, path: str, data: Buffer) -> None:
        if not self.is_dead:
            super().write_file(path, data)

    def replace_file(self, path: str, data: Buffer, *, sync: bool = True) -> None:  # noqa: ARG002
        """Atomic for whoever reads the file; nothing is synced."""
        if not self.is_dead:
            temporary = f"{path}.tmp"
            super().write_file(temporary, data)
            super().rename(temporary, path)

    def sync_file(self, path: str) -> None:
        """Does nothing, as CrashingFile.fdatasync."""

    def fsync_dir(self, path: str) -> None:
        """Does nothing, as CrashingFile.fdatasync."""

    def make_directory(self, path: str) -> None:
        if not self.is_dead:
            super().make_directory(path)

    def rename(self, source: str, target: str) -> None:
        if not self.is_dead:
            super().rename(source, target)

    def unlink(self, path: str) -> None:
        if not self.is_dead:
            super().unlink(path)

    def remove_tree(self, path: str) -> None:
        if not self.is_dead:
            super().remove_tree(path)
