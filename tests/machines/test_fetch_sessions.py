"""Fetch sessions (KIP-227): epochs, eviction, and what has its turn."""

from __future__ import annotations

import uuid

import pytest

from trioq.errors import (
    FetchSessionIdNotFound,
    FetchSessionTopicIdError,
    InvalidFetchSessionEpoch,
)
from trioq.server.fetch_sessions import MAX_EPOCH, FetchSessions, FollowedPartition

TOPIC_ID = uuid.UUID(int=7)


class FakePartition:
    def __init__(self) -> None:
        self.listeners: list[object] = []

    def add_listener(self, listener: object) -> None:
        self.listeners.append(listener)

    def remove_listener(self, listener: object) -> None:
        self.listeners.remove(listener)


class Parked:
    def __init__(self) -> None:
        self.answers = 0
        self.progress: list[int] = []

    def progressed(self, partition: object, new_bytes: int) -> None:
        self.progress.append(new_bytes)

    def answer(self) -> None:
        self.answers += 1


def followed(number: int, offset: int = 0) -> FollowedPartition:
    return FollowedPartition("orders", TOPIC_ID, number, offset, 1000, -1, -1)


def open_session(sessions: FetchSessions, *numbers: int, now_s: float = 0.0):
    session = sessions.open([followed(n) for n in numbers], uses_topic_ids=True, now_s=now_s)
    assert session is not None
    return session


def test_epochs_count_up_and_wrap_to_one() -> None:
    sessions = FetchSessions(slots=2, eviction_s=10)
    session = open_session(sessions, 0)
    assert sessions.resume(session.session_id, 1, uses_topic_ids=True, now_s=0) is session
    assert session.epoch == 2
    with pytest.raises(InvalidFetchSessionEpoch):
        sessions.resume(session.session_id, 1, uses_topic_ids=True, now_s=0)
    session.epoch = MAX_EPOCH
    sessions.resume(session.session_id, MAX_EPOCH, uses_topic_ids=True, now_s=0)
    assert session.epoch == 1


def test_unknown_sessions_and_mixed_ids_are_refused() -> None:
    sessions = FetchSessions(slots=2, eviction_s=10)
    session = open_session(sessions, 0)
    with pytest.raises(FetchSessionIdNotFound):
        sessions.resume(session.session_id + 1, 1, uses_topic_ids=True, now_s=0)
    with pytest.raises(FetchSessionTopicIdError):
        sessions.resume(session.session_id, 1, uses_topic_ids=False, now_s=0)


def test_a_full_cache_gives_up_only_what_is_idle() -> None:
    sessions = FetchSessions(slots=2, eviction_s=10)
    first, second = open_session(sessions, 0, now_s=0), open_session(sessions, 1, now_s=0)
    assert sessions.open([followed(2)], uses_topic_ids=True, now_s=9) is None
    sessions.resume(first.session_id, 1, uses_topic_ids=True, now_s=9)
    third = open_session(sessions, 2, now_s=11)
    assert len(sessions) == 2
    with pytest.raises(FetchSessionIdNotFound):
        sessions.resume(second.session_id, 1, uses_topic_ids=True, now_s=11)
    sessions.resume(third.session_id, 1, uses_topic_ids=True, now_s=11)


def test_only_what_progressed_has_its_turn() -> None:
    session = open_session(FetchSessions(slots=1, eviction_s=10), 0, 1, 2)
    partitions = [FakePartition() for _ in range(3)]
    for one, partition in zip(list(session.followed.values()), partitions, strict=True):
        session.resolved(one, partition)
        session.looked_at(one, again=False)
    assert not session.ready
    parked = Parked()
    session.parked = parked
    session.progressed(partitions[1], 77)
    assert [one.number for one in session.ready] == [1]
    assert parked.progress == [77]


def test_partitions_with_data_take_turns() -> None:
    session = open_session(FetchSessions(slots=1, eviction_s=10), 0, 1)
    zero = session.followed[TOPIC_ID, 0]
    session.looked_at(zero, again=True)
    assert [one.number for one in session.ready] == [1, 0]


def test_forgotten_and_closed_partitions_are_not_listened_to() -> None:
    session = open_session(FetchSessions(slots=1, eviction_s=10), 0, 1)
    partitions = [FakePartition(), FakePartition()]
    for one, partition in zip(list(session.followed.values()), partitions, strict=True):
        session.resolved(one, partition)
    session.forget("orders", TOPIC_ID, 0)
    assert partitions[0].listeners == []
    session.progressed(partitions[0], 5)
    assert [one.number for one in session.ready] == [1]
    parked = Parked()
    session.parked = parked
    session.close()
    assert partitions[1].listeners == []
    assert parked.answers == 1


def test_the_next_request_of_a_session_answers_the_parked_one() -> None:
    sessions = FetchSessions(slots=1, eviction_s=10)
    session = open_session(sessions, 0)
    parked = Parked()
    session.parked = parked
    sessions.resume(session.session_id, 1, uses_topic_ids=True, now_s=0)
    assert parked.answers == 1
    assert session.parked is None


def test_following_again_takes_the_new_position_and_a_turn() -> None:
    session = open_session(FetchSessions(slots=1, eviction_s=10), 0)
    one = session.followed[TOPIC_ID, 0]
    session.looked_at(one, again=False)
    session.follow(followed(0, offset=42))
    assert one.fetch_offset == 42
    assert list(session.ready) == [one]
