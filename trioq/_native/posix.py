"""Advice to the kernel about file ranges: what is in memory, what to keep, write back, reserve.

All ranges are [position, position + length) in bytes; an empty one does nothing. Every call
releases the interpreter lock; all but `read_ahead`, `sync_range` and `preallocate` take
microseconds. What a system lacks does nothing. Failures are OSError.
"""

from __future__ import annotations

import os
from typing import Final

from trioq._native._posix import lib

ADVICE_WILL_NEED: Final = 0
"""Read the range ahead."""
ADVICE_WILL_NOT_NEED: Final = 1
"""Drop the range from memory where it is clean."""
ADVICE_SEQUENTIAL: Final = 2
ADVICE_RANDOM: Final = 3


def _check(error: int, what: str) -> None:
    if error:
        raise OSError(error, f"{what}: {os.strerror(error)}")


def resident(fd: int, position: int, length: int) -> bool:
    """Whether the range (as far as the file reaches) is in memory, so that reading cannot block.

    Asked of the kernel by cachestat, before Linux 6.5 by mincore over a mapping; True on systems
    that cannot say.
    """
    if length <= 0:
        return True
    answer = lib.trioq_resident(fd, position, length)
    _check(max(0, -answer), "cannot ask what is in memory")
    return answer == 1


def preallocate(fd: int, position: int, length: int) -> None:
    """Reserve disk space for the range without changing the file's size.

    Does nothing where the file system cannot; ENOSPC is raised.
    """
    if length > 0:
        _check(lib.trioq_preallocate(fd, position, length), "cannot reserve disk space")


def sync_range(fd: int, position: int, length: int) -> None:
    """Start writing the range back to disk without waiting for it; promises nothing durable."""
    if length > 0:
        _check(lib.trioq_sync_range(fd, position, length), "cannot start writing back")


def read_ahead(fd: int, position: int, length: int) -> None:
    """Bring the range, as far as the file reaches, into memory; blocks on the disk.

    Gives the interpreter lock away once: each time a thread asks for it back, the loop that holds
    it may have to do without it for milliseconds.
    """
    if length > 0:
        _check(lib.trioq_read_ahead(fd, position, length), "cannot read")


def advise(fd: int, position: int, length: int, advice: int) -> None:
    """Tell the kernel how the range will be used; `advice` is one of ADVICE_*."""
    if length > 0:
        _check(lib.trioq_advise(fd, position, length, advice), "the kernel took no advice")


def keep_freed_memory(top_bytes: int, block_bytes: int) -> None:
    """Have the allocator of this process keep up to `top_bytes` of freed memory.

    Blocks up to `block_bytes` are served from it. Memory that went back to the kernel comes again
    page by page, each with a fault. Does nothing where the allocator has no such setting.
    """
    lib.trioq_keep_freed_memory(top_bytes, block_bytes)
