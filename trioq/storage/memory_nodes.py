"""What a MemoryDisk is made of: files and directories with a seen and a synced state."""

from __future__ import annotations

import os
import tempfile
import weakref
from random import Random


def _anonymous_fd() -> int:
    memfd_create = getattr(os, "memfd_create", None)
    if memfd_create is not None:
        return int(memfd_create("trioq-memory-disk"))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Inode:
    """A file's bytes: as seen (behind `fd`), as synced, and the changes between the two."""

    def __init__(self, synced: bytes = b"") -> None:
        self.fd = _anonymous_fd()
        self.synced = bytearray(synced)
        self.unsynced: list[tuple[int, bytes | None]] = []  # (position, data) | (size, None)
        if synced:
            os.pwrite(self.fd, synced, 0)
        weakref.finalize(self, os.close, self.fd)

    def write(self, position: int, data: bytes) -> None:
        os.pwrite(self.fd, data, position)
        self.unsynced.append((position, data))

    def truncate(self, size: int) -> None:
        if size != os.fstat(self.fd).st_size:
            os.ftruncate(self.fd, size)
            self.unsynced.append((size, None))

    def sync(self) -> None:
        for change in self.unsynced:
            _apply(self.synced, *change)
        self.unsynced.clear()

    def survivor(self, random: Random) -> Inode:
        """What a disk may hold of this file after the power came back."""
        mode = random.choice(("all", "none", "prefix", "any"))
        changes = list(self.unsynced)
        if mode == "none":
            changes = []
        elif mode == "prefix":
            changes = changes[: random.randint(0, len(changes))]
        elif mode == "any":
            changes = [change for change in changes if random.random() < 0.6]
        content = bytearray(self.synced)
        for number, (position, data) in enumerate(changes):
            torn = data
            last = number == len(changes) - 1
            if data and mode != "all" and (last or random.random() < 0.2):
                torn = data[: random.randint(0, len(data))]
            _apply(content, position, torn)
        return Inode(bytes(content))


def _apply(content: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        del content[position:]
        content.extend(bytes(position - len(content)))
    else:
        content.extend(bytes(max(0, position - len(content))))
        content[position : position + len(data)] = data


class Directory:
    """Names: as seen, as synced, and the changes between the two, each atomic."""

    def __init__(self) -> None:
        self.names: dict[str, Inode | Directory] = {}
        self.synced: dict[str, Inode | Directory] = {}
        self.unsynced: list[dict[str, Inode | Directory | None]] = []

    def change(self, names: dict[str, Inode | Directory | None]) -> None:
        _rename_in(self.names, names)
        self.unsynced.append(names)

    def sync(self) -> None:
        for names in self.unsynced:
            _rename_in(self.synced, names)
        self.unsynced.clear()

    def survivor(self, random: Random) -> Directory:
        survived = dict(self.synced)
        for names in self.unsynced[: random.randint(0, len(self.unsynced))]:
            _rename_in(survived, names)
        after = Directory()
        after.names = {name: node.survivor(random) for name, node in sorted(survived.items())}
        after.synced = dict(after.names)
        return after


def _rename_in(
    target: dict[str, Inode | Directory], names: dict[str, Inode | Directory | None]
) -> None:
    for name, node in names.items():
        if node is None:
            target.pop(name, None)
        else:
            target[name] = node
