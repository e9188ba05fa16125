"""What a follower asks and how its log comes to be its leader's."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioq.errors import BY_CODE
from trioq.replication.fetch_session_state import MAX_EPOCH, FetchSessionState, Position
from trioq.replication.fetcher_state import (
    SESSION_ERRORS,
    SOON_S,
    FetcherState,
    Verdict,
    judge,
)
from trioq.replication.truncation_state import reset, truncation_offset
from trioq.storage.epoch_cache import EpochCache

TOPIC = uuid.UUID(int=5)
KEYS = [(TOPIC, number) for number in range(5)]
FENCED, UNKNOWN_EPOCH, NOT_LEADER, STORAGE, OUT_OF_RANGE = 74, 75, 6, 56, 1


def at(offset: int, epoch: int = 3) -> Position:
    return Position(epoch, offset, epoch, 0)


# ---- truncation ----


@st.composite
def worlds(draw):
    """Logs as lists of epochs by offset; every leader began with a prefix of an earlier log.

    Then what has the same epoch at the same offset is the same, and so is all before it.
    """
    logs: list[list[int]] = [[0] * draw(st.integers(0, 4))]
    for epoch in range(1, draw(st.integers(1, 6))):
        base = draw(st.sampled_from(logs))
        kept = draw(st.integers(0, len(base)))
        logs.append(base[:kept] + [epoch] * draw(st.integers(0, 4)))
    leader = logs[-1]
    other = draw(st.sampled_from(logs))
    return leader, other[: draw(st.integers(0, len(other)))]


def cache_of(log: list[int]) -> EpochCache:
    cache = EpochCache()
    for offset, epoch in enumerate(log):
        cache.observe(epoch, offset)
    return cache


def common_prefix(one: list[int], other: list[int]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_truncation_finds_the_longest_common_prefix(world) -> None:
    leader, follower = world
    wanted = common_prefix(leader, follower)
    leader_cache = cache_of(leader)
    for _ in range(20):
        cache = cache_of(follower)
        last_epoch = cache.latest_epoch
        if last_epoch < 0:
            break
        epoch, end = leader_cache.end_offset_for(last_epoch, len(leader))
        if epoch < 0 and leader_cache.latest_epoch < last_epoch:
            # The leader's log ends in an earlier term: it knows its own, which is later.
            epoch, end = leader_cache.latest_epoch, len(leader)
        if epoch >= last_epoch and end >= len(follower):
            break
        if epoch < 0:
            epoch, end = -1, 0
        own = cache.end_offset_for(epoch, len(follower)) if epoch >= 0 else (-1, -1)
        cut = truncation_offset(epoch, end, *own, len(follower))
        assert cut < len(follower), "no progress"
        follower = follower[:cut]
        assert len(follower) >= wanted, "what is the leader's own was cut"
    assert len(follower) == wanted


def test_the_high_watermark_has_no_say() -> None:
    """KIP-101: two replicas whose high watermark is behind lose nothing when one restarts."""
    leader, follower = [0, 0, 0], [0, 0, 0]
    own = cache_of(follower).end_offset_for(0, 3)
    assert truncation_offset(0, len(leader), *own, 3) == 3


@pytest.mark.parametrize(
    ("own", "leader", "wanted"),
    [
        ((0, 5), (10, 20), (10, True)),
        ((0, 5), (5, 5), None),
        ((3, 5), (0, 9), None),
        ((0, 9), (2, 5), (5, False)),
        ((7, 9), (2, 5), (5, True)),
        ((0, 0), (4, 4), (4, True)),
    ],
)
def test_coming_back_into_range(own, leader, wanted) -> None:
    assert reset(*own, *leader) == wanted


def test_every_error_has_a_verdict() -> None:
    assert judge(0, is_diverging=False) is Verdict.APPEND
    assert judge(0, is_diverging=True) is Verdict.TRUNCATE
    assert judge(OUT_OF_RANGE, is_diverging=False) is Verdict.LOOK_UP
    for code in (FENCED, UNKNOWN_EPOCH, NOT_LEADER):
        assert judge(code, is_diverging=False) is Verdict.WAIT
    assert judge(STORAGE, is_diverging=False) is Verdict.REPORT
    for code in (*BY_CODE, 9999):
        assert judge(code, is_diverging=False) not in {Verdict.APPEND, Verdict.TRUNCATE}


# ---- sessions ----


class Leader:
    """The leader's end of sessions, as the protocol has it."""

    def __init__(self) -> None:
        self.sessions: dict[int, tuple[int, dict]] = {}
        self.made = 0
        self.has_room = True

    def take(self, plan) -> tuple[int, int, dict]:
        """(error code, session id, what is served)."""
        asked = dict(plan.asked)
        if plan.epoch == 0:
            self.sessions.pop(plan.session_id, None)
            if not self.has_room:
                return 0, 0, asked
            self.made += 1
            self.sessions[self.made] = (1, asked)
            return 0, self.made, asked
        if plan.session_id not in self.sessions:
            return 70, 0, {}
        epoch, served = self.sessions[plan.session_id]
        if plan.epoch != epoch:
            return 71, 0, {}
        served.update(asked)
        for key in plan.forgotten:
            assert key in served, "a partition is forgotten that was not there"
            del served[key]
        self.sessions[plan.session_id] = (epoch + 1, served)
        return 0, plan.session_id, served


class Fetching(RuleBasedStateMachine):
    """A fetcher, where its partitions stand, and its leader."""

    def __init__(self) -> None:
        super().__init__()
        self.state = FetcherState(backoff_s=1.0, max_wait_s=5.0)
        self.leader = Leader()
        self.now_s = 0.0
        self.positions: dict = {}
        self.busy: set = set()
        self.resting: dict = {}
        self.terms: dict = {}

    @rule(key=st.sampled_from(KEYS), later=st.integers(0, 1))
    def follow(self, key, later) -> None:
        term = self.terms.get(key, 0) + later
        if self.terms.get(key) != term:
            self.resting.pop(key, None)
        self.terms[key] = term
        self.state.follow(key, term)
        offset = self.positions[key].fetch_offset if key in self.positions else 0
        self.positions[key] = at(offset, term)

    @precondition(lambda self: self.terms)
    @rule(data=st.data())
    def unfollow(self, data) -> None:
        key = data.draw(st.sampled_from(sorted(self.terms)))
        del self.terms[key]
        self.resting.pop(key, None)
        self.state.unfollow(key)

    @precondition(lambda self: self.terms)
    @rule(data=st.data(), code=st.sampled_from((FENCED, UNKNOWN_EPOCH, STORAGE)))
    def failed(self, data, code) -> None:
        key = data.draw(st.sampled_from(sorted(self.terms)))
        self.state.delay(key, self.now_s, code)
        pause_s = self.state._followed[key].retry_at_s - self.now_s
        assert 1.0 <= pause_s <= 64.0
        self.resting[key] = self.now_s + pause_s

    @precondition(lambda self: self.terms)
    @rule(data=st.data(), is_busy=st.booleans())
    def moved(self, data, is_busy) -> None:
        key = data.draw(st.sampled_from(sorted(self.terms)))
        now = self.positions[key]
        self.positions[key] = now._replace(fetch_offset=now.fetch_offset + 1)
        (self.busy.add if is_busy else self.busy.discard)(key)
        self.state.moved(key)

    @rule(seconds=st.sampled_from((0.1, 1.0, 20.0, 100.0)))
    def time_passes(self, seconds) -> None:
        self.now_s += seconds

    @rule(has_room=st.booleans())
    def room_for_sessions(self, has_room) -> None:
        self.leader.has_room = has_room

    @rule()
    def the_leader_forgets(self) -> None:
        self.leader.sessions.clear()

    @rule(fate=st.sampled_from(("answered", "answered", "lost", "lost on its way back")))
    def fetch(self, fate) -> None:
        def position_of(key):
            return None if key in self.busy else self.positions[key]

        plan = self.state.plan(self.now_s, position_of)
        ready = {
            key: self.positions[key]
            for key in self.terms
            if key not in self.busy and self.resting.get(key, -1.0) <= self.now_s
        }
        if plan is None:
            assert not ready
            return
        assert 0 < plan.wait_s <= 5.0
        if self.busy & self.terms.keys():
            assert plan.wait_s <= SOON_S or not any(
                self.resting.get(key, -1.0) <= self.now_s for key in self.busy & self.terms.keys()
            )
        if fate == "lost":
            self.state.unanswered()
            return
        code, session_id, served = self.leader.take(plan.session)
        if code == 0:
            assert served == ready
            assert all(self.state.stated(key) == served[key] for key in served)
        if fate == "lost on its way back":
            self.state.unanswered()
            return
        assert self.state.answered(code, session_id) is (code == 0)

    @invariant()
    def each_that_waits_is_asked_for_later(self) -> None:
        for key, until_s in self.resting.items():
            if until_s > self.now_s and key in self.terms:
                next_s = self.state.next_retry_s()
                assert next_s is not None
                assert next_s <= until_s


TestFetching = Fetching.TestCase
TestFetching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_rests_is_not_named_again() -> None:
    session = FetchSessionState()
    session.plan({KEYS[0]: at(1), KEYS[1]: at(2)}, [])
    session.answered(9)
    plan = session.plan({KEYS[0]: at(4), KEYS[1]: at(2)}, [KEYS[2]])
    assert (plan.session_id, plan.epoch) == (9, 1)
    assert plan.asked == [(KEYS[0], at(4))]
    assert plan.forgotten == []


def test_session_epochs_wrap_to_one() -> None:
    session = FetchSessionState()
    session.plan({KEYS[0]: at(1)}, [])
    session.answered(9)
    session._epoch = MAX_EPOCH
    assert session.plan({}, []).epoch == MAX_EPOCH
    session.answered(9)
    assert session.plan({}, []).epoch == 1


def test_a_failed_request_ends_the_session_that_the_leader_may_hold() -> None:
    for is_known, wanted in ((True, 9), (False, 0)):
        session = FetchSessionState()
        session.plan({KEYS[0]: at(1)}, [])
        session.answered(9)
        session.lost(is_known=is_known)
        assert session.is_new
        assert session.plan({KEYS[0]: at(1)}, [])[:2] == (wanted, 0)


def test_fenced_partitions_wait_for_a_newer_image() -> None:
    state = FetcherState(backoff_s=0.1, max_wait_s=0.5)
    state.follow(KEYS[0], 3)
    assert state.plan(0.0, lambda _: at(5)) is not None
    state.answered(0, 9)
    state.delay(KEYS[0], 0.0, FENCED)
    assert state.plan(0.2, lambda _: at(5)) is None
    assert state.plan(0.3, lambda _: at(5)) is None
    assert state.is_current(KEYS[0], 3)
    state.follow(KEYS[0], 3)
    assert state.plan(0.4, lambda _: at(5)) is None
    state.follow(KEYS[0], 4)
    assert not state.is_current(KEYS[0], 3)
    plan = state.plan(0.4, lambda _: at(5, 4))
    assert plan is not None
    assert plan.session[:3] == (9, 0, [(KEYS[0], at(5, 4))])


def test_session_errors_are_known() -> None:
    assert {70, 71, 106} == SESSION_ERRORS
