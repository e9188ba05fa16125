"""The session between this process and the metastore: its state, and the lease it grants.

CONNECTED   the store answers.
SUSPENDED   it does not, or not in time: the session may or may not have ended. A
            controller or coordinator stops acting at once; partition leaders go on.
LOST        the session has ended and its ephemerals are gone. Reconnecting starts a new
            generation.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class SessionState(enum.Enum):
    """What is known about the session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class Session:
    """The state of one backend's session; owned and moved by the backend, read by all.

    `generation` grows by one with each new session after a lost one. `lease_end_s` is the
    moment, on the monotonic clock that the backend was given, up to which roles that
    rest on the session may be exercised even if no news arrives; infinity where nobody
    else could take the role (the embedded store, locked by this process).
    """

    __slots__ = ("_changed", "_leases", "generation", "lease_end_s", "state")

    def __init__(self, *, lease_end_s: float = math.inf) -> None:
        self.state = SessionState.CONNECTED
        self.generation = 1
        self.lease_end_s = lease_end_s
        self._changed = trio.Event()
        self._leases: set[Lease] = set()

    def move(self, state: SessionState) -> None:
        """Enter `state`, cut the leases unless CONNECTED, wake who waits; backends only."""
        if state is self.state:
            return
        if self.state is SessionState.LOST:
            self.generation += 1
        self.state = state
        for lease in self._leases:
            lease.scope.cancel()
        self._changed.set()
        self._changed = trio.Event()

    def holds_lease(self, now_s: float) -> bool:
        """Whether a role that rests on this session may act at `now_s`."""
        return self.state is SessionState.CONNECTED and now_s < self.lease_end_s

    async def changed_from(self, state: SessionState) -> SessionState:
        """Wait until the state is another than `state`; returns the new one."""
        while self.state is state:
            await self._changed.wait()
        return self.state

    async def ended(self, generation: int) -> None:
        """Wait until the session of `generation` has ended: LOST, or followed by another."""
        while self.generation == generation and self.state is not SessionState.LOST:
            await self._changed.wait()

    async def connected(self) -> int:
        """Wait until the store answers; returns the generation."""
        while self.state is not SessionState.CONNECTED:
            await self._changed.wait()
        return self.generation

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Exercise a role for as long as the session stays CONNECTED.

        The body is cancelled when the session leaves CONNECTED, at once if it already
        has; `Lease.scope.cancelled_caught` then tells. Before each answer that was
        delayed the body asks `Lease.is_held`, because a stopped process hears late.
        """
        lease = Lease(self)
        if self.state is not SessionState.CONNECTED:
            lease.scope.cancel()
        self._leases.add(lease)
        try:
            with lease.scope:
                yield lease
        finally:
            self._leases.discard(lease)


class Lease:
    """One role's claim on the session; see Session.lease."""

    __slots__ = ("_generation", "_session", "scope")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._generation = session.generation
        self.scope = trio.CancelScope()

    def is_held(self, now_s: float) -> bool:
        """Whether the role may still act at `now_s`."""
        return self._session.generation == self._generation and self._session.holds_lease(now_s)
