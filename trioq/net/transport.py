"""How the bytes of one connection reach its socket.

Everything above this line is the same for a plain socket and for an encrypted one: TLS
becomes a second class with these four calls, whose `pending_bytes` is what it has
decrypted and not yet handed out (such bytes raise no event, so their connection goes on
the reactor's ready list).
"""

from __future__ import annotations

from typing import Protocol

from trioq._native.socket_io import recv_into, send, sendfile, sendmsg

Buffer = bytes | bytearray | memoryview


class Transport(Protocol):
    """Non-blocking reads and sends; "would block" is -1, errors are OSError."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that `receive` would give without asking the socket."""
        ...

    def receive(self, buffer: Buffer, start: int, length: int) -> int:
        """Up to `length` bytes into buffer[start:]; 0 at the end of the stream."""
        ...

    def send(self, buffers: list[Buffer], first_offset: int, *, more: bool = False) -> int:
        """Send the buffers without the first `first_offset` bytes; bytes taken.

        `more` says that something else is sent at once, which may share a packet.
        """
        ...

    def send_file(self, file_fd: int, position: int, length: int) -> int:
        """Send a range of a file; bytes taken, 0 if the file ends before it."""
        ...


class PlainTransport:
    """A plain TCP socket, by its descriptor (owned by the connection)."""

    __slots__ = ("_fd",)

    pending_bytes = 0

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def receive(self, buffer: Buffer, start: int, length: int) -> int:
        return recv_into(self._fd, buffer, start, length)

    def send(self, buffers: list[Buffer], first_offset: int, *, more: bool = False) -> int:
        if len(buffers) == 1:
            only = buffers[0]
            return send(self._fd, only, first_offset, len(only) - first_offset, more)
        return sendmsg(self._fd, buffers, first_offset, more)

    def send_file(self, file_fd: int, position: int, length: int) -> int:
        return sendfile(self._fd, file_fd, position, length)
