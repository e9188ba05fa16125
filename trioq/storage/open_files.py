"""Open log files, counted and bounded: what a segment, a reader and a region in flight share."""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import Protocol

from trioq.storage.disk import Disk, DiskFile

LOOKED_AT_PER_EVICTION = 16


class FileOwner(Protocol):
    """Whoever has a log file: a segment. It forgets `shared` when the file is evicted."""

    shared: SharedFile | None

    @property
    def log_path(self) -> str: ...


class SharedFile:
    """A reference-counted open file (trioq.types.OpenFile); loop thread only.

    Made with one reference, its cache's. Closed when the last reference is released, which may
    be long after its path was renamed or removed.
    """

    __slots__ = ("_references", "file", "owner")

    def __init__(self, file: DiskFile, owner: FileOwner) -> None:
        self.file = file
        self.owner: FileOwner | None = owner
        self._references = 1

    def fileno(self) -> int:
        return self.file.fileno()

    def retain(self) -> None:
        assert self._references > 0, "retained after the last release"
        self._references += 1

    def release(self) -> None:
        assert self._references > 0, "released more often than retained"
        self._references -= 1
        if self._references == 0:
            self.file.close()

    @property
    def is_lent(self) -> bool:
        """True while somebody besides the cache holds it."""
        return self._references > (1 if self.owner is not None else 0)


class OpenFiles:
    """The log files that are open, at most `limit` besides those that are lent out.

    Least recently used ones are closed first; a file that is lent stays open until released.
    """

    __slots__ = ("_disk", "_files", "limit")

    def __init__(self, disk: Disk, limit: int) -> None:
        self._disk = disk
        self._files: OrderedDict[SharedFile, None] = OrderedDict()
        self.limit = limit

    def __len__(self) -> int:
        return len(self._files)

    def file_of(self, owner: FileOwner, *, create: bool = False) -> SharedFile:
        """The owner's open file, opened if need be; the reference stays the cache's.

        Raises OSError; out of descriptors, it first closes what it can.
        """
        shared = owner.shared
        if shared is not None:
            self._files.move_to_end(shared)
            if len(self._files) > self.limit:
                self._evict(keep=shared)
            return shared
        shared = SharedFile(self._open(owner.log_path, create), owner)
        owner.shared = shared
        self._files[shared] = None
        if len(self._files) > self.limit:
            self._evict(keep=shared)
        return shared

    def forget(self, owner: FileOwner) -> None:
        """Drop the cache's reference: the path will soon name another file, or none."""
        shared = owner.shared
        if shared is not None:
            self._drop(shared)

    def _open(self, path: str, create: bool) -> DiskFile:
        try:
            return self._disk.open(path, create=create)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            for shared in [shared for shared in self._files if not shared.is_lent]:
                self._drop(shared)
            return self._disk.open(path, create=create)

    def _evict(self, keep: SharedFile) -> None:
        for _ in range(min(LOOKED_AT_PER_EVICTION, len(self._files))):
            if len(self._files) <= self.limit:
                return
            oldest = next(iter(self._files))
            if oldest.is_lent or oldest is keep:
                self._files.move_to_end(oldest)
            else:
                self._drop(oldest)

    def _drop(self, shared: SharedFile) -> None:
        del self._files[shared]
        assert shared.owner is not None
        shared.owner.shared = None
        shared.owner = None
        shared.release()
