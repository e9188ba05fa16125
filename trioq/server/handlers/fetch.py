"""Fetch (key 1), versions 4-16.

Behaviour:
- whole batches from fetch_offset up to the high watermark (last stable offset for
  read_committed), as file regions that are sent from the page cache
- waits up to max_wait_ms until min_bytes can be read; an error, a diverging epoch or a
  change of leadership answers at once
- max_bytes bounds the answer, partition max_bytes each partition; the first batch of an
  answer is sent whole even if it is larger (KIP-74)
- incremental sessions (KIP-227): only partitions with data, a moved high watermark or log
  start, or an error are answered

Version notes: 7 sessions; 9 current_leader_epoch (KIP-320); 11 rack_id (KIP-392, answered by
the leader itself); 12 flexible, last_fetched_epoch and diverging_epoch (KIP-595);
13 topic ids instead of names (KIP-516); 16 node endpoints with a changed leader (KIP-951).
Followers do not fetch yet, so replica_id is not looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trioq.errors import KafkaError
from trioq.server.fetch_answer import FetchAnswer
from trioq.server.fetch_sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    FetchSession,
    FollowedPartition,
)
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.api_keys import ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.messages.fetch import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from trioq._native.fetch_lane import FetchEntry
    from trioq.replication.partition import Partition
    from trioq.server.context import Context, Request
    from trioq.server.deadlines import Deadline
    from trioq.server.slot import Slot
    from trioq.wire.primitives import Part

FIRST_VERSION_WITH_TOPIC_IDS = 13

LONG_WAIT_MS = 100
ENDS_PER_S = 100
"""How often polls of LONG_WAIT_MS and more may end."""


def handle_fetch(ctx: Context, request: Request, slot: Slot) -> FetchResponse | None:
    """Answer at once where enough can be read, else park the slot."""
    message = request.decode(FetchRequest)
    uses_topic_ids = request.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    try:
        session = _session_of(ctx, message, uses_topic_ids=uses_topic_ids)
    except KafkaError as error:
        return FetchResponse(error_code=error.code)
    asked = None if session is not None else list(_followed(ctx, message, uses_topic_ids))
    fetch = _Fetch(ctx, request, slot, message, session, asked)
    answer = fetch.read()
    if answer.is_final or answer.total_bytes >= message.min_bytes or message.max_wait_ms <= 0:
        return answer.response()
    if not (session.followed if session is not None else asked):
        return answer.response()
    answer.release()
    fetch.park(answer.total_bytes)
    return None


def answer_waited(ctx: Context, fetch: FetchEntry) -> list[Part]:
    """The response frame to a fetch of the native lane that has waited, whatever it has met."""
    answer = FetchAnswer(
        ctx,
        fetch,
        session_id=0,
        max_bytes=fetch.max_bytes,
        read_committed=fetch.read_committed,
        is_incremental=False,
    )
    answer.read(
        FollowedPartition(
            fetch.topic,
            ZERO_TOPIC_ID,
            fetch.number,
            fetch.fetch_offset,
            fetch.max_bytes,
            fetch.current_leader_epoch,
            -1,
        )
    )
    return response_frame(ApiKey.FETCH, fetch.api_version, fetch.correlation_id, answer.response())


def _session_of(
    ctx: Context, message: FetchRequest, *, uses_topic_ids: bool
) -> FetchSession | None:
    """The session of the request, or None for a fetch without one."""
    sessions, epoch, now_s = ctx.fetch_sessions, message.session_epoch, ctx.clock.monotonic_s()
    if epoch in (FINAL_EPOCH, INITIAL_EPOCH):
        if message.session_id:
            sessions.close(message.session_id)
        if epoch == FINAL_EPOCH:
            return None
        return sessions.open(
            _followed(ctx, message, uses_topic_ids), uses_topic_ids=uses_topic_ids, now_s=now_s
        )
    session = sessions.resume(message.session_id, epoch, uses_topic_ids=uses_topic_ids, now_s=now_s)
    for followed in _followed(ctx, message, uses_topic_ids):
        session.follow(followed)
    for topic in message.forgotten_topics_data:
        for number in topic.partitions:
            session.forget(topic.topic, topic.topic_id, number)
    return session


def _followed(ctx: Context, message: FetchRequest, uses_topic_ids: bool) -> list[FollowedPartition]:
    """What the request names, in its order."""
    topics_by_id = ctx.image.topics_by_id if uses_topic_ids else {}
    followed = []
    for topic in message.topics:
        name, topic_id = topic.topic, topic.topic_id
        if uses_topic_ids:
            known = topics_by_id.get(topic_id)
            name = "" if known is None else known.name
        else:
            topic_id = ZERO_TOPIC_ID
        followed += [
            FollowedPartition(
                name,
                topic_id,
                asked.partition,
                asked.fetch_offset,
                asked.partition_max_bytes,
                asked.current_leader_epoch,
                asked.last_fetched_epoch,
            )
            for asked in topic.partitions
        ]
    return followed


def _end_of_wait_s(now_s: float, max_wait_ms: int) -> float:
    """When a poll that begins now has waited long enough.

    Long ones end on a grid, up to a hundredth of a second late, so that those of many idle
    consumers are answered, and come in again, together: a turn of the loop for each would
    cost several times the answer.
    """
    end_s = now_s + max_wait_ms / 1000
    return end_s if max_wait_ms < LONG_WAIT_MS else math.ceil(end_s * ENDS_PER_S) / ENDS_PER_S


class _Fetch:
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

    def read(self) -> FetchAnswer:
        """Read what there is now. The answer's regions are the caller's."""
        message, session = self._message, self._session
        answer = FetchAnswer(
            self._ctx,
            self._request,
            session_id=0 if session is None else session.session_id,
            max_bytes=min(message.max_bytes, self._ctx.config.fetch_max_bytes),
            read_committed=message.isolation_level == 1,
            is_incremental=not self._is_full,
        )
        if session is None:
            for followed in self._asked or ():
                answer.read(followed)
                followed.partition = answer.partition
            return answer
        # A full fetch is answered with every partition, also when it has waited: they have had
        # their turn by then.
        asked = session.followed if self._is_full else session.ready
        for followed in tuple(asked.values()):
            again = answer.read(followed)
            session.resolved(followed, answer.partition)
            session.looked_at(followed, again=again)
        return answer

    def park(self, available_bytes: int) -> None:
        """Wait, at most max_wait_ms, for what min_bytes asks beyond `available_bytes`."""
        self._still_needed_bytes = self._message.min_bytes - available_bytes
        ctx, session = self._ctx, self._session
        self._slot.on_cancel = self._cancelled
        self._slot.on_drain = self.answer
        self._deadline = ctx.deadlines.add(
            _end_of_wait_s(ctx.clock.monotonic_s(), self._message.max_wait_ms), self.answer
        )
        if session is not None:
            session.parked = self
            return
        for followed in self._asked or ():
            partition = followed.partition
            if partition is not None:
                partition.add_listener(self)

    def progressed(self, partition: Partition, new_bytes: int) -> None:  # noqa: ARG002
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
                followed.partition.remove_listener(self)
