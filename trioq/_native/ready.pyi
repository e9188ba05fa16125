"""Asks an epoll descriptor what is ready, in one call and by owner."""

from typing import TypeVar

_Owner = TypeVar("_Owner")

def ready(epoll_fd: int, owners: dict[int, _Owner], wait_us: int) -> list[tuple[_Owner, int]]:
    """(owner, epoll's event mask) of the descriptors that are ready, at most 1024.

    Waits for the first for up to `wait_us` microseconds, without the interpreter lock; with 0 it
    does not wait, and keeps the lock. Empty also when a signal came. KeyError for a descriptor
    without owner; OSError, ENOSYS where there is no epoll.
    """
