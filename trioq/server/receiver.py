"""The receiving half of a pass: from ready sockets to dispatched frames."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from trioq._native.frames import LENGTH_BYTES, split
from trioq._native.intake import Intake
from trioq.errors import ProtocolViolation
from trioq.net.socket_buffers import (
    BULK_RECEIVE_BYTES,
    LARGE_FRAME_BYTES,
    LAST_POSITION,
    PLAIN_RECEIVE_BYTES,
    RECEIVE_BYTES,
    SCRATCH_BYTES,
    Inbox,
    ScratchBuffer,
)
from trioq.server.connection import MUTED_BUDGET, MUTED_UNDISPATCHED, NO_FRAME, Connection, Ending

if TYPE_CHECKING:
    from trioq.clock import Clock
    from trioq.server.dispatch import Dispatcher
    from trioq.server.reactor import Reactor

_FRAMES_PER_TURN: Final = 64  # most requests of one connection in a pass


class Receiver(Intake):
    """Reads from ready connections, splits frames and has them dispatched.

    Part of the reactor, which alone calls it. A connection's bytes go into the scratch
    buffer, whose space is the pass's budget of bytes; of a large frame, straight into the
    connection's inbox.
    """

    __slots__ = (
        "_budget",
        "_clock",
        "_counters",
        "_dispatcher",
        "_max_frame_bytes",
    )

    _reactor: Reactor
    _scratch: ScratchBuffer

    def __init__(self, reactor: Reactor, dispatcher: Dispatcher, clock: Clock) -> None:
        super().__init__(
            reactor,
            ScratchBuffer(),
            dispatcher.lane,
            receive_bytes=PLAIN_RECEIVE_BYTES,
            held_bytes=LARGE_FRAME_BYTES,
            last_position=LAST_POSITION,
            max_frames=_FRAMES_PER_TURN,
        )
        self._dispatcher = dispatcher
        self._clock = clock
        self._budget = reactor.budget
        self._counters = reactor.counters
        self._max_frame_bytes = reactor.limits.max_frame_bytes

    def use_lane(self) -> None:
        """Go on with the dispatcher's lane, which is another than before."""
        self._lane = self._dispatcher.lane

    def serve(self, ready: list[Connection], end_s: float) -> list[Connection]:
        """Serve within the budget of bytes and time.

        Those in the middle of a large frame come last, though at least one of them always
        gets a turn. Returns who has to wait for the next pass.
        """
        bulk: list[Connection] = []
        left: list[Connection] = []
        scratch = self._scratch
        clock = self._clock
        index = 0
        while index < len(ready):
            start, index = index, self.serve_small(ready, index)
            if index == start:
                connection = ready[index]
                index += 1
                if connection.inbox.is_large and not connection.muted:
                    bulk.append(connection)
                    continue
                connection.is_ready = False
                self._serve(connection)
            if not scratch.has_room or clock.monotonic_s() > end_s:
                left = ready[index:]
                break
        if self._going_on:
            bulk += self._going_on
            self._going_on = []
        return [*left, *self._serve_bulk(bulk, end_s)] if bulk else left

    def end_pass(self, *, is_released: bool) -> None:
        """The pass ends; `is_released` if nobody borrows what was received any longer."""
        scratch = self._scratch
        if is_released:
            scratch.rewind()
        elif not scratch.has_room:
            scratch.renew()
            self._counters.scratch_buffers_abandoned += 1

    def _serve_bulk(self, bulk: list[Connection], end_s: float) -> deque[Connection]:
        """Share what is left of the pass; returns who could go on receiving."""
        waiting = deque(bulk)
        received = self._scratch.position
        while waiting:
            connection = waiting.popleft()
            size = self._receive_large(connection)
            received += size
            if size and connection.inbox.is_large and not connection.muted:
                waiting.append(connection)
            else:
                connection.is_ready = False
            if received >= SCRATCH_BYTES or self._clock.monotonic_s() > end_s:
                break
        return waiting

    def _serve(self, connection: Connection) -> None:
        """One turn of a connection: dispatch what waits in its inbox, or receive."""
        if connection.muted & ~MUTED_UNDISPATCHED:
            return
        if connection.muted:
            self._dispatch_inbox(connection)
            return
        scratch = self._scratch
        inbox = connection.inbox
        start = scratch.position
        body = start + inbox.length
        if inbox.length:
            scratch.view[start:body] = inbox.buffer
        try:
            received = connection.transport.receive(scratch.buffer, body, RECEIVE_BYTES)
        except OSError as error:
            connection.close(f"receiving failed: {error}", Ending.NORMAL)
            return
        if received <= 0:
            if received == 0:
                connection.close("the peer closed", Ending.NORMAL)
            return
        end = scratch.position = body + received
        connection.last_activity_s = self._reactor.now_s
        self._counters.bytes_in += received
        if inbox.length:
            inbox.take()
            self._budget.release(inbox)
        self._dispatch_frames(connection, scratch.view, start, end)
        if connection.transport.pending_bytes:
            self._reactor.serve_again(connection)

    def _emptied(self, inbox: Inbox) -> None:
        inbox.take()
        self._budget.release(inbox)

    def _hold(self, inbox: Inbox, start: int, end: int, frame_bytes: int) -> None:
        inbox.keep(self._scratch.view[start:end], frame_bytes)
        self._budget.hold(inbox, end - start)

    def _receive_large(self, connection: Connection) -> int:
        """One receive straight into the inbox; returns bytes received."""
        inbox = connection.inbox
        if connection.muted:
            return 0
        if inbox.is_full:
            growth = inbox.next_growth()
            if not self._budget.grant(inbox, growth, connection.budget_granted):
                connection.muted |= MUTED_BUDGET
                self._reactor.flush_soon(connection)
                return 0
            inbox.grow(growth)
        room = min(len(inbox.buffer) - inbox.length, BULK_RECEIVE_BYTES)
        try:
            received = connection.transport.receive(inbox.buffer, inbox.length, room)
        except OSError as error:
            connection.close(f"receiving failed: {error}", Ending.NORMAL)
            return 0
        if received <= 0:
            if received == 0:
                connection.close("the peer closed", Ending.NORMAL)
            return 0
        inbox.length += received
        connection.last_activity_s = self._reactor.now_s
        self._counters.bytes_in += received
        if inbox.length == inbox.frame_bytes:
            self._dispatch_inbox(connection)
        if connection.transport.pending_bytes:
            self._reactor.serve_again(connection)
        return received

    def _dispatch_inbox(self, connection: Connection) -> None:
        """Dispatch from what the connection holds; what has to wait is held again."""
        inbox = connection.inbox
        connection.muted &= ~MUTED_UNDISPATCHED
        end = inbox.length
        buffer = inbox.take()
        self._budget.release(inbox)
        self._dispatch_frames(connection, memoryview(buffer), 0, end)
        self._reactor.flush_soon(connection)  # it may be read from again

    def _dispatch_frames(
        self, connection: Connection, view: memoryview, start: int, end: int
    ) -> None:
        """Run stage 1 of the whole frames in view[start:end] and keep the rest."""
        rest = self._lane.take(connection, view, start, end, _FRAMES_PER_TURN)
        if rest != start:
            connection.frame_started_s = NO_FRAME
        if rest != end:
            self._dispatch_rest(connection, view, rest, end)

    def _dispatch_rest(
        self, connection: Connection, view: memoryview, start: int, end: int
    ) -> None:
        """As `_dispatch_frames`, from a frame that the lane does not take."""
        is_same_frame = connection.frame_started_s != NO_FRAME
        first = start
        try:
            start, frame_bytes, waits = self._dispatch_some(connection, view, start, end)
        except ProtocolViolation as error:
            self._counters.protocol_violations += 1
            connection.close(str(error))
            return
        if start == end:
            connection.frame_started_s = NO_FRAME
            return
        inbox = connection.inbox
        inbox.keep(view[start:end], frame_bytes)
        self._budget.hold(inbox, inbox.length)
        if waits:
            connection.muted |= MUTED_UNDISPATCHED
            connection.frame_started_s = NO_FRAME
            self._reactor.flush_soon(connection)
        elif start != first or not is_same_frame:
            connection.frame_started_s = self._reactor.now_s

    def _dispatch_some(
        self, connection: Connection, view: memoryview, start: int, end: int
    ) -> tuple[int, int, bool]:
        """Dispatch whole frames, up to a turn's share.

        Returns where the rest starts, the size of the frame there (0 if unknown), and
        whether a whole frame of it could not be dispatched yet.
        """
        limit = self._max_frame_bytes
        violation = None
        try:
            frames, rest, frame_bytes = split(view, start, end, limit, _FRAMES_PER_TURN)
        except ProtocolViolation as error:
            violation = error
            frames = _frames_before_violation(view, start, limit)
            rest = end
            frame_bytes = 0
        dispatch = self._dispatcher.dispatch
        for body_start, body_end in frames:
            if connection.is_closing or connection.is_finishing:
                return end, 0, False
            if not dispatch(connection, view, body_start, body_end):
                return body_start - LENGTH_BYTES, body_end - body_start + LENGTH_BYTES, True
        if violation is not None:
            raise violation
        return rest, frame_bytes, 0 < frame_bytes <= end - rest


def _frames_before_violation(
    view: memoryview, start: int, max_frame_bytes: int
) -> list[tuple[int, int]]:
    """As `split`, for bytes in which some length is not allowed: the whole frames before it."""
    frames: list[tuple[int, int]] = []
    while True:
        body = start + LENGTH_BYTES
        length = int.from_bytes(view[start:body], "big", signed=True)
        if not 0 < length <= max_frame_bytes:
            return frames
        start = body + length
        frames.append((body, start))
