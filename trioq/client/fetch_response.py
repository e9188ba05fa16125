"""What an answer to a Fetch means for the positions of a consumer. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from trioq.client.fetcher_state import FetcherState, FetchPlan
from trioq.client.partition_state import NO_NODE, PartitionState
from trioq.errors import (
    ClientError,
    CorruptMessage,
    FencedLeaderEpoch,
    FetchSessionIdNotFound,
    FetchSessionTopicIdError,
    InconsistentTopicId,
    InvalidFetchSessionEpoch,
    KafkaError,
    KafkaStorageError,
    LeaderNotAvailable,
    MessageTooLarge,
    NotLeaderOrFollower,
    OffsetNotAvailable,
    OffsetOutOfRange,
    ReplicaNotAvailable,
    TrioqError,
    UnknownLeaderEpoch,
    UnknownTopicId,
    UnknownTopicOrPartition,
    error_class,
)
from trioq.record.fetched import read_fetched
from trioq.types import TopicPartition
from trioq.wire.messages.fetch import FetchResponse, FetchResponsePartition

STALE_LEADER: Final = (
    NotLeaderOrFollower,
    LeaderNotAvailable,
    ReplicaNotAvailable,
    FencedLeaderEpoch,
    UnknownLeaderEpoch,
    KafkaStorageError,
    UnknownTopicOrPartition,
    UnknownTopicId,
    InconsistentTopicId,
)
"""Errors that fresh metadata mends, sooner or later."""

SESSION_ERRORS: Final = (
    FetchSessionIdNotFound,
    InvalidFetchSessionEpoch,
    FetchSessionTopicIdError,
    UnknownTopicId,
    InconsistentTopicId,
)

_MAX_PARTITION_BYTES: Final = 1 << 30


class LeaderHint(NamedTuple):
    """A broker named the leader of a partition (KIP-951)."""

    partition: TopicPartition
    leader_id: int
    leader_epoch: int


class Outcome(NamedTuple):
    """What the driver does after an answer."""

    refresh_metadata: bool
    hints: list[LeaderHint]
    has_data: bool
    """Something may be taken, or raised."""

    has_new_node: bool = False
    """A replica is to be read from instead of the leader."""


def apply_response(
    state: FetcherState, plan: FetchPlan, response: FetchResponse, now_s: float
) -> Outcome:
    """Take up an answer to `plan`; its records borrow the response's memory.

    What was asked for before a seek or rebalance is passed over.
    """
    state.release(plan)
    session = state.session(plan.node_id)
    if response.error_code:
        error = error_class(response.error_code)()
        session.refused()
        if not isinstance(error, SESSION_ERRORS):
            _back_off(state, plan, error, now_s)
        return Outcome(isinstance(error, (UnknownTopicId, InconsistentTopicId)), [], has_data=True)
    session.answered(response.session_id)
    refresh, has_data, has_new_node = False, False, False
    hints: list[LeaderHint] = []
    for topic in response.responses:
        name = session.name_of(topic.topic_id) if plan.session.uses_topic_ids else topic.topic
        name = name or topic.topic
        for answer in topic.partitions:
            partition = TopicPartition(name, answer.partition_index)
            asked = state.asked(plan, partition)
            if asked is None:
                continue
            leader = answer.current_leader
            if leader is not None and leader.leader_id != NO_NODE:
                hints.append(LeaderHint(partition, leader.leader_id, leader.leader_epoch))
            has_data = True
            if answer.error_code:
                refresh |= _refused(state, plan, asked, error_class(answer.error_code)(), now_s)
            else:
                has_new_node |= answer.preferred_read_replica != NO_NODE
                _read(state, asked, answer, now_s)
    return Outcome(refresh, hints, has_data, has_new_node)


def fetch_failed(state: FetcherState, plan: FetchPlan, error: TrioqError, now_s: float) -> None:
    """No answer came to `plan`: wait a little, then ask anew, in a session of its own.

    What is no passing trouble is for the user.
    """
    state.release(plan)
    state.session(plan.node_id).lost()
    _back_off(state, plan, error, now_s)


def _back_off(state: FetcherState, plan: FetchPlan, error: TrioqError, now_s: float) -> None:
    passing = isinstance(error, (KafkaError, ClientError)) and error.retriable
    for partition in plan.wanted:
        asked = state.asked(plan, partition)
        if asked is None:
            continue
        asked.replica_id = NO_NODE
        if passing:
            asked.retry_at_s = now_s + state.settings.retry_backoff_ms / 1000
        else:
            state.fail(asked, error)


def _refused(
    state: FetcherState, plan: FetchPlan, asked: PartitionState, error: KafkaError, now_s: float
) -> bool:
    """An error for one partition; whether metadata must be refreshed."""
    from_replica = plan.node_id != asked.leader_id
    asked.replica_id = NO_NODE
    if isinstance(error, OffsetOutOfRange):
        if not from_replica:
            state.out_of_range(asked)
        return False
    if isinstance(error, STALE_LEADER):
        asked.retry_at_s = now_s + state.settings.retry_backoff_ms / 1000
        return True
    if isinstance(error, OffsetNotAvailable) or error.retriable:
        if isinstance(error, CorruptMessage):
            _corrupt(state, asked, error, now_s)
        else:
            asked.retry_at_s = now_s + state.settings.retry_backoff_ms / 1000
        return False
    state.fail(asked, type(error)(f"fetching {asked.partition}: {error}"))
    return False


def _read(
    state: FetcherState,
    asked: PartitionState,
    answer: FetchResponsePartition,
    now_s: float,
) -> None:
    settings = state.settings
    asked.high_watermark = answer.high_watermark
    asked.last_stable_offset = answer.last_stable_offset
    asked.log_start_offset = max(answer.log_start_offset, asked.log_start_offset)
    if answer.preferred_read_replica != NO_NODE:
        asked.replica_id = answer.preferred_read_replica
        asked.replica_until_s = now_s + settings.replica_max_age_ms / 1000
    aborted = None
    if settings.read_committed:
        aborted = [(one.producer_id, one.first_offset) for one in answer.aborted_transactions or ()]
    records = answer.records
    assert records is None or isinstance(records, memoryview), "decoded messages hold views"
    try:
        fetched = read_fetched(
            records,
            topic=asked.partition.topic,
            partition=asked.partition.partition,
            start_offset=asked.fetch_offset,
            aborted=aborted,
            check_crc=settings.check_crc,
            key_deserializer=settings.key_deserializer,
            value_deserializer=settings.value_deserializer,
        )
    except KafkaError as error:
        _corrupt(state, asked, error, now_s)
        return
    if fetched.is_truncated and fetched.next_offset == asked.fetch_offset:
        _larger_than_asked(state, asked)
        return
    if fetched.next_offset > asked.fetch_offset:
        asked.max_bytes = settings.partition_max_bytes
    state.put(asked, fetched.batches, fetched.next_offset)


def _corrupt(state: FetcherState, asked: PartitionState, error: KafkaError, now_s: float) -> None:
    """Bytes that cannot be read: fetched once more, as the network may have done it; then told."""
    asked.corrupt_fetches += 1
    if asked.corrupt_fetches > 1:
        state.fail(asked, error)
    else:
        asked.retry_at_s = now_s + state.settings.retry_backoff_ms / 1000


def _larger_than_asked(state: FetcherState, asked: PartitionState) -> None:
    """A batch that was cut off: ask for more (brokers of today send a first batch whole)."""
    if asked.max_bytes >= _MAX_PARTITION_BYTES:
        state.fail(
            asked,
            MessageTooLarge(
                f"the batch at offset {asked.fetch_offset} of {asked.partition} is larger than "
                f"{asked.max_bytes} bytes: seek past it"
            ),
        )
    else:
        asked.max_bytes = min(asked.max_bytes * 2, _MAX_PARTITION_BYTES)
