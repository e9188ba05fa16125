"""The seam between storage and the file system.

`Disk` is what storage may ask of a file system; `OsDisk` is the real one, `MemoryDisk`
(memory_disk.py) one that can lose power. Paths are absolute strings. Every call blocks and
raises OSError; nothing here knows Trio. What a crash may take back:

- bytes written and not yet `fdatasync`ed, in any order, torn anywhere;
- names created, renamed or removed in a directory that was not `fsync_dir`ed since.
"""

# Paths are strings: this is the layer below pathlib, called for every file.
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH116, PTH120, PTH208

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trioq._native import posix, socket_io
from trioq.errors import StartupError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class DiskFile(Protocol):
    """An open file. Not thread-safe for `close`; reads and writes may come from any thread."""

    def fileno(self) -> int:
        """The descriptor, valid until `close`."""
        ...

    def size(self) -> int:
        """Length in bytes, as it is now."""
        ...

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""
        ...

    def pwritev(self, buffers: list[Buffer], position: int) -> float:
        """Write all of `buffers`, one after the other; after an error any part may be there.

        Returns how many seconds the disk took; waiting for other threads of the process, which
        is no fault of the disk, does not count.
        """
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend to `size` bytes and give back blocks preallocated beyond."""
        ...

    def fdatasync(self) -> None:
        """Data and length are on stable storage after this. Never repeat it after an error."""
        ...

    def preallocate(self, position: int, length: int, /) -> None:
        """Reserve blocks without changing the length; does nothing where that is not supported."""
        ...

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        ...


class DiskLock(Protocol):
    """An exclusive lock on a directory, held until `release` or the end of the process."""

    def release(self) -> None: ...


class DiskUsage(NamedTuple):
    """Size of the volume that holds a directory."""

    total_bytes: int
    usable_bytes: int


class Disk(Protocol):
    """A file system, as far as storage needs one."""

    def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open for reading and writing; without `create` a missing file is FileNotFoundError."""
        ...

    def read_file(self, path: str) -> bytes:
        """All of a small file; FileNotFoundError when there is none."""
        ...

    def write_file(self, path: str, data: Buffer) -> None:
        """Create or overwrite a file, neither atomic nor synced: for what can be rebuilt."""
        ...

    def replace_file(self, path: str, data: Buffer, *, sync: bool = True) -> None:
        """Put `data` at `path` atomically: after a crash the old or the new content is there.

        With `sync` the new content is also on stable storage when this returns.
        """
        ...

    def sync_file(self, path: str) -> None:
        """A file's bytes are on stable storage when this returns; fine when it is gone."""
        ...

    def exists(self, path: str) -> bool: ...

    def file_size(self, path: str) -> int:
        """Length in bytes; FileNotFoundError when there is none."""
        ...

    def modified_ms(self, path: str) -> int:
        """When a file was last written, in ms since the Unix epoch."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, in no order; FileNotFoundError when there is none."""
        ...

    def list_subdirectories(self, path: str) -> list[str]:
        """Names of the directories in a directory, in no order."""
        ...

    def make_directory(self, path: str) -> None:
        """Create a directory and its missing parents; fine when it exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename a file or directory within its directory, replacing a file of the new name."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file; open files go on working. Fine when it is gone."""
        ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all it holds. Fine when it is gone."""
        ...

    def fsync_dir(self, path: str) -> None:
        """The names in this directory are on stable storage when this returns."""
        ...

    def lock(self, path: str) -> DiskLock:
        """Take the lock file at `path` and write our process id into it.

        Raises StartupError, naming the holder's process id, when another holds it.
        """
        ...

    def usage(self, path: str) -> DiskUsage: ...

    def fault_point(self, name: str) -> None:
        """A named place between two steps, where a test may cut the power."""
        ...


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def pread(self, length: int, position: int) -> bytes:
        data = os.pread(self._fd, length, position)
        if len(data) == length or not data:
            return data
        parts = [data]
        got = len(data)
        while got < length and (data := os.pread(self._fd, length - got, position + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwritev(self, buffers: list[Buffer], position: int) -> float:
        return socket_io.pwritev_all(self._fd, buffers, position)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def fdatasync(self) -> None:
        sync_file(self._fd)

    def preallocate(self, position: int, length: int, /) -> None:
        posix.preallocate(self._fd, position, length)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def sync_file(fd: int) -> None:
    """Data and length of `fd` to stable storage, by the system's strongest call for it."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync stops at the drive's cache
    if full_sync is not None:
        fcntl.fcntl(fd, full_sync)
    else:
        os.fdatasync(fd)


class OsLock:
    """flock on a file that holds our process id."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class OsDisk:
    """The operating system's file system."""

    __slots__ = ()

    def open(self, path: str, *, create: bool = False) -> OsFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return OsFile(os.open(path, flags, 0o644))

    def read_file(self, path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return OsFile(fd).pread(os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    def write_file(self, path: str, data: Buffer) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            socket_io.pwritev_all(fd, [data], 0)
        finally:
            os.close(fd)

    def replace_file(self, path: str, data: Buffer, *, sync: bool = True) -> None:
        temporary = f"{path}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            socket_io.pwritev_all(fd, [data], 0)
            sync_file(fd)  # without it the new name may come back after a crash without its bytes
        finally:
            os.close(fd)
        os.replace(temporary, path)
        if sync:
            self.fsync_dir(os.path.dirname(path))

    def sync_file(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            sync_file(fd)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def file_size(self, path: str) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def list_subdirectories(self, path: str) -> list[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=True)]

    def make_directory(self, path: str) -> None:
        os.makedirs(path, mode=0o755, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def remove_tree(self, path: str) -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> OsLock:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise StartupError(
                f"{os.path.dirname(path)} is in use by another broker (process "
                f"{holder or 'unknown'}): stop it, or start this one on another data directory"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        return OsLock(fd)

    def usage(self, path: str) -> DiskUsage:
        stats = os.statvfs(path)
        return DiskUsage(stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize)

    def fault_point(self, name: str) -> None:
        """Does nothing: the power is not ours to cut."""
