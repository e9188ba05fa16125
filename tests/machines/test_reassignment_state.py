"""Moving replicas: added first, removed when the new ones are in sync, never below what is safe."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trioq.controller.election_state import ElectionRules, LiveBroker, review
from trioq.controller.reassignment_state import (
    advance,
    begin,
    cancel,
    is_reassigning,
    original_of,
    target_of,
)
from trioq.errors import InvalidReplicaAssignment, NoReassignmentInProgress
from trioq.metastore.layout import PartitionState

LIVE = {broker: LiveBroker(10 * broker, True) for broker in range(1, 8)}
TWO = ElectionRules(min_insync=2)
STATE = PartitionState(1, 5, (1, 2, 3), (10, 20, 30), (1, 2, 3))


def joined(state: PartitionState, *brokers: int) -> PartitionState:
    """As the leader writes it when followers have caught up."""
    isr = state.isr + tuple(one for one in brokers if one not in state.isr)
    return state._replace(isr=isr, broker_epochs=tuple(LIVE[one].broker_epoch for one in isr))


def test_replicas_are_added_first_and_removed_when_the_new_ones_are_in_sync():
    begun = begin(STATE, (4, 5, 1), LIVE, TWO)
    assert begun.replicas == (4, 5, 1, 2, 3)
    assert (begun.adding, begun.removing) == ((4, 5), (2, 3))
    assert (begun.leader, begun.isr, begun.leader_epoch) == (1, (1, 2, 3), 5)
    assert (target_of(begun), original_of(begun)) == ((4, 5, 1), (1, 2, 3))
    half = joined(begun, 4)
    assert advance(half, LIVE, TWO) == half
    done = advance(joined(half, 5), LIVE, TWO)
    assert (done.replicas, set(done.isr), done.adding, done.removing) == (
        (4, 5, 1),
        {1, 4, 5},
        (),
        (),
    )
    assert (done.leader, done.leader_epoch) == (1, 5)


def test_the_leader_moves_off_a_replica_that_is_removed():
    begun = begin(STATE, (4, 2, 3), LIVE, TWO)
    done = advance(joined(begun, 4), LIVE, TWO)
    assert (done.leader, done.leader_epoch) == (4, 6)
    assert 1 not in done.isr
    assert 1 not in done.replicas
    # Not to one that is about to stop, if there is another.
    staying = {broker: live for broker, live in LIVE.items() if broker != 4}
    assert advance(joined(begun, 4), staying, TWO).leader == 2


def test_fewer_replicas_are_removed_at_once_and_the_order_alone_is_changed_at_once():
    assert begin(STATE, (1, 2), LIVE, TWO).replicas == (1, 2)
    assert begin(STATE, (2, 3), LIVE, TWO).leader == 2
    reordered = begin(STATE, (3, 1, 2), LIVE, TWO)
    assert (reordered.replicas, is_reassigning(reordered)) == ((3, 1, 2), False)
    assert begin(STATE, (1, 2, 3), LIVE, TWO) == STATE


def test_an_isr_does_not_become_smaller_than_min_insync_by_it():
    small = STATE._replace(isr=(1, 2), broker_epochs=(10, 20))
    begun = begin(small, (3, 4, 5), LIVE, TWO)
    alone = joined(begun, 4)
    assert advance(alone, LIVE, TWO) == alone
    # Both new ones are in sync: two remain, as many as min.insync.replicas asks for.
    assert advance(joined(alone, 5), LIVE, TWO).replicas == (3, 4, 5)


def test_cancelling_takes_the_new_ones_away():
    begun = joined(begin(STATE, (4, 5, 1), LIVE, TWO), 4)
    back = cancel(begun, LIVE, TWO)
    assert (set(back.replicas), set(back.isr)) == ({1, 2, 3}, {1, 2, 3})
    assert not is_reassigning(back)
    led_by_new = begun._replace(leader=4, leader_epoch=6)
    back = cancel(led_by_new, LIVE, TWO)
    assert (back.leader, back.leader_epoch) == (1, 7)
    with pytest.raises(NoReassignmentInProgress):
        cancel(STATE, LIVE, TWO)


def test_it_is_not_cancelled_where_nothing_old_is_in_sync():
    begun = begin(STATE._replace(isr=(1,), broker_epochs=(10,)), (4, 2, 3), LIVE, TWO)
    only_new = joined(begun, 4)._replace(leader=4, isr=(4,), broker_epochs=(40,))
    with pytest.raises(InvalidReplicaAssignment, match="cannot be cancelled"):
        cancel(only_new, LIVE, TWO)


def test_another_target_replaces_the_one_under_way():
    begun = begin(STATE, (4, 2, 3), LIVE, TWO)
    again = begin(begun, (5, 2, 3), LIVE, TWO)
    assert (again.replicas, again.adding, again.removing) == ((5, 2, 3, 1), (5,), (1,))
    assert original_of(again) == (2, 3, 1)


@pytest.mark.parametrize(
    ("target", "said"), [((), "empty"), ((1, 1), "more than once"), ((1, 2, 9), "available: .9")]
)
def test_targets_that_are_refused(target, said):
    with pytest.raises(InvalidReplicaAssignment, match=said):
        begin(STATE, target, LIVE, TWO)
    with pytest.raises(InvalidReplicaAssignment, match="another number"):
        begin(STATE, (1, 2), LIVE, TWO, may_change_factor=False)


def test_an_old_replica_that_is_dead_may_stay_in_the_target():
    live = {broker: one for broker, one in LIVE.items() if broker != 3}
    small = STATE._replace(isr=(1, 2), broker_epochs=(10, 20))
    assert begin(small, (3, 2, 4), live, TWO).adding == (4,)


BROKERS = st.sampled_from(sorted(LIVE))
TARGETS = st.lists(BROKERS, min_size=1, max_size=4, unique=True).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), TARGETS),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("join"), BROKERS),
        st.tuples(st.just("die"), BROKERS),
        st.tuples(st.just("return"), BROKERS),
    ),
    max_size=25,
)


@given(start=TARGETS, steps=STEPS, min_insync=st.integers(1, 3))
def test_whatever_happens_a_state_is_whole_and_nothing_committed_is_given_up(
    start, steps, min_insync
):
    rules = ElectionRules(min_insync)
    epochs = tuple(LIVE[one].broker_epoch for one in start)
    state = PartitionState(start[0], 0, start, epochs, start)
    live = dict(LIVE)
    for step, argument in steps:
        before = state
        try:
            if step == "begin":
                state = begin(state, argument, live, rules)
            elif step == "cancel":
                state = cancel(state, live, rules)
            elif step == "join":
                can = state.leader != -1 and argument in state.replicas and argument in live
                state = joined(state, argument) if can else state
            elif step == "die":
                live.pop(argument, None)
            else:
                live[argument] = LIVE[argument]
        except (InvalidReplicaAssignment, NoReassignmentInProgress):
            assume(state == before)
        state = advance(review(state, live, rules), live, rules)
        assert len(set(state.replicas)) == len(state.replicas) > 0
        assert set(state.isr) <= set(state.replicas)
        assert not set(state.isr) & set(state.elr)
        assert set(state.elr) <= set(state.replicas)
        assert state.isr
        assert len(state.isr) == len(state.broker_epochs)
        assert state.leader == -1 or state.leader in state.isr
        assert set(state.adding) | set(state.removing) <= set(state.replicas)
        assert not set(state.adding) & set(state.removing)
        assert state.leader_epoch >= before.leader_epoch
        if state.leader != before.leader:
            assert state.leader_epoch > before.leader_epoch
        # Who holds what was committed is among those who did, or joined.
        assert set(state.isr) & (set(before.isr) | set(before.elr) | {argument})


@given(start=TARGETS, target=TARGETS)
def test_it_ends_at_the_target_when_everybody_catches_up(start, target):
    epochs = tuple(LIVE[one].broker_epoch for one in start)
    state = PartitionState(start[0], 0, start, epochs, start)
    begun = begin(state, target, LIVE, TWO)
    done = advance(joined(begun, *begun.adding), LIVE, TWO)
    assert done.replicas == target
    assert not is_reassigning(done)
    assert set(done.isr) == set(target)
