"""The loop's pulse: gaps shut the gate, and the watchdog tells a loop that hangs from a process
that was stopped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioq.cluster.pulse_state import (
    BEATS_PER_SESSION,
    BRIEF_GAP_SHARE,
    EXIT_SHARE,
    GAP_SHARE,
    GIVE_UP_SHARE,
    GapState,
    Verdict,
    WatchdogState,
)

SESSION_S = 18.0
INTERVAL_S = SESSION_S / 12
STEPS = st.floats(0.0, SESSION_S * 3, allow_nan=False)


@given(st.lists(STEPS, max_size=30), st.data())
def test_safety_12_every_gap_of_a_third_of_a_session_shuts_until_it_is_opened(steps, data):
    state, now_s = GapState(SESSION_S, -100.0), 0.0
    state.begin(now_s)
    gaps = known = 0
    for step_s in steps:
        before_s, now_s = now_s, now_s + step_s
        is_gap = now_s - before_s > GAP_SHARE * SESSION_S
        gaps += is_gap
        assert state.look(now_s) == (now_s - before_s if is_gap else 0.0)
        assert state.is_shut == (gaps > known)
        if data.draw(st.booleans(), "opened"):
            known = data.draw(st.integers(known, gaps), "of them known")
            assert state.open(known) == (known == gaps)
            assert state.is_shut == (gaps > known)


@given(st.lists(STEPS, max_size=30), st.data())
def test_safety_12_after_every_brief_gap_the_image_counts_as_old_until_it_is_caught_up(steps, data):
    state, now_s = GapState(SESSION_S, -100.0), 0.0
    state.begin(now_s)
    gaps = known = 0
    for step_s in steps:
        before_s, now_s = now_s, now_s + step_s
        gaps += now_s - before_s > BRIEF_GAP_SHARE * SESSION_S
        state.look(now_s)
        assert state.all_gaps == gaps >= state.gaps
        assert state.is_behind == (gaps > known)
        if data.draw(st.booleans(), "caught up"):
            known = data.draw(st.integers(known, gaps), "of them before it")
            state.caught_up(known)
            assert state.is_behind == (gaps > known)


def test_a_loop_without_work_looks_often_enough_to_have_no_gap():
    assert 1 / BEATS_PER_SESSION <= BRIEF_GAP_SHARE / 2 < GAP_SHARE


@given(st.lists(st.floats(0.0, INTERVAL_S), max_size=100))
def test_a_loop_that_beats_is_left_alone(lags):
    """Each time the watchdog looks there was a beat since it looked last."""
    state, now_s = WatchdogState(SESSION_S, 0.0), 0.0
    for lag_s in lags:
        now_s += INTERVAL_S
        assert state.see(now_s, now_s - lag_s / 2, interval_s=INTERVAL_S) is Verdict.NOTHING


def test_safety_13_a_loop_that_hangs_loses_its_session_and_then_the_process():
    state, now_s = WatchdogState(SESSION_S, 0.0), 0.0
    told: list[tuple[float, Verdict]] = []
    while not told or told[-1][1] is not Verdict.EXIT:
        now_s += INTERVAL_S
        verdict = state.see(now_s, 0.0, interval_s=INTERVAL_S)
        if verdict is not Verdict.NOTHING:
            told.append((now_s, verdict))
    assert told == [
        (GIVE_UP_SHARE * SESSION_S, Verdict.GIVE_UP_SESSION),
        (EXIT_SHARE * SESSION_S, Verdict.EXIT),
    ]


def test_a_beat_begins_the_count_anew():
    state, now_s, beat_s = WatchdogState(SESSION_S, 0.0), 0.0, 0.0
    verdicts = []
    for number in range(1, 24):
        now_s += INTERVAL_S
        beat_s = now_s if number in {7, 14} else beat_s
        verdicts.append(state.see(now_s, beat_s, interval_s=INTERVAL_S))
    assert set(verdicts) == {Verdict.NOTHING, Verdict.GIVE_UP_SESSION}
    assert verdicts.count(Verdict.GIVE_UP_SESSION) == 1, "within the last stretch of nine"


@given(st.floats(2 * INTERVAL_S, 1e6, exclude_min=True))
def test_time_in_which_the_whole_process_was_stopped_does_not_count(stopped_s):
    state, now_s = WatchdogState(SESSION_S, 0.0), 0.0
    for _ in range(3):
        now_s += INTERVAL_S
        assert state.see(now_s, 0.0, interval_s=INTERVAL_S) is Verdict.NOTHING
    now_s += stopped_s
    assert state.see(now_s, 0.0, interval_s=INTERVAL_S) is Verdict.NOTHING
    assert state.see(now_s + INTERVAL_S, now_s, interval_s=INTERVAL_S) is Verdict.NOTHING
