"""Who leads: by what is in the state and who is registered, in which epoch and after what stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.controller.election_state import (
    ElectionRules,
    LiveBroker,
    LogEnd,
    Standing,
    hand_over,
    has_live_leader,
    must_ask,
    prefer,
    review,
    standing,
    usable,
)
from trioq.metastore.layout import PartitionState

STATE = PartitionState(1, 5, (1, 2, 3), (10, 20, 30), (1, 2, 3))
ALL = {1: LiveBroker(10, True), 2: LiveBroker(20, True), 3: LiveBroker(30, True)}
TWO = ElectionRules(min_insync=2)
UNCLEAN = ElectionRules(min_insync=2, unclean=True)


def without(*gone: int) -> dict[int, LiveBroker]:
    return {broker: live for broker, live in ALL.items() if broker not in gone}


def back(broker: int, epoch: int, *, clean: bool) -> dict[int, LiveBroker]:
    return {broker: LiveBroker(epoch, clean)}


def test_standing_is_told_by_epochs():
    assert standing(4, None) is Standing.ABSENT
    assert standing(4, LiveBroker(4, False)) is Standing.SAME
    assert standing(4, LiveBroker(5, True)) is Standing.CONTINUED
    assert standing(4, LiveBroker(5, False)) is Standing.LOST
    # Stopped cleanly last time, but nobody saw how it stopped the time before.
    assert standing(4, LiveBroker(6, True)) is Standing.LOST
    # Several registrations between two looks of the controller: two lost sessions, say.
    assert standing(4, LiveBroker(6, True, held_since=4)) is Standing.CONTINUED
    assert standing(4, LiveBroker(6, True, held_since=5)) is Standing.LOST
    assert standing(4, LiveBroker(6, False, held_since=6)) is Standing.LOST
    assert standing(7, LiveBroker(6, True, held_since=4)) is Standing.LOST


def test_nothing_changes_while_all_are_there():
    assert review(STATE, ALL, TWO) == STATE


def test_a_dead_leader_is_followed_by_the_next_in_sync_replica():
    state = review(STATE, without(1), TWO)
    assert (state.leader, state.leader_epoch) == (2, 6)
    assert (state.isr, state.broker_epochs) == ((2, 3), (20, 30))
    assert state.elr == ()


def test_a_dead_follower_leaves_the_isr_and_the_leader_stays():
    state = review(STATE, without(3), TWO)
    assert (state.leader, state.leader_epoch, state.isr) == (1, 5, (1, 2))


def test_who_leaves_an_isr_that_became_too_small_stays_electable():
    state = review(STATE, without(2, 3), TWO)
    assert (state.leader, state.isr) == (1, (1,))
    assert (set(state.elr), dict(zip(state.elr, state.elr_epochs, strict=True))) == (
        {2, 3},
        {2: 20, 3: 30},
    )
    # The last one dies too; one of those electable is back from a clean stop, and leads.
    dead = review(state, {}, TWO)
    assert (dead.leader, dead.last_leader, dead.leader_epoch, dead.isr) == (-1, 1, 6, (1,))
    led = review(dead, back(3, 31, clean=True), TWO)
    assert (led.leader, led.leader_epoch, led.isr, led.broker_epochs) == (3, 7, (3,), (31,))
    assert set(led.elr) == {1, 2}


def test_a_replica_that_may_have_lost_its_tail_is_not_elected_while_another_may_come():
    state = review(STATE, without(2, 3), TWO)
    dead = review(state, {}, TWO)
    waiting = review(dead, back(2, 21, clean=False), TWO)
    assert waiting == dead
    assert must_ask(dead, back(2, 21, clean=False)) == ()


def test_who_came_back_harmed_is_asked_too_when_the_last_in_sync_is_harmed_as_well():
    """Both stopped at once; the one that is back first must not be forgotten for it."""
    state = PartitionState(1, 5, (1, 2), (10, 20), (1, 2, 3))
    back_first = review(state, {1: ALL[1], 2: LiveBroker(21, False)}, TWO)
    assert (back_first.isr, back_first.elr, back_first.elr_epochs) == ((1,), (2,), (20,))
    both = {1: LiveBroker(11, False), 2: LiveBroker(21, False)}
    assert set(must_ask(back_first, both)) == {1, 2}
    dead = review(back_first, both, TWO)
    assert dead.leader == -1
    led = review(dead, both, TWO, logs={1: LogEnd(5, 90), 2: LogEnd(5, 100)})
    assert (led.leader, led.isr, led.broker_epochs) == (2, (2,), (21,))


def test_when_all_lost_something_the_longest_log_leads():
    dead = review(review(STATE, without(2, 3), TWO), {}, TWO)
    live = {broker: LiveBroker(epoch, False) for broker, epoch in {1: 11, 2: 21, 3: 31}.items()}
    assert set(must_ask(dead, live)) == {1, 2, 3}
    assert review(dead, live, TWO) == dead
    partly = {1: LogEnd(5, 90), 2: LogEnd(5, 100)}
    assert review(dead, live, TWO, logs=partly) == dead
    led = review(dead, live, TWO, logs=partly | {3: LogEnd(4, 500)})
    assert (led.leader, led.isr, led.broker_epochs) == (2, (2,), (21,))
    # They are asked again if it loses more before any of them is in sync.
    assert dict(zip(led.elr, led.elr_epochs, strict=True)) == {1: 10, 3: 30}
    assert set(must_ask(led, live | back(2, 22, clean=False))) == {1, 2, 3}


def test_a_leader_that_bounced_leads_only_under_a_new_epoch():
    """SAFETY rule 6: the same id in a later broker epoch."""
    clean = review(STATE, ALL | back(1, 11, clean=True), TWO)
    assert (clean.leader, clean.leader_epoch) == (1, 6)
    assert clean.broker_epochs == (11, 20, 30)
    unclean = review(STATE, ALL | back(1, 11, clean=False), TWO)
    assert (unclean.leader, unclean.leader_epoch, unclean.isr) == (2, 6, (2, 3))


def test_unclean_election_only_where_it_is_allowed():
    dead = review(STATE, without(1, 2, 3), TWO)
    live = back(4, 1, clean=True) | back(3, 35, clean=False)
    assert review(dead, live, TWO).leader == -1
    led = review(dead, live, UNCLEAN)
    assert (led.leader, led.isr, led.elr) == (3, (3,), ())


def test_an_isr_never_shrinks_to_nobody():
    dead = review(STATE, {}, ElectionRules())
    assert dead.isr == STATE.isr
    assert review(dead, {}, ElectionRules()) == dead


def test_a_broker_that_stops_hands_over_first():
    state = hand_over(STATE, 1, ALL, TWO)
    assert (state.leader, state.leader_epoch, state.isr) == (2, 6, (2, 3))
    assert hand_over(STATE, 3, ALL, TWO).isr == (1, 2)
    alone = PartitionState(1, 0, (1,), (10,), (1,))
    assert hand_over(alone, 1, ALL, ElectionRules()) == alone


@pytest.mark.parametrize(
    ("leader", "isr", "expected"), [(2, (1, 2), 1), (2, (2, 3), 2), (1, (1,), 1)]
)
def test_the_preferred_leader_leads_when_it_is_in_sync(leader, isr, expected):
    epochs = tuple(ALL[broker].broker_epoch for broker in isr)
    state = STATE._replace(leader=leader, isr=isr, broker_epochs=epochs)
    assert prefer(state, ALL).leader == expected


def test_a_leader_whose_log_failed_is_followed_by_the_next_in_sync_replica():
    state = review(STATE.with_failed({1: 10}), ALL, TWO)
    assert (state.leader, state.leader_epoch) == (2, 6)
    assert (state.isr, state.elr, state.failed_logs) == ((2, 3), (), {1: 10})
    assert not has_live_leader(STATE.with_failed({1: 10}), ALL)


def test_a_follower_whose_log_failed_leaves_the_isr_and_does_not_lead():
    state = review(STATE.with_failed({2: 20}), ALL, TWO)
    assert (state.leader, state.leader_epoch, state.isr) == (1, 5, (1, 3))
    assert review(STATE.with_failed({2: 20}), without(1), TWO).leader == 3
    assert hand_over(STATE.with_failed({2: 20}), 1, ALL, TWO).leader == 3
    elsewhere = STATE._replace(leader=2).with_failed({1: 10})
    assert prefer(elsewhere, ALL) == elsewhere


def test_the_last_in_sync_whose_log_failed_stays_in_sync_and_who_is_electable_leads():
    alone = PartitionState(1, 5, (1,), (10,), (1, 2)).with_failed({1: 10})
    dead = review(alone, ALL, TWO)
    assert (dead.leader, dead.last_leader, dead.isr) == (-1, 1, (1,))
    assert review(dead, ALL, TWO) == dead
    electable = alone._replace(elr=(2,), elr_epochs=(20,))
    led = review(electable, ALL, TWO)
    assert (led.leader, led.isr, led.elr, led.elr_epochs) == (2, (2,), (1,), (10,))


def test_the_longest_log_is_waited_for_while_its_directory_is_offline():
    """Rule 9: it may hold what all others lost; an operator may decide otherwise."""
    dead = PartitionState(-1, 6, (1, 2), (10, 20), (1, 2), last_leader=1)
    harmed = {1: LiveBroker(11, False), 2: LiveBroker(21, False)}
    assert set(must_ask(dead, harmed)) == {1, 2}
    failed = dead.with_failed({1: 11})
    assert must_ask(failed, harmed) == ()
    ends = {1: LogEnd(5, 100), 2: LogEnd(5, 90)}
    assert review(failed, harmed, TWO, logs=ends).leader == -1
    assert review(failed, harmed, UNCLEAN, logs=ends).leader == 2
    assert set(must_ask(failed, harmed | back(1, 12, clean=False))) == {1, 2}


def test_rule_9_who_is_back_leads_when_the_others_are_waited_for_no_longer():
    dead = PartitionState(-1, 6, (1,), (10,), (1, 2, 3), (2, 3), 1, elr_epochs=(20, 30))
    harmed = {1: LiveBroker(11, False), 2: LiveBroker(21, False)}
    assert must_ask(dead, harmed) == ()
    assert set(must_ask(dead, harmed, waits=False)) == {1, 2}
    ends = {1: LogEnd(5, 90), 2: LogEnd(5, 100)}
    assert review(dead, harmed, TWO, logs=ends) == dead
    led = review(dead, harmed, TWO, logs=ends, waits=False)
    assert (led.leader, led.isr, set(led.elr)) == (2, (2,), {1, 3})
    assert review(dead, harmed, TWO, logs={1: ends[1]}, waits=False).leader == 1
    assert review(dead, harmed, TWO, waits=False).leader == -1, "none has said how far it reaches"
    assert must_ask(dead, {}, waits=False) == ()
    # Nobody else is taken for one that held all.
    unknown = PartitionState(-1, 6, (1,), (10,), (1, 2), last_leader=1)
    assert review(unknown, {2: LiveBroker(21, False)}, TWO, logs=ends, waits=False) == unknown
    assert review(dead, ALL | harmed, TWO, logs=ends, waits=False).leader == 3


def test_that_a_log_failed_is_forgotten_when_its_broker_has_registered_again():
    failed = review(STATE.with_failed({3: 30}), ALL, TWO)
    assert review(failed, without(3), TWO) == failed
    behind = ALL | back(3, 29, clean=True)
    assert review(failed, behind, TWO) == failed, "an older registration tells nothing"
    assert review(failed, ALL | back(3, 31, clean=False), TWO) == failed.with_failed({})


brokers = st.dictionaries(
    st.integers(1, 4), st.builds(LiveBroker, st.integers(9, 12), st.booleans()), max_size=4
)


@given(
    histories=st.lists(st.tuples(brokers, st.sets(st.integers(1, 4))), max_size=8),
    min_insync=st.integers(1, 3),
    unclean=st.booleans(),
)
def test_any_history_keeps_the_rules(histories, min_insync, unclean):
    rules = ElectionRules(min_insync, unclean)
    state = PartitionState(1, 5, (1, 2, 3), (10, 10, 10), (1, 2, 3))
    for live, failing in histories:
        said = {one: live[one].broker_epoch for one in failing if one in live}
        state = state.with_failed(state.failed_logs | said)
        before, state = state, review(state, live, rules)
        assert review(state, live, rules) == state, "a second look changes nothing"
        assert state.isr
        assert set(state.isr).isdisjoint(state.elr)
        assert len(state.elr) == len(state.elr_epochs)
        if state.leader != -1:
            assert state.leader in state.isr
            assert state.leader in usable(state, live)
            # Rule 6: whoever leads or counts does so in the epoch it has now.
            for broker, epoch in zip(state.isr, state.broker_epochs, strict=True):
                assert live[broker].broker_epoch == epoch
        assert said.keys() <= state.failed_logs.keys()
        assert said.keys().isdisjoint(usable(state, live))
        assert (state.leader == before.leader) == (state.leader_epoch == before.leader_epoch) or (
            state.leader_epoch == before.leader_epoch + 1
        )
        if not unclean and state.leader != -1 and state.leader != before.leader:
            kept = {
                broker
                for broker, epoch in (
                    *zip(before.isr, before.broker_epochs, strict=True),
                    *zip(before.elr, before.elr_epochs, strict=True),
                )
                if standing(epoch, live.get(broker)) in {Standing.SAME, Standing.CONTINUED}
            }
            assert state.leader in kept
