"""Positions, fetch sessions and what is fetched ahead, against a model of brokers."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trioq._native import batch as native
from trioq.client.fetch_response import apply_response, fetch_failed
from trioq.client.fetch_session import FetchSession, Wanted
from trioq.client.fetcher_state import FetcherState, FetchPlan
from trioq.client.partition_state import EARLIEST, LATEST, PositionPhase
from trioq.client.position_state import FetchSettings, Leader
from trioq.errors import (
    ConnectionFailed,
    CorruptMessage,
    NoCommittedOffset,
    OffsetOutOfRange,
    TopicAuthorizationFailed,
)
from trioq.types import TopicPartition
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponseCurrentLeader,
    FetchResponsePartition,
    FetchResponseTopic,
)

ID = uuid.UUID(int=5)
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
NODE = 1


def batch(base_offset: int, count: int, epoch: int = 0, **arguments: Any) -> bytes:
    records = [(0, None, b"v%d" % (base_offset + n), ()) for n in range(count)]
    return bytes(native.build(records, base_offset=base_offset, leader_epoch=epoch, **arguments))


def machine(has_group: bool = False, **arguments: Any) -> FetcherState:
    values = {"auto_offset_reset": "earliest", **arguments}
    return FetcherState(FetchSettings(**values), has_group=has_group)


def leaders(epoch: int = 0, node: int = NODE) -> Any:
    return lambda partition: Leader(node, epoch, ID)


def reading(*partitions: TopicPartition, offset: int = 0, **arguments: Any) -> FetcherState:
    """A state that fetches `partitions` from `offset` on."""
    state = machine(**arguments)
    state.assign(partitions)
    state.update_leaders(leaders())
    for query in state.awaiting_offsets(0):
        state.offset_found(query, offset, -1)
    return state


def answer(
    plan: FetchPlan, records: dict[TopicPartition, bytes], session_id: int = 9, **fields: Any
) -> FetchResponse:
    """A response with `records`; `fields` go into each partition."""
    return FetchResponse(
        session_id=session_id,
        responses=[
            FetchResponseTopic(
                topic=partition.topic,
                topic_id=ID,
                partitions=[
                    FetchResponsePartition(
                        partition_index=partition.partition,
                        records=memoryview(data),
                        **fields,
                    )
                ],
            )
            for partition, data in records.items()
        ],
    )


def planned(state: FetcherState, node: int = NODE, now_s: float = 0) -> FetchPlan:
    plan = state.plan(node, now_s)
    assert plan is not None
    return plan


def offsets_of(request: FetchRequest) -> dict[int, int]:
    return {
        partition.partition: partition.fetch_offset
        for topic in request.topics
        for partition in topic.partitions
    }


def take_offsets(state: FetcherState) -> list[int]:
    found: list[int] = []
    while (taken := state.take()) is not None:
        found += taken.offsets
        state.advance(taken, taken.next_offset)
    return found


# ---- positions ------------------------------------------------------------------------------


def test_a_group_says_where_to_start() -> None:
    state = machine(has_group=True)
    state.assign([T0, T1])
    assert state.awaiting_committed(0) == [T0, T1]
    state.update_leaders(leaders())
    state.committed(T0, 7, -1)
    state.committed(T1, None, -1)
    assert state.partitions[T0].position == 7
    (query,) = state.awaiting_offsets(0)
    assert (query.partition, query.timestamp, query.node_id) == (T1, EARLIEST, NODE)
    state.offset_found(query, 3, 0)
    assert state.partitions[T1].position == 3
    assert offsets_of(planned(state).request) == {0: 7, 1: 3}


def test_without_a_policy_the_user_is_told_until_a_seek() -> None:
    state = machine(auto_offset_reset="error")
    state.assign([T0])
    for _ in range(2):
        with pytest.raises(NoCommittedOffset, match="t-0 has no committed offset"):
            state.take()
    state.seek(T0, 5)
    assert state.take() is None
    assert state.partitions[T0].position == 5


def test_an_offset_by_time_beyond_the_end_is_the_end() -> None:
    state = reading(T0)
    state.reset(T0, 123456)
    (query,) = state.awaiting_offsets(0)
    assert query.timestamp == 123456
    state.offset_found(query, -1, -1)
    (query,) = state.awaiting_offsets(0)
    assert query.timestamp == LATEST


def test_answers_for_an_older_assignment_or_position_change_nothing() -> None:
    state = machine()
    state.assign([T0])
    state.update_leaders(leaders())
    (query,) = state.awaiting_offsets(0)
    state.seek(T0, 42)
    state.offset_found(query, 0, -1)
    assert state.partitions[T0].position == 42
    plan = planned(state)
    state.seek(T0, 50)
    apply_response(state, plan, answer(plan, {T0: batch(42, 3)}), 0)
    assert state.take() is None
    state.unassign([T0])
    state.assign([T0])
    assert state.partitions[T0].position == -1


def test_a_committed_offset_with_an_epoch_is_validated() -> None:
    state = machine(has_group=True)
    state.assign([T0])
    state.update_leaders(leaders(epoch=5))
    state.committed(T0, 10, 3)
    assert state.plan(NODE, 0) is None
    (query,) = state.awaiting_validation(0)
    assert (query.epoch, query.leader_epoch) == (3, 5)
    state.epoch_end_found(query, 20, 3)
    assert offsets_of(planned(state).request) == {0: 10}


def test_a_log_that_was_truncated_is_read_again_from_where_it_parts() -> None:
    state = reading(T0)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: batch(0, 10, epoch=2)}), 0)
    taken = state.take()
    assert taken is not None
    state.advance(taken, 10)
    state.update_leaders(leaders(epoch=4))
    (query,) = state.awaiting_validation(0)
    assert query.epoch == 2
    state.epoch_end_found(query, 6, 2)
    assert state.partitions[T0].position == 6
    assert offsets_of(planned(state).request) == {0: 6}


def test_an_epoch_that_nobody_knows_is_a_reset() -> None:
    state = machine(has_group=True, auto_offset_reset="error")
    state.assign([T0])
    state.update_leaders(leaders(epoch=5))
    state.committed(T0, 10, 3)
    (query,) = state.awaiting_validation(0)
    state.epoch_end_found(query, -1, -1)
    with pytest.raises(OffsetOutOfRange, match="leader epoch 3"):
        state.take()


def test_lookups_that_fail_are_repeated_after_a_pause_or_told() -> None:
    state = machine(retry_backoff_ms=100)
    state.assign([T0])
    state.update_leaders(leaders())
    (query,) = state.awaiting_offsets(0)
    state.query_failed(T0, query.incarnation, ConnectionFailed("gone"), 0)
    assert state.awaiting_offsets(0.05) == []
    assert state.wake_at_s(0.05) == 0.1
    (query,) = state.awaiting_offsets(0.1)
    state.query_failed(T0, query.incarnation, TopicAuthorizationFailed("no"), 0.1)
    with pytest.raises(TopicAuthorizationFailed):
        state.take()


# ---- fetching -------------------------------------------------------------------------------


def test_partitions_take_turns_at_coming_first() -> None:
    state = reading(T0, T1)
    first = [*planned(state).wanted]
    second = [*planned(state).wanted]
    assert {first[0], second[0]} == {T0, T1}


def test_what_is_held_is_bounded() -> None:
    data = batch(0, 10)
    state = reading(T0, prefetch_bytes=2 * len(data), partition_max_bytes=1000)
    plan = planned(state)
    assert plan.request.max_bytes <= 2 * len(data)
    apply_response(state, plan, answer(plan, {T0: data}), 0)
    assert state.buffered_bytes == len(data)
    assert state.plan(NODE, 0) is None, "half of its share is there"
    assert take_offsets(state) == list(range(10))
    assert state.buffered_bytes == 0
    assert offsets_of(planned(state).request) == {0: 10}


def test_requests_under_way_count() -> None:
    state = machine(prefetch_bytes=1000, partition_max_bytes=1000)
    state.assign([T0, T1])
    state.update_leaders(lambda partition: Leader(NODE + partition.partition, 0, ID))
    for query in state.awaiting_offsets(0):
        state.offset_found(query, 0, -1)
    plan = planned(state, NODE)
    assert state.plan(NODE + 1, 0) is None
    fetch_failed(state, plan, ConnectionFailed("gone"), 0)
    assert state.plan(NODE + 1, 0) is not None


def test_paused_partitions_are_neither_fetched_nor_given_out_but_kept() -> None:
    state = reading(T0, T1)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: batch(0, 2), T1: batch(0, 2)}), 0)
    state.pause([T0])
    assert [*planned(state).wanted] == [T1]
    taken = state.take()
    assert taken is not None
    assert (taken.partition, state.take()) == (1, None)
    state.resume([T0])
    taken = state.take()
    assert taken is not None
    assert taken.partition == 0


def test_out_of_range_starts_over_by_the_policy() -> None:
    state = reading(T0, offset=100)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: b""}, error_code=1), 0)
    assert state.partitions[T0].phase is PositionPhase.RESETTING
    state = reading(T0, offset=100)
    state.settings = state.settings._replace(auto_offset_reset="error")
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: b""}, error_code=1), 0)
    with pytest.raises(OffsetOutOfRange, match="no offset 100"):
        state.take()


@pytest.mark.parametrize("code", [3, 5, 6, 74, 75, 56])
def test_a_leader_that_moved_is_asked_for(code: int) -> None:
    state = reading(T0)
    plan = planned(state)
    leader = FetchResponseCurrentLeader(leader_id=2, leader_epoch=9)
    outcome = apply_response(
        state, plan, answer(plan, {T0: b""}, error_code=code, current_leader=leader), 0
    )
    assert outcome.refresh_metadata
    assert [hint.leader_id for hint in outcome.hints] == [2]
    assert state.plan(NODE, 0) is None
    state.update_leaders(leaders(epoch=9, node=2))
    assert state.plan(2, 1.0) is not None


def test_a_replica_is_read_until_it_fails_or_the_time_is_over() -> None:
    state = reading(T0, replica_max_age_ms=1000)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: b""}, preferred_read_replica=3), 0)
    assert state.plan(NODE, 0) is None
    plan = planned(state, 3)
    apply_response(state, plan, answer(plan, {T0: b""}, error_code=1), 0)
    assert state.plan(NODE, 0) is not None, "out of range at a replica: ask the leader"
    assert state.partitions[T0].position == 0
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: b""}, preferred_read_replica=3), 0)
    assert state.nodes(0.5) == {3}
    assert state.nodes(1.5) == {NODE}


def test_a_corrupt_batch_is_fetched_once_more_and_then_told() -> None:
    good, bad = batch(0, 3), bytearray(batch(3, 3))
    bad[-1] ^= 1
    state = reading(T0)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: good + bad}), 0)
    assert take_offsets(state) == [0, 1, 2]
    for now_s in (1.0, 2.0):
        plan = planned(state, now_s=now_s)
        assert plan.wanted[T0].offset == 3
        apply_response(state, plan, answer(plan, {T0: bytes(bad)}), now_s)
    for _ in range(2):
        with pytest.raises(CorruptMessage, match="t-0"):
            state.take()
    state.seek(T0, 6)
    assert state.take() is None


def test_what_is_not_for_the_user_moves_the_position_too() -> None:
    state = reading(T0, read_committed=True)
    plan = planned(state)
    assert plan.request.isolation_level == 1
    control = batch(0, 1, attributes=0x30)
    apply_response(state, plan, answer(plan, {T0: control}), 0)
    assert state.take() is None
    assert state.partitions[T0].position == 1
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: batch(1, 2)}), 0)
    held = state.take()
    assert held is not None
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: batch(3, 1, attributes=0x30)}), 0)
    assert state.partitions[T0].position == 1, "the user holds the batch before"
    state.advance(held, held.next_offset)
    assert state.partitions[T0].position == 4


def test_a_batch_that_is_cut_off_is_asked_for_in_full() -> None:
    data = batch(0, 100)
    state = reading(T0, partition_max_bytes=100)
    plan = planned(state)
    apply_response(state, plan, answer(plan, {T0: data[:100]}), 0)
    plan = planned(state)
    assert plan.wanted[T0].max_bytes == 200
    apply_response(state, plan, answer(plan, {T0: data}), 0)
    assert len(take_offsets(state)) == 100
    assert planned(state).wanted[T0].max_bytes == 100


# ---- sessions -------------------------------------------------------------------------------


def wanted(offset: int, **arguments: Any) -> Wanted:
    return Wanted(
        **{"topic_id": ID, "offset": offset, "leader_epoch": 0, "max_bytes": 9, **arguments}
    )


class Broker:
    """A broker's fetch session."""

    def __init__(self) -> None:
        self.session_id = 0
        self.epoch = 0
        self.partitions: dict[tuple[str, int], int] = {}

    def fetch(self, part: Any) -> bool:
        """Whether the request fits the session; then `partitions` are what is fetched."""
        if part.epoch == 0:
            self.session_id, self.epoch, self.partitions = self.session_id + 1, 1, {}
        elif part.session_id != self.session_id or part.epoch != self.epoch:
            return False
        else:
            self.epoch += 1
        for topic in part.forgotten:
            for number in topic.partitions:
                del self.partitions[topic.topic, number]
        for topic in part.topics:
            for one in topic.partitions:
                self.partitions[topic.topic, one.partition] = one.fetch_offset
        return True


class Sessions(RuleBasedStateMachine):
    """Whatever is lost or forgotten, the broker fetches exactly what is wanted."""

    @initialize()
    def start(self) -> None:
        self.session = FetchSession()
        self.broker = Broker()

    @rule(
        chosen=st.dictionaries(
            st.builds(TopicPartition, st.sampled_from("tu"), st.integers(0, 2)),
            st.integers(0, 3),
            min_size=1,
        ),
        fate=st.sampled_from(["answered", "answered", "lost", "lost answer", "none"]),
    )
    def fetch(self, chosen: dict[TopicPartition, int], fate: str) -> None:
        part = self.session.request({one: wanted(offset) for one, offset in chosen.items()})
        if fate == "lost":
            self.session.lost()
            return
        if not self.broker.fetch(part):
            self.session.refused()
            return
        assert self.broker.partitions == chosen
        if fate == "lost answer":
            self.session.lost()
        elif fate == "none":
            self.session.answered(0)
        else:
            self.session.answered(self.broker.session_id)

    @rule()
    def evict(self) -> None:
        self.broker.session_id += 100


Sessions.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestSessions = Sessions.TestCase


def test_an_unchanged_session_sends_nothing_again() -> None:
    session = FetchSession()
    session.request({T0: wanted(0), T1: wanted(0)})
    session.answered(7)
    part = session.request({T0: wanted(5), T1: wanted(0)})
    assert (part.session_id, part.epoch) == (7, 1)
    assert [one.partition for topic in part.topics for one in topic.partitions] == [0]
    session.answered(7)
    part = session.request({T0: wanted(5)})
    assert part.topics == []
    assert [topic.partitions for topic in part.forgotten] == [[1]]


def test_a_topic_without_an_id_is_fetched_by_name_in_a_new_session() -> None:
    session = FetchSession()
    session.request({T0: wanted(0)})
    session.answered(7)
    part = session.request({T0: wanted(0, topic_id=uuid.UUID(int=0))})
    assert (part.is_full, part.uses_topic_ids) == (True, False)


# ---- all together ---------------------------------------------------------------------------


class Fetching(RuleBasedStateMachine):
    """Every record comes once and in order, whatever is fetched, lost, paused or moved."""

    @initialize()
    def start(self) -> None:
        self.state = machine(prefetch_bytes=3000, partition_max_bytes=400)
        self.state.assign([T0, T1])
        self.state.update_leaders(leaders())
        self.ends = {T0: 0, T1: 0}
        self.logs: dict[TopicPartition, list[bytes]] = {T0: [], T1: []}
        self.expected = {T0: 0, T1: 0}
        self.plan: FetchPlan | None = None
        self.now_s = 0.0
        for query in self.state.awaiting_offsets(0):
            self.state.offset_found(query, 0, -1)

    @rule(partition=st.sampled_from([T0, T1]), count=st.integers(1, 8))
    def write(self, partition: TopicPartition, count: int) -> None:
        self.logs[partition].append(batch(self.ends[partition], count))
        self.ends[partition] += count

    @rule()
    def ask(self) -> None:
        if self.plan is None:
            self.plan = self.state.plan(NODE, self.now_s)

    @rule(fate=st.sampled_from(["data", "data", "data", "lost", "not leader", "cut"]))
    def reply(self, fate: str) -> None:
        plan, self.plan = self.plan, None
        self.now_s += 1
        if plan is None:
            return
        if fate == "lost":
            fetch_failed(self.state, plan, ConnectionFailed("lost"), self.now_s)
            return
        if fate == "not leader":
            response = answer(plan, dict.fromkeys(plan.wanted, b""), error_code=6)
            apply_response(self.state, plan, response, self.now_s)
            return
        records = {}
        for partition, one in plan.wanted.items():
            data = b"".join(
                data for data in self.logs[partition] if native.peek(data).next_offset > one.offset
            )
            records[partition] = data[: len(data) // 2] if fate == "cut" else data[:2000]
        apply_response(self.state, plan, answer(plan, records), self.now_s)

    @rule()
    def take(self) -> None:
        taken = self.state.take()
        if taken is not None:
            partition = TopicPartition(taken.topic, taken.partition)
            assert not self.state.partitions[partition].paused
            for offset in taken.offsets:
                assert offset == self.expected[partition]
                self.expected[partition] += 1
            self.state.advance(taken, taken.next_offset)
            assert self.state.partitions[partition].position == taken.next_offset

    @rule(partition=st.sampled_from([T0, T1]), back=st.integers(0, 5))
    def seek(self, partition: TopicPartition, back: int) -> None:
        self.expected[partition] = max(0, self.expected[partition] - back)
        self.state.seek(partition, self.expected[partition])

    @rule(partition=st.sampled_from([T0, T1]))
    def pause(self, partition: TopicPartition) -> None:
        paused = self.state.partitions[partition].paused
        (self.state.resume if paused else self.state.pause)([partition])

    @invariant()
    def bytes_add_up(self) -> None:
        if not hasattr(self, "state"):
            return
        states = self.state.partitions.values()
        assert self.state.buffered_bytes == sum(
            one.size_bytes for state in states for one in state.batches
        )
        assert self.state.buffered_bytes == sum(state.buffered_bytes for state in states)
        assert self.state.reserved_bytes == (self.plan.reserved_bytes if self.plan else 0)
        assert self.state.reserved_bytes + self.state.buffered_bytes <= 3000 + 2 * 2000

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        self.state.resume([T0, T1])
        for _ in range(100):
            self.ask()
            self.reply("data")
            for _ in range(20):
                self.take()
        assert self.expected == self.ends


Fetching.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestFetching = Fetching.TestCase
