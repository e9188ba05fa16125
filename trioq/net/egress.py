"""What is queued for one connection, and how it is sent: gathered, or straight from files."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, cast

from trioq._native import posix
from trioq._native.response_ring import EgressQueue
from trioq._native.socket_io import pread_into
from trioq.net.transport import Buffer, Transport
from trioq.types import FileRegion, OpenFile

GATHER_FILE_BYTES = 32 * 1024
"""A file region up to here is read and sent together with its neighbours."""

SLICE_BYTES = 1024 * 1024
"""Most bytes of one sendfile: as many are asked to be in memory first."""

_GATHER_BYTES = 256 * 1024
_GATHER_PARTS = 64

Part = Buffer | FileRegion


class SendState(IntEnum):
    """Where a connection stands after a send."""

    DONE = 0
    """Nothing is queued any longer."""

    BLOCKED = 1
    """The socket takes no more; go on when it is writable."""

    BUDGET_SPENT = 2
    """The socket would take more, but others come first; go on in the next pass."""

    COLD = 3
    """The next bytes are not in memory: `cold_range` has to be read, in a thread."""


class ColdRange(NamedTuple):
    """File bytes to bring into memory before they can be sent without blocking."""

    file: OpenFile
    position: int
    length: int


class RegionEndedError(OSError):
    """The file ends before the region does, so the response cannot be finished."""


class Egress(EgressQueue):
    """The queue of one connection: parts of responses in order, and a cursor in the first.

    Owns the file regions in it and releases each exactly once: when its last byte is
    sent, or in `close`. While the first response is blocked nothing else is sent.
    """

    __slots__ = (
        "_cursor",
        "_is_plain",
        "_parts",
        "_transport",
        "_warm_end",
        "cold_range",
    )

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._parts: deque[Part] = deque()
        self._cursor = 0  # bytes of the first part that are sent already
        self._is_plain = True  # every queued response is one buffer
        self._warm_end = -1  # the first part's file bytes below this were just read
        self.cold_range: ColdRange | None = None

    def push(self, parts: Sequence[Part], length: int) -> None:
        """Queue a whole response of `length` bytes; its file regions are owned from here on."""
        if len(parts) != 1 or type(parts[0]) is FileRegion:
            self._is_plain = False
        self._parts.extend(parts)
        self.queued_bytes += length

    def send(self, budget_bytes: int) -> SendState:
        """Send until the queue is empty, the socket is full, or about `budget_bytes` went out.

        Raises OSError when the connection is broken or a file cannot be read.
        """
        parts = self._parts
        queued_bytes = self.queued_bytes
        if self._is_plain and queued_bytes <= budget_bytes and len(parts) <= _GATHER_PARTS:
            buffers = cast("list[Buffer]", list(parts))
            sent = self._transport.send(buffers, self._cursor)
            if sent == queued_bytes:
                parts.clear()
                self._cursor = self.queued_bytes = 0
                return SendState.DONE
            if sent > 0:
                self._advance(sent)
            return SendState.BLOCKED
        end_bytes = queued_bytes - budget_bytes
        while parts:
            if self.queued_bytes <= end_bytes:
                return SendState.BUDGET_SPENT
            head = parts[0]
            if isinstance(head, FileRegion) and head.length > GATHER_FILE_BYTES:
                state = self._send_file(head)
            else:
                state = self._send_gathered()
            if state is not SendState.DONE:
                return state
        self._is_plain = True
        return SendState.DONE

    def warmed(self) -> None:
        """The cold range was read: send it, whatever the kernel says about it now."""
        if self.cold_range is not None:
            self._warm_end = self.cold_range.position + self.cold_range.length
            self.cold_range = None

    def close(self) -> None:
        """Drop everything queued and release its file regions."""
        for part in self._parts:
            if isinstance(part, FileRegion):
                part.file.release()
        self._parts.clear()
        self.queued_bytes = 0

    def _send_gathered(self) -> SendState:
        """One gathered call over the buffers at the head; small file regions become buffers."""
        parts = self._parts
        buffers: list[Buffer] = []
        gathered = 0
        is_file_next = False
        for index in range(min(len(parts), _GATHER_PARTS)):
            part = parts[index]
            data: Buffer
            if isinstance(part, FileRegion):
                if part.length > GATHER_FILE_BYTES:
                    is_file_next = True
                    break
                hot = self._read_hot(part)
                if hot is None:
                    if index == 0:
                        return SendState.COLD
                    self.cold_range = None  # asked again when it is at the head
                    break
                parts[index] = data = hot
                part.file.release()
            else:
                data = part
            buffers.append(data)
            gathered += len(data)
            if gathered >= _GATHER_BYTES:
                break
        sent = self._transport.send(buffers, self._cursor, more=is_file_next)
        if sent < 0:
            return SendState.BLOCKED
        gathered -= self._cursor
        self._advance(sent)
        return SendState.DONE if sent == gathered else SendState.BLOCKED

    def _send_file(self, region: FileRegion) -> SendState:
        """One slice of a file region by sendfile."""
        file_fd = region.file.fileno()
        position = region.position + self._cursor
        length = min(region.length - self._cursor, SLICE_BYTES)
        if position >= self._warm_end and not posix.resident(file_fd, position, length):
            self.cold_range = ColdRange(region.file, position, length)
            return SendState.COLD
        sent = self._transport.send_file(file_fd, position, length)
        if sent < 0:
            return SendState.BLOCKED
        if sent == 0:
            raise _region_ended(region)
        self._advance(sent)
        return SendState.DONE

    def _read_hot(self, region: FileRegion) -> Buffer | None:
        """The bytes of a small region, or None (and `cold_range`) if reading would block."""
        file_fd = region.file.fileno()
        if region.position >= self._warm_end and not posix.resident(
            file_fd, region.position, region.length
        ):
            self.cold_range = ColdRange(region.file, region.position, region.length)
            return None
        data = bytearray(region.length)
        if pread_into(file_fd, data, region.position, region.length) != region.length:
            raise _region_ended(region)
        return data

    def _advance(self, sent: int) -> None:
        """Move the cursor over `sent` bytes; parts it passes are finished."""
        parts = self._parts
        self.queued_bytes -= sent
        sent += self._cursor
        while parts:
            head = parts[0]
            length = head.length if isinstance(head, FileRegion) else len(head)
            if sent < length:
                break
            sent -= length
            parts.popleft()
            self._warm_end = -1
            if isinstance(head, FileRegion):
                head.file.release()
        self._cursor = sent


def read_ahead(cold: ColdRange) -> None:
    """Bring a cold range into memory. Blocks on the disk: run it in a thread.

    The caller holds a reference on the file meanwhile. Raises OSError.
    """
    posix.read_ahead(cold.file.fileno(), cold.position, cold.length)


def _region_ended(region: FileRegion) -> RegionEndedError:
    return RegionEndedError(
        f"file ends within a region of {region.length} bytes at {region.position} to be sent"
    )
