"""Clients that were open when the process forked refuse to work in the child.

Parent and child would write into the same sockets and tell the broker the same sequence
numbers. A check per call would cost a system call; this one costs nothing.
"""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

from trioq.errors import ClientForked


class Forkable(Protocol):
    """Something that must not be used in a child process."""

    def refuse_from_now_on(self, error: ClientForked) -> None:
        """Have every later call raise `error`; called in the child, outside of any loop."""
        ...


_open: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()


def guard(client: Forkable) -> None:
    """Have `client` refuse in children that are forked from now on."""
    _open.add(client)


def release(client: Forkable) -> None:
    """End `guard`; may be called again."""
    _open.discard(client)


def _in_child() -> None:
    error = ClientForked(
        f"this client was opened in process {os.getppid()}, before fork(): open another in the "
        "child, or fork before connecting"
    )
    for client in list(_open):
        client.refuse_from_now_on(error)
    _open.clear()


os.register_at_fork(after_in_child=_in_child)
