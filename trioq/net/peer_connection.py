"""One connection to another broker: a request out, its answer in, then the next.

Answers are received where they are decoded: into one buffer that the connection keeps, grown
as bytes arrive. A connection belongs to one task at a time; many at once take several (peer.py).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

import trio

from trioq._native.socket_io import recv_into, send
from trioq.errors import PeerUnreachable, ProtocolViolation
from trioq.wire.api_keys import Api
from trioq.wire.framing import request_frame
from trioq.wire.header import response_body_position
from trioq.wire.schema import Message

if TYPE_CHECKING:
    from trioq.wire.primitives import Part

Address = tuple[str, int]

FIRST_BUFFER_BYTES: Final = 16 << 10
SMALL_ANSWERS: Final = 256
"""After so many answers in a row that fill less than an eighth of the buffer it is given back."""
RECEIVE_BYTES: Final = 512 << 10
"""Most bytes that one system call receives. Of a long answer, this task is not woken for fewer
either (SO_RCVLOWAT): a wake-up costs as much as copying 64 KiB, which is all that has come when it
is left to the kernel.
"""
TURN_BYTES: Final = 2 << 20
"""After so many bytes that were there already the loop's other tasks come in between: that is
about half a millisecond, and a turn of the loop costs a tenth of it."""

_LENGTH: Final = struct.Struct(">i")
_PREFIX: Final = struct.Struct(">ii")  # length, correlation id


class PeerConnection:
    """A connected socket and its buffer.

    Any failure, a late answer and a cancelled call close it: what the other side sends then
    would be taken for the answer to a later request.
    """

    __slots__ = (
        "_buffer",
        "_correlation_id",
        "_kept_bytes",
        "_max_bytes",
        "_small_answers",
        "_stream",
        "_turn_bytes",
        "_wake_bytes",
        "address",
        "is_receiving",
    )

    def __init__(
        self, stream: trio.SocketStream, address: Address, *, max_bytes: int, kept_bytes: int
    ) -> None:
        """Take over a connected stream.

        Args:
            stream: owned from now on.
            address: where it leads to; for messages.
            max_bytes: the longest answer; a longer one is a failure.
            kept_bytes: a buffer that grew beyond this for one answer is given back before the
                next.
        """
        self.address = address
        self._stream = stream
        self._max_bytes = max_bytes
        self._kept_bytes = kept_bytes
        self._buffer = bytearray(FIRST_BUFFER_BYTES)
        self._correlation_id = 0
        self._small_answers = 0
        self._turn_bytes = 0
        self._wake_bytes = 1
        self.is_receiving = False
        """Some of the answer that is waited for has come."""

    @property
    def is_open(self) -> bool:
        return self._stream.socket.fileno() >= 0

    def close(self) -> None:
        """Close the socket at once; a call under way fails."""
        self._stream.socket.close()

    def is_usable(self) -> bool:
        """False when the other side closed the connection, or sent what nobody asked for."""
        if not self.is_open:
            return False
        try:
            return recv_into(self._stream.socket.fileno(), bytearray(1), 0, 1) < 0
        except OSError:
            return False

    async def call(self, api: Api, version: int, request: Message, client_id: str) -> Message:
        """Send `request`; its decoded answer.

        Records in it borrow the connection's buffer: they are valid until the next call. Raises
        PeerUnreachable, EncodeError.
        """
        parts = request_frame(api.key, version, self._next_id(), client_id, request)
        frame = await self._exchange(parts)
        end = len(frame)
        try:
            position = response_body_position(api.key, version, frame, 0, end)
            return api.response_class.decode(frame, position, end, version)
        except ProtocolViolation as error:
            self.close()
            raise PeerUnreachable(
                f"{name_of(self.address)} answered {api.name} with bytes that make no sense: "
                f"{error}"
            ) from error

    async def forward(self, frame: bytes | bytearray | memoryview) -> bytes:
        """Send a request frame that somebody else encoded; the answer's frame.

        Both without their length in front, both with the correlation id that `frame` has.
        Raises PeerUnreachable.
        """
        prefix = _LENGTH.pack(len(frame)) + bytes(frame[:4]) + _LENGTH.pack(self._next_id())
        answer = await self._exchange([prefix, frame[8:]])
        return bytes(frame[4:8]) + bytes(answer[4:])

    def _next_id(self) -> int:
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        return self._correlation_id

    async def _exchange(self, parts: list[Part]) -> memoryview:
        """Send a frame, receive the next: from its correlation id, which is checked, to its end.

        Raises PeerUnreachable. Closed when this does not return.
        """
        is_done = False
        try:
            await self._send(b"".join(parts))  # type: ignore[arg-type]  # no regions
            frame = await self._receive()
            is_done = True
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnreachable(
                f"the connection to {name_of(self.address)} broke ({reason(error)})"
            ) from error
        finally:
            if not is_done:
                self.close()
        return frame

    async def _send(self, data: bytes) -> None:
        """Send it all; at once where the socket takes it, since the answer is waited for anyway."""
        sent = max(0, send(self._stream.socket.fileno(), data, 0, len(data)))
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])

    async def _receive(self) -> memoryview:
        """One whole frame, in the buffer."""
        self.is_receiving = False
        if len(self._buffer) > self._kept_bytes or self._small_answers > SMALL_ANSWERS:
            self._buffer = bytearray(FIRST_BUFFER_BYTES)
            self._small_answers = 0
        end = await self._fill(0, _PREFIX.size, len(self._buffer))
        self.is_receiving = True
        length, correlation_id = _PREFIX.unpack_from(self._buffer)
        if not _LENGTH.size <= length <= self._max_bytes:
            raise PeerUnreachable(
                f"{name_of(self.address)} answers with a frame of {length} bytes, allowed are "
                f"{self._max_bytes}: does a broker listen there, and is TLS off on both sides?"
            )
        if correlation_id != self._correlation_id:
            raise PeerUnreachable(
                f"{name_of(self.address)} answered request {correlation_id}, not "
                f"{self._correlation_id}, which it was asked"
            )
        total = _LENGTH.size + length
        is_small = 8 * total < len(self._buffer) > FIRST_BUFFER_BYTES
        self._small_answers = self._small_answers + 1 if is_small else 0
        while end < total:
            if end == len(self._buffer):
                self._grow(total)
            until = min(total, len(self._buffer))
            end = await self._fill(end, until, until)
        self._wake_at(1)
        if end > total:
            raise PeerUnreachable(
                f"{name_of(self.address)} sent {end - total} bytes that nobody asked for"
            )
        return memoryview(self._buffer)[_LENGTH.size : total]

    async def _fill(self, start: int, least: int, most: int) -> int:
        """Receive behind `start` until the buffer holds `least` bytes, and at most `most`."""
        fd = self._stream.socket.fileno()
        while start < least:
            received = recv_into(fd, self._buffer, start, min(most - start, RECEIVE_BYTES))
            if received > 0:
                start += received
                self._turn_bytes += received
                if self._turn_bytes >= TURN_BYTES:
                    self._turn_bytes = 0
                    await trio.lowlevel.checkpoint()
                    fd = self._stream.socket.fileno()
            elif received == 0:
                raise PeerUnreachable(
                    f"{name_of(self.address)} closed the connection before it had answered: see "
                    "its log"
                )
            else:
                if most == least:
                    self._wake_at(min(least - start, RECEIVE_BYTES))
                self._turn_bytes = 0
                await trio.lowlevel.wait_readable(fd)
        return start

    def _wake_at(self, count: int) -> None:
        """Have the socket count as readable when `count` bytes are there, or its end."""
        if count != self._wake_bytes:
            self._wake_bytes = count
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _grow(self, total: int) -> None:
        """Twice the room, at most `total`: memory follows what came, not what was claimed."""
        # A new buffer, since one that is still lent out cannot be resized.
        room = min(total, 2 * len(self._buffer))
        buffer = bytearray(room)
        buffer[: len(self._buffer)] = self._buffer
        self._buffer = buffer


def name_of(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason(error: BaseException) -> str:
    """The innermost cause, in words."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return str(error) or type(error).__name__


async def connect(address: Address, *, max_bytes: int, kept_bytes: int) -> PeerConnection:
    """A connection to `address`; raises PeerUnreachable."""
    host, port = address
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise PeerUnreachable(
            f"no connection to {name_of(address)} ({reason(error)}): does the broker run there?"
        ) from error
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return PeerConnection(stream, address, max_bytes=max_bytes, kept_bytes=kept_bytes)
