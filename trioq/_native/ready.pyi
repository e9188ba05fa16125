"""Asks an epoll descriptor what is ready, in one call and by owner."""

from typing import Generic, TypeVar

_Owner = TypeVar("_Owner")

class ReadyOwners(Generic[_Owner]):
    """Polls `epoll_fd`, which stays the caller's; `owners` is filled by the caller.

    Loop thread only. A descriptor's owner is there for as long as it is in the epoll.
    """

    @property
    def owners(self) -> dict[int, _Owner]: ...
    @property
    def lock_wait_s(self) -> float:
        """Of the last poll that waited without the interpreter lock: its wait to have it back."""

    def __init__(self, epoll_fd: int) -> None: ...
    def poll(self, wait_s: float = 0.0, keeps_lock: bool = False) -> list[tuple[_Owner, int]]:
        """(owner, epoll's event mask) of the descriptors that are ready, at most 1024.

        Waits for the first for up to `wait_s` seconds (microseconds count), without the
        interpreter lock unless `keeps_lock`; with 0 it does not wait, and keeps the lock. Empty
        also when a signal came. KeyError for a descriptor without owner; OSError, ENOSYS where
        there is no epoll.
        """
