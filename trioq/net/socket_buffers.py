"""Memory for what is received: one scratch buffer per reactor, and what a connection owns.

A receive goes into the scratch buffer, whose space is the byte budget of a pass: each
receive takes the next piece, so that frames of one pass can stay borrowed until its end.
What is left of a connection's bytes after its whole frames were taken is copied to its
inbox. A frame too large for that is received straight into the inbox, at its exact size,
which grows as bytes arrive and is granted by the broker's budget first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trioq._native.growth import grow
from trioq._native.intake import ScratchState
from trioq._native.response_ring import InboxState

SCRATCH_BYTES = 1024 * 1024
RECEIVE_BYTES = 64 * 1024
"""Most bytes of one receive into the scratch buffer; more would give the interpreter lock away."""

PLAIN_RECEIVE_BYTES = 128 * 1024
"""The same from a plain socket, where the lock is kept: five requests of 16 KB come at once, and
none of them is cut in two, which costs a receive and two copies."""

LARGE_FRAME_BYTES = 32 * 1024
"""A partial frame larger than this is received straight into its connection's inbox."""

BULK_RECEIVE_BYTES = 1024 * 1024
"""Most bytes of one receive into an inbox."""

LAST_POSITION = SCRATCH_BYTES - PLAIN_RECEIVE_BYTES - LARGE_FRAME_BYTES
"""In the scratch buffer: where the last receive of a pass may start."""

GROWTH = 4
"""Of an inbox that is full. Each step costs a receive, a pass where it ends one, and a copy."""

TRUSTED_BYTES = 4 * 1024 * 1024
"""A peer whose last large frame came whole has its inbox grow to as much at once."""


class ScratchBuffer(ScratchState):
    """The reactor's receive buffer, taken piece by piece during a pass."""

    __slots__ = ()

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Leave the buffer to those who borrow from it and go on with a new one."""
        self.buffer = bytearray(SCRATCH_BYTES)
        self.view = memoryview(self.buffer)
        self.position = 0

    def rewind(self) -> None:
        """Use the buffer again from its start; nobody may borrow from it."""
        self.position = 0

    @property
    def has_room(self) -> bool:
        """True if the largest small partial frame and a full receive fit."""
        return self.position <= LAST_POSITION


class Inbox(InboxState):
    """Bytes of one connection that were received and not yet dispatched.

    `buffer[:length]` is valid and starts with a frame's length field. `frame_bytes` is the
    size of that frame with its length field, 0 while unknown. The buffer is never used
    again after `take`, since frames in it may be borrowed.
    """

    __slots__ = ("_trusted_bytes", "charged_bytes")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.charged_bytes = 0
        self._trusted_bytes = RECEIVE_BYTES

    @property
    def is_large(self) -> bool:
        """True in the middle of a frame that is received at exact size."""
        return self.frame_bytes > LARGE_FRAME_BYTES

    @property
    def is_full(self) -> bool:
        """True if the buffer has to grow before more can be received into it."""
        return self.length == len(self.buffer)

    def next_growth(self) -> int:
        """Bytes by which the buffer grows next: to at most GROWTH times what has arrived, or the
        size of the last large frame (up to TRUSTED_BYTES), and never over the frame.
        """
        capacity = min(self.frame_bytes, max(GROWTH * self.length, self._trusted_bytes))
        return capacity - len(self.buffer)

    def grow(self, size_bytes: int) -> None:
        """Make room for `size_bytes` more, which the caller has charged."""
        grow(self.buffer, size_bytes)

    def keep(self, data: memoryview, frame_bytes: int) -> None:
        """Hold a copy of `data`; the inbox is empty before."""
        self.buffer = bytearray(data)
        self.length = len(data)
        self.frame_bytes = frame_bytes

    def take(self) -> bytearray:
        """Empty the inbox and hand its buffer over, valid up to the length it had."""
        buffer = self.buffer
        if self.is_large and self.length == self.frame_bytes:
            self._trusted_bytes = min(max(self.length, RECEIVE_BYTES), TRUSTED_BYTES)
        self.buffer = bytearray()
        self.length = 0
        self.frame_bytes = 0
        return buffer


class ReceiveBudget:
    """Bytes that all inboxes of a broker may hold together.

    Small leftovers are always held (they are received already, and bounded per
    connection); growth for a large frame is granted, or waits until it can be. Who waits
    is served in order, and the first may always go on, on a reserve of one maximum frame:
    otherwise half-received frames could fill the budget and wait for each other for ever.
    """

    __slots__ = ("_reserve_holder", "_waiting", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._reserve_holder: Inbox | None = None
        self._waiting: deque[tuple[Inbox, int, Callable[[], None]]] = deque()

    @property
    def waiting_count(self) -> int:
        """Number of inboxes that wait to grow."""
        return len(self._waiting)

    def hold(self, inbox: Inbox, size_bytes: int) -> None:
        """Charge bytes that are there already."""
        self.used_bytes += size_bytes
        inbox.charged_bytes += size_bytes

    def grant(self, inbox: Inbox, size_bytes: int, granted: Callable[[], None]) -> bool:
        """Charge growth by `size_bytes`.

        True if it is charged now. False if it has to wait: `granted` is then called once,
        by a plain call, after it was charged.
        """
        if inbox is not self._reserve_holder and (
            self._waiting or self.used_bytes + size_bytes > self.limit_bytes
        ):
            if self._waiting or self._reserve_holder is not None:
                self._waiting.append((inbox, size_bytes, granted))
                return False
            self._reserve_holder = inbox
        self.hold(inbox, size_bytes)
        return True

    def release(self, inbox: Inbox) -> None:
        """Give back everything charged for `inbox`: its bytes were handed on."""
        self.used_bytes -= inbox.charged_bytes
        inbox.charged_bytes = 0
        if self._reserve_holder is inbox:
            self._reserve_holder = None
        while self._waiting:
            first, size_bytes, granted = self._waiting[0]
            if self.used_bytes + size_bytes > self.limit_bytes:
                if self._reserve_holder is not None:
                    return
                self._reserve_holder = first
            self._waiting.popleft()
            self.hold(first, size_bytes)
            granted()

    def forget(self, inbox: Inbox) -> None:
        """The connection of `inbox` has ended: release, and leave the queue."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not inbox)
        self.release(inbox)
