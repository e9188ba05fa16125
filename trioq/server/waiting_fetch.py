"""A fetch while it is served: what it reads, and its wait for more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trioq.errors import KafkaError
from trioq.net.egress import SLICE_BYTES, ColdRange, read_ahead
from trioq.server.fetch_answer import FetchAnswer
from trioq.server.fetch_sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    FetchSession,
    FollowedPartition,
)

if TYPE_CHECKING:
    from trioq.replication.partition import Partition
    from trioq.replication.replica import Replica
    from trioq.server.context import Context, Request
    from trioq.server.deadlines import Deadline
    from trioq.server.slot import Slot
    from trioq.storage.log_read import ColdPlace
    from trioq.wire.messages.fetch import FetchRequest, FetchResponse

COLD_READS = 3
"""How often a fetch has what it needs read from disk."""

LONG_WAIT_MS = 100
ENDS_PER_S = 100
"""How often polls of LONG_WAIT_MS and more may end."""


def _end_of_wait_s(now_s: float, max_wait_ms: int) -> float:
    """When a poll that begins now has waited long enough.

    Long ones end on a grid, up to a hundredth of a second late, so that those of many idle
    consumers are answered, and come in again, together: a turn of the loop for each would
    cost several times the answer.
    """
    end_s = now_s + max_wait_ms / 1000
    return end_s if max_wait_ms < LONG_WAIT_MS else math.ceil(end_s * ENDS_PER_S) / ENDS_PER_S


class WaitingFetch:
    """One fetch request: what it reads, and its wait for more.

    While parked it listens to its partitions, through its session if it has one, and is
    answered exactly once: by progress, by its deadline, or by its connection's end.
    """

    __slots__ = ("_asked", "_ctx", "_deadline", "_is_full", "_message", "_request", "_session",
                 "_slot", "_still_needed_bytes")  # fmt: skip

    def __init__(
        self,
        ctx: Context,
        request: Request,
        slot: Slot,
        message: FetchRequest,
        session: FetchSession | None,
        asked: list[FollowedPartition] | None,
    ) -> None:
        self._ctx = ctx
        self._request = request
        self._slot = slot
        self._message = message
        self._session = session
        self._asked = asked
        self._is_full = message.session_epoch in (FINAL_EPOCH, INITIAL_EPOCH)
        self._deadline: Deadline | None = None
        self._still_needed_bytes = 0

    def is_put_off(self) -> bool:
        """Whether it waits already, as it is to be read later, whatever there is now."""
        return False

    def serve(self) -> FetchResponse | None:
        """The response if there is enough to be read; else None, and the fetch waits for more."""
        answer, message, session = self.read(), self._message, self._session
        if answer.is_final or answer.total_bytes >= message.min_bytes or message.max_wait_ms <= 0:
            return answer.response()
        if not (session.followed if session is not None else self._asked):
            return answer.response()
        self.park(answer)
        return None

    def cold_place(self) -> ColdPlace | None:
        """What has to be read from disk before `read` finds everything in memory, as far as it is
        known; None when nothing has. Never waits for the disk.
        """
        for followed in self._due():
            partition = followed.partition
            if partition is None:
                partition = self._ctx.partitions.find(followed.topic, followed.number)
            if partition is not None and not partition.is_closed:
                most_bytes = min(followed.max_bytes, SLICE_BYTES)
                try:
                    place = partition.log.cold_place(followed.fetch_offset, most_bytes)
                except KafkaError:
                    continue  # `read` meets it again, and answers what it is
                if place is not None:
                    return place
        return None

    async def serve_cold(self) -> None:
        """Have what is cold read in a thread, then serve; a task of the connection.

        Pages may be thrown out again at any time, so after COLD_READS it is served anyway.
        """
        for _ in range(COLD_READS):
            place = self.cold_place()
            if place is None:
                break
            await _read_in_thread(place)
        if self._slot.is_open:
            response = self.serve()
            if response is not None:
                self._slot.complete(response)

    def _due(self) -> Iterable[FollowedPartition]:
        """The partitions to read.

        A full fetch is answered with every partition, also when it has waited: they have had
        their turn by then.
        """
        session = self._session
        if session is None:
            return self._asked or ()
        return tuple(session.followed.values() if self._is_full else session.ready)

    def read(self) -> FetchAnswer:
        """Read what there is now. The answer's regions are the caller's."""
        session = self._session
        answer = self._new_answer()
        if session is None:
            for followed in self._due():
                answer.read(followed)
                followed.partition = answer.partition
            return answer
        for followed in self._due():
            again = answer.read(followed)
            session.resolved(followed, answer.partition)
            session.looked_at(followed, again=again)
        return answer

    def _new_answer(self) -> FetchAnswer:
        message, session = self._message, self._session
        if message.rack_id and self._ctx.config.replica_selector_class is not None:
            return self._nearby_answer()
        return FetchAnswer(
            self._ctx,
            self._request,
            session_id=0 if session is None else session.session_id,
            max_bytes=min(message.max_bytes, self._ctx.config.fetch_max_bytes),
            read_committed=message.isolation_level == 1,
            is_incremental=not self._is_full,
        )

    def _nearby_answer(self) -> FetchAnswer:
        from trioq.server.nearby_fetch import NearbyAnswer  # noqa: PLC0415  not every broker

        return NearbyAnswer(
            self._ctx,
            self._request,
            self._message,
            session_id=0 if self._session is None else self._session.session_id,
            is_incremental=not self._is_full,
        )

    def park(self, answer: FetchAnswer) -> None:
        """Give up `answer`, which is too small; wait, at most max_wait_ms, for what it lacks."""
        self._still_needed_bytes = self._message.min_bytes - answer.total_bytes
        self._begin_wait(answer.release())

    def _begin_wait(self, untold: Iterable[FollowedPartition]) -> None:
        """Wait, at most max_wait_ms; the answer is to tell something new of `untold`."""
        ctx, session = self._ctx, self._session
        self._slot.on_cancel = self._cancelled
        self._slot.on_drain = self.answer
        self._deadline = ctx.deadlines.add(
            _end_of_wait_s(ctx.clock.monotonic_s(), self._message.max_wait_ms), self.answer
        )
        if session is not None:
            session.parked = self
            for followed in untold:
                session.look_again(followed)
            return
        for followed in self._asked or ():
            partition = followed.partition
            if partition is not None:
                self._listen(partition)

    def progressed(self, partition: Replica, new_bytes: int) -> None:  # noqa: ARG002
        """See trioq.replication.waiters.ProgressListener."""
        self._still_needed_bytes -= new_bytes
        if self._still_needed_bytes <= 0 or new_bytes == 0:
            self.answer()

    def answer(self) -> None:
        """Answer the parked request with what there is now."""
        self._leave()
        self._slot.complete(self.read().response())

    def _cancelled(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self._slot.on_cancel = self._slot.on_drain = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        session = self._session
        if session is not None:
            if session.parked is self:
                session.parked = None
            return
        for followed in self._asked or ():
            if followed.partition is not None:
                self._stop_listening(followed.partition)

    def _listen(self, partition: Partition) -> None:
        partition.add_listener(self)

    def _stop_listening(self, partition: Partition) -> None:
        partition.remove_listener(self)


async def _read_in_thread(place: ColdPlace) -> None:
    """Bring the place into memory. An error is left to whoever reads it next."""
    file = place.file
    cold = [ColdRange(file, position, length) for position, length in place.ranges]
    file.retain()
    try:
        await trio.to_thread.run_sync(_read_ranges, cold)
    finally:
        file.release()


def _read_ranges(cold: list[ColdRange]) -> None:
    with suppress(OSError):
        for one in cold:
            read_ahead(one)
