"""Listening sockets: bound, then accepting for as long as the server serves."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq._native import socket_io
from trioq.config import format_address
from trioq.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioq.config import Listener

_log = logs.get_logger("trioq.server")

BACKLOG: Final = 1024
_ACCEPTS_PER_TURN: Final = 64
_PAUSE_S: Final = 0.1
_NON_BLOCKING: Final = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
"""The kind of an accepted socket: where it can be said, Python need not make it non-blocking, for
which it would give the interpreter lock away."""

_EXHAUSTED: Final = frozenset(
    {
        errno.EMFILE,  # this process has no descriptor left
        errno.ENFILE,  # the system has none left
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
"""Errors of accept that go away when something is closed: pause and go on. All others
concern the one connection that could not be accepted."""

_ADVICE: Final = {
    errno.EADDRINUSE: "another process listens there: stop it, or choose another port "
    "(port 0 takes a free one)",
    errno.EADDRNOTAVAIL: "this host does not have that address: listen on one that it has",
    errno.EACCES: "ports below 1024 need privileges: choose a higher one",
}

Accepted = tuple[socket.socket, tuple[str, int]]


class BoundListener:
    """One address of a listener, bound; accepts while `run` runs."""

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self.listener = listener
        self._socket = sock
        host, port = sock.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        self._scope = trio.CancelScope()

    async def run(
        self,
        admit: Callable[[socket.socket, tuple[str, int], str], None],
        pause: Callable[[], None],
    ) -> None:
        """Accept until `stop`; each socket is handed to `admit`, which owns it from there.

        `pause` is told whenever accepting has to wait for descriptors or memory.
        """
        with self._scope:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                if not self._accept_some(admit):
                    pause()
                    await trio.sleep(_PAUSE_S)
        self._socket.close()

    def stop(self) -> None:
        """Accept no more; the address is given up."""
        self._scope.cancel()

    def close(self) -> None:
        """Give the address up when `run` was never started; harmless afterwards."""
        self._socket.close()

    def _accept_some(self, admit: Callable[[socket.socket, tuple[str, int], str], None]) -> bool:
        """Accept what waits, up to a turn's share; False when resources are exhausted."""
        listening = self._socket
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted = socket_io.accept(listening.fileno())
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _log.error(
                        "accepting pauses",
                        listener=format_address(self.host, self.port),
                        reason=os.strerror(error.errno),
                    )
                    return False
                continue
            if accepted is None:
                break
            descriptor, host, port = accepted
            sock = socket.socket(listening.family, _NON_BLOCKING, listening.proto, descriptor)
            admit(sock, (host, port), self.listener.name)
        return True


def bind(listener: Listener) -> list[BoundListener]:
    """Bind every address that the listener's host stands for.

    An empty host binds one socket for IPv4 and IPv6 where the system has both. Port 0
    takes a free port, the same for all addresses.
    Raises StartupError, which says what to do.
    """
    wanted = format_address(listener.host, listener.port)
    bound: list[BoundListener] = []
    port = listener.port
    try:
        for family, host in _addresses(listener):
            one = BoundListener(listener, _listening_socket(family, host, port))
            bound.append(one)
            port = one.port
    except OSError as error:
        for one in bound:
            one.close()
        reason = error.strerror or str(error)
        advice = _ADVICE.get(error.errno or 0, "check the setting listeners")
        raise StartupError(f"cannot listen on {wanted}: {reason}; {advice}") from error
    return bound


def _addresses(listener: Listener) -> list[tuple[int, str]]:
    """(family, address) of each socket to bind."""
    if not listener.host:
        both = socket.has_dualstack_ipv6()
        return [(socket.AF_INET6, "::") if both else (socket.AF_INET, "0.0.0.0")]  # noqa: S104
    found = socket.getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((int(family), str(address[0])) for family, *_, address in found))


def _listening_socket(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def prepare_accepted(sock: socket.socket) -> None:
    """Options of a client's socket: non-blocking, no delay, keepalive. Raises OSError."""
    if sock.gettimeout() != 0:
        sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
