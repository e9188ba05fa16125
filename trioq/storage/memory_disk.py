"""A disk in memory that loses power on request: the oracle of the storage tests.

It keeps two states: what the running process sees (the page cache) and what stable storage
holds. `crash` goes from the first to something that a real disk may come back with: unsynced
writes survive whole, torn, out of order or not at all; of the unsynced changes to the names
in a directory a prefix survives.

Files are backed by anonymous descriptors of the operating system, so that native code and
sendfile work on them as on real ones.
"""

# Paths are strings at this seam.
# ruff: noqa: PTH120

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from trioq.errors import StartupError, TrioqError
from trioq.storage.disk import DiskUsage
from trioq.storage.memory_nodes import Directory, Inode

if TYPE_CHECKING:
    from typing_extensions import Buffer


class PowerCut(TrioqError):
    """Raised at an armed fault point: the process of the test is to be taken as dead."""


@dataclass(slots=True)
class Fault:
    """An OSError to come: see `MemoryDisk.inject`."""

    operation: str
    error_number: int
    path_contains: str
    skip: int
    times: int | None
    written_bytes: int
    hits: int = field(default=0)


class MemoryFile:
    """An open file of a MemoryDisk."""

    __slots__ = ("_closed", "_disk", "_inode", "_life", "_path")

    def __init__(self, disk: MemoryDisk, inode: Inode, path: str) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self._life = disk.life
        self._closed = False

    def _check(self, operation: str) -> Fault | None:
        if self._closed:
            raise ValueError(f"{operation} on {self._path}, which is closed")
        if self._life != self._disk.life:
            raise PowerCut(f"{operation} on {self._path}, which was open before the crash")
        return self._disk.due_fault(operation, self._path)

    def fileno(self) -> int:
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        return self._inode.fd

    def size(self) -> int:
        return os.fstat(self._inode.fd).st_size

    def pread(self, length: int, position: int) -> bytes:
        self._disk.raise_fault(self._check("pread"))
        return os.pread(self._inode.fd, length, position)

    def pwritev(self, buffers: list[Buffer], position: int) -> float:
        data = b"".join(buffers)
        fault = self._check("pwritev")
        if fault is not None:
            self._inode.write(position, data[: fault.written_bytes])
        self._disk.raise_fault(fault)
        self._inode.write(position, data)
        return self._disk.write_seconds

    def truncate(self, size: int) -> None:
        self._disk.raise_fault(self._check("truncate"))
        self._inode.truncate(size)

    def fdatasync(self) -> None:
        self._disk.raise_fault(self._check("fdatasync"))
        self._inode.sync()

    def preallocate(self, _position: int, _length: int, /) -> None:
        self._disk.raise_fault(self._check("preallocate"))

    def close(self) -> None:
        self._closed = True


class _MemoryLock:
    __slots__ = ("_disk", "_path")

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.locked.discard(self._path)


class MemoryDisk:
    """A file system in memory; see the module's docstring. One thread at a time."""

    def __init__(self) -> None:
        self._root = Directory()
        self._faults: list[Fault] = []
        self._armed: dict[str, int] = {}
        self.locked: set[str] = set()
        self.reached: list[str] = []
        self.life = 0
        self.write_seconds = 0.0
        """What each write says that it took."""
        self.usage_now = DiskUsage(1 << 40, 1 << 40)

    # faults

    def inject(
        self,
        operation: str,
        error_number: int,
        *,
        path_contains: str = "",
        skip: int = 0,
        times: int | None = None,
        written_bytes: int = 0,
    ) -> Fault:
        """Make calls of `operation` on matching paths raise OSError(error_number).

        The first `skip` matching calls pass; `times` bounds how many fail (None: all). A failing
        pwritev first writes `written_bytes`.
        """
        fault = Fault(operation, error_number, path_contains, skip, times, written_bytes)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Drop all injected faults and armed fault points."""
        self._faults.clear()
        self._armed.clear()

    def arm(self, name: str, *, skip: int = 0) -> None:
        """Raise PowerCut when fault point `name` is reached, after `skip` passes."""
        self._armed[name] = skip

    def due_fault(self, operation: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.operation != operation or fault.path_contains not in path:
                continue
            fault.hits += 1
            if fault.hits <= fault.skip:
                continue
            if fault.times is None or fault.hits - fault.skip <= fault.times:
                return fault
        return None

    def raise_fault(self, fault: Fault | None) -> None:
        if fault is not None:
            raise OSError(fault.error_number, os.strerror(fault.error_number))

    def fault_point(self, name: str) -> None:
        self.reached.append(name)
        if name in self._armed:
            self._armed[name] -= 1
            if self._armed[name] < 0:
                raise PowerCut(name)

    def crash(self, random: Random) -> None:
        """Lose power and come back: open files are dead, locks are free, the rest is luck."""
        self._root = self._root.survivor(random)
        self.kill()

    def kill(self) -> None:
        """Lose the process only: what was written stays, open files are dead, locks free."""
        self.life += 1
        self.locked.clear()
        self.heal()

    # Disk

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        self.raise_fault(self.due_fault("open", path))
        directory, name = self._locate(path)
        node = directory.names.get(name)
        if node is None and create:
            node = Inode()
            directory.change({name: node})
        return MemoryFile(self, self._file(node, path), path)

    def read_file(self, path: str) -> bytes:
        self.raise_fault(self.due_fault("read_file", path))
        directory, name = self._locate(path)
        inode = self._file(directory.names.get(name), path)
        return os.pread(inode.fd, os.fstat(inode.fd).st_size, 0)

    def write_file(self, path: str, data: Buffer) -> None:
        self.raise_fault(self.due_fault("write_file", path))
        directory, name = self._locate(path)
        node = directory.names.get(name)
        if node is None:
            node = Inode()
            directory.change({name: node})
        inode = self._file(node, path)
        inode.truncate(0)
        inode.write(0, bytes(data))

    def replace_file(self, path: str, data: Buffer, *, sync: bool = True) -> None:
        self.raise_fault(self.due_fault("replace_file", path))
        directory, name = self._locate(path)
        inode = Inode()
        inode.write(0, bytes(data))
        inode.sync()
        directory.change({name: inode})
        if sync:
            self.fsync_dir(os.path.dirname(path))

    def sync_file(self, path: str) -> None:
        self.raise_fault(self.due_fault("sync_file", path))
        directory, name = self._locate(path)
        node = directory.names.get(name)
        if node is not None:
            self._file(node, path).sync()

    def exists(self, path: str) -> bool:
        try:
            directory, name = self._locate(path)
        except FileNotFoundError:
            return False
        return name in directory.names

    def file_size(self, path: str) -> int:
        directory, name = self._locate(path)
        return os.fstat(self._file(directory.names.get(name), path).fd).st_size

    def modified_ms(self, path: str) -> int:
        directory, name = self._locate(path)
        return os.fstat(self._file(directory.names.get(name), path).fd).st_mtime_ns // 1_000_000

    def listdir(self, path: str) -> list[str]:
        self.raise_fault(self.due_fault("listdir", path))
        return sorted(self._directory(path).names)

    def list_subdirectories(self, path: str) -> list[str]:
        names = self._directory(path).names
        return sorted(name for name, node in names.items() if isinstance(node, Directory))

    def make_directory(self, path: str) -> None:
        self.raise_fault(self.due_fault("make_directory", path))
        at = self._root
        for part in _parts(path):
            node = at.names.get(part)
            if node is None:
                node = Directory()
                at.change({part: node})
            if not isinstance(node, Directory):
                raise NotADirectoryError(path)
            at = node

    def rename(self, source: str, target: str) -> None:
        self.raise_fault(self.due_fault("rename", source))
        directory, name = self._locate(source)
        target_directory, target_name = self._locate(target)
        if directory is not target_directory:
            raise ValueError("a rename stays in its directory")
        if name not in directory.names:
            raise FileNotFoundError(source)
        directory.change({name: None, target_name: directory.names[name]})

    def unlink(self, path: str) -> None:
        self.raise_fault(self.due_fault("unlink", path))
        directory, name = self._locate(path)
        if name in directory.names:
            directory.change({name: None})

    def remove_tree(self, path: str) -> None:
        self.raise_fault(self.due_fault("remove_tree", path))
        self.unlink(path)

    def fsync_dir(self, path: str) -> None:
        self.raise_fault(self.due_fault("fsync_dir", path))
        self._directory(path).sync()

    def lock(self, path: str) -> _MemoryLock:
        if path in self.locked:
            raise StartupError(f"{os.path.dirname(path)} is in use by another broker (process 0)")
        self.locked.add(path)
        return _MemoryLock(self, path)

    def usage(self, path: str) -> DiskUsage:
        self._directory(path)
        return self.usage_now

    # walking

    def _directory(self, path: str) -> Directory:
        at = self._root
        for part in _parts(path):
            node = at.names.get(part)
            if node is None:
                raise FileNotFoundError(path)
            if not isinstance(node, Directory):
                raise NotADirectoryError(path)
            at = node
        return at

    def _locate(self, path: str) -> tuple[Directory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name

    def _file(self, node: Inode | Directory | None, path: str) -> Inode:
        if node is None:
            raise FileNotFoundError(path)
        if isinstance(node, Directory):
            raise IsADirectoryError(path)
        return node


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
