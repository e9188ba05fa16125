"""Fetch (key 1), versions 4-16.

Behaviour:
- what has to be read from disk to find the batches is read in a thread first
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
Followers fetch as replica_fetch says: they read up to the log's end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import FetchSessionIdNotFound, KafkaError
from trioq.server.fetch_answer import FetchAnswer
from trioq.server.fetch_sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    FetchSession,
    FollowedPartition,
)
from trioq.server.waiting_fetch import WaitingFetch
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.api_keys import ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.messages.fetch import FetchRequest, FetchResponse

if TYPE_CHECKING:
    from trioq._native.fetch_lane import FetchEntry
    from trioq.server.context import Context, Request
    from trioq.server.slot import Slot
    from trioq.wire.primitives import Part

FIRST_VERSION_WITH_TOPIC_IDS = 13


def handle_fetch(ctx: Context, request: Request, slot: Slot) -> FetchResponse | None:
    """Answer at once where enough can be read, else park the slot; what is not in memory is read
    in a thread first.
    """
    message = request.decode(FetchRequest)
    uses_topic_ids = request.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    kind, session_kind = WaitingFetch, FetchSession
    if message.replica_id >= 0 or message.replica_state is not None:
        kind, session_kind = _kinds_of(message)
    try:
        session = _session_of(ctx, message, session_kind, uses_topic_ids=uses_topic_ids)
    except KafkaError as error:
        return FetchResponse(error_code=error.code)
    asked = None if session is not None else list(_followed(ctx, message, uses_topic_ids))
    fetch = kind(ctx, request, slot, message, session, asked)
    if fetch.is_put_off():
        return None
    if kind is WaitingFetch and fetch.cold_place() is not None:
        slot.connection.start_task(fetch.serve_cold)
        return None
    return fetch.serve()


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


def _kinds_of(message: FetchRequest) -> tuple[type[WaitingFetch], type[FetchSession]]:
    """How a fetch that states a replica is served, and its session."""
    # Followers fetch in clusters only, and a broker alone starts without this.
    from trioq.server.replica_fetch import ReplicaFetch, ReplicaSession, replica_of  # noqa: PLC0415

    if replica_of(message) is None:
        return WaitingFetch, FetchSession
    return ReplicaFetch, ReplicaSession


def _session_of(
    ctx: Context, message: FetchRequest, kind: type[FetchSession], *, uses_topic_ids: bool
) -> FetchSession | None:
    """The session of the request, or None for a fetch without one."""
    sessions, epoch, now_s = ctx.fetch_sessions, message.session_epoch, ctx.clock.monotonic_s()
    if epoch in (FINAL_EPOCH, INITIAL_EPOCH):
        if message.session_id:
            sessions.close(message.session_id)
        if epoch == FINAL_EPOCH:
            return None
        return sessions.open(
            _followed(ctx, message, uses_topic_ids),
            uses_topic_ids=uses_topic_ids,
            now_s=now_s,
            make=kind,
        )
    session = sessions.resume(message.session_id, epoch, uses_topic_ids=uses_topic_ids, now_s=now_s)
    if type(session) is not kind:
        raise FetchSessionIdNotFound
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
                asked.log_start_offset,
            )
            for asked in topic.partitions
        ]
    return followed
