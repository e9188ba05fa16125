"""How long a ZooKeeper server may take to answer a new connection.

kazoo gives the connection a whole session timeout and each step of the handshake that of the
session divided by the servers; a server that takes the connection and stays silent, as one that is
starting may, then costs the session although others are well. A broken connection is noticed two
thirds of a session after the last answer, so all servers together are given the last third.
While there is no session there is none to lose, and ZooKeeper has to write a new one: then all
servers together are given the time of a session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from kazoo.handlers.threading import SequentialThreadingHandler

HANDSHAKE_SHARE: Final = 1 / 3
"""Of a session that lives: for one attempt at every server."""

_BEFORE_DOUBLING: Final = 2
_MOST_COUNTED: Final = 16


class HandshakePatience:
    """For how long an attempt at a server is waited for; no clock, no sockets.

    An attempt gets a third of the session divided by the servers. Once an address has been silent
    for three of them, and with that for a session, and no other server has answered, each further
    one there gets twice as long, up to the session divided by the servers: an ensemble that is
    slow as a whole is reached in the end.
    """

    __slots__ = ("_first_s", "_has_session", "_ran_out", "_servers", "session_timeout_s")

    def __init__(
        self, session_timeout_s: float, servers: int, *, first_s: float | None = None
    ) -> None:
        """`first_s` is what a first attempt gets; None: a share of the session's timeout."""
        self.session_timeout_s = session_timeout_s
        self._servers = servers
        self._first_s = first_s
        self._ran_out: dict[object, int] = {}
        self._has_session = False

    def attempt_s(self, address: object) -> float:
        """What an attempt at `address` gets, in seconds."""
        # A name may stand for several addresses.
        longest_s = self.session_timeout_s / max(self._servers, len(self._ran_out))
        share = HANDSHAKE_SHARE if self._has_session else 1.0
        first_s = share * longest_s if self._first_s is None else self._first_s
        doublings = max(0, self._ran_out.get(address, 0) - _BEFORE_DOUBLING)
        return min(first_s * 2.0**doublings, longest_s)

    def ran_out(self, address: object) -> None:
        """The server at `address` has not answered within the time."""
        self._ran_out[address] = min(self._ran_out.get(address, 0) + 1, _MOST_COUNTED)

    def succeeded(self) -> None:
        """A server has answered all of the handshake: there is a session."""
        self._has_session = True
        self._ran_out.clear()

    def session_ended(self) -> None:
        """The next handshake is for a new one."""
        self._has_session = False


class BoundedHandler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's handler, which ends a connection's set-up and handshake when the patience does.

    It rests on two things of kazoo's: connections are made by `create_connection`, and until the
    handshake is over `select` waits for that one socket alone, afterwards for kazoo's queue too.
    Where a later kazoo does otherwise, its own longer timeouts hold. With TLS, TCP's set-up and
    TLS's handshake are bounded by as much each.
    """

    def __init__(
        self, patience: HandshakePatience, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.patience = patience
        self._now_s = now_s
        self._attempt: _Attempt | None = None
        """The one whose handshake is under way; kazoo's thread only."""

    def create_connection(self, *args: Any, **options: Any) -> Any:
        """As kazoo's, but no longer than the patience. Raises OSError."""
        address = args[0] if args else options["address"]
        bound_s, asked_s = self.patience.attempt_s(address), options.get("timeout")
        options["timeout"] = bound_s if asked_s is None else min(asked_s, bound_s)
        end_s = self._now_s() + bound_s
        try:
            connection = super().create_connection(*args, **options)
        except TimeoutError:
            self.patience.ran_out(address)
            raise
        self._attempt = _Attempt(connection, address, end_s)
        return connection

    def select(
        self,
        rlist: Sequence[Any],
        wlist: Sequence[Any],
        xlist: Sequence[Any],
        timeout: float | None = None,
    ) -> Any:
        """As kazoo's; nothing is ready when the patience for a handshake has run out."""
        attempt, waited_for = self._attempt, [*rlist, *wlist]
        if attempt is None or attempt.connection not in waited_for:
            return super().select(rlist, wlist, xlist, timeout)
        if len(waited_for) > 1:
            self._attempt = None
            self.patience.succeeded()
            return super().select(rlist, wlist, xlist, timeout)
        left_s = max(0.0, attempt.end_s - self._now_s())
        ready = super().select(
            rlist, wlist, xlist, left_s if timeout is None else min(timeout, left_s)
        )
        if not any(ready) and (timeout is None or left_s <= timeout):
            self._attempt = None
            self.patience.ran_out(attempt.address)
        return ready


class _Attempt(NamedTuple):
    connection: Any
    address: object
    end_s: float
