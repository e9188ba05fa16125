"""The high watermark is the minimum over every replica that counts; who joins, who leaves."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.errors import BrokerBug
from trioq.metastore.layout import PartitionState
from trioq.replication.isr_state import (
    LAG_BY_MESSAGES_S,
    REJOIN_S,
    IsrState,
    changed_isr,
    with_failed_log,
)

LEADER = 1
EVERYBODY = (1, 2, 3, 4, 5)
offsets = st.integers(0, 1000)
others = st.sets(st.sampled_from(EVERYBODY[1:]))


def state_of(members: Iterable[int], version: int = 0, epoch: int = 10) -> PartitionState:
    """Led by LEADER; a member's broker epoch is `epoch` plus its id."""
    isr = tuple(sorted({LEADER, *members}))
    return PartitionState(
        leader=LEADER,
        leader_epoch=3,
        isr=isr,
        broker_epochs=tuple(epoch + one for one in isr),
        replicas=EVERYBODY,
        partition_epoch=version,
    )


def epochs_of(members: Iterable[int], epoch: int = 10) -> dict[int, int]:
    return {one: epoch + one for one in {LEADER, *members}}


def fetch(isr: IsrState, replica: int, end: int, leader_end: int = 1000, now_s: float = 0) -> bool:
    return isr.record_fetch(replica, 10 + replica, end, leader_end_offset=leader_end, now_s=now_s)


def test_a_leader_alone_counts_alone() -> None:
    isr = IsrState(LEADER, state_of([]))
    fetch(isr, 2, 3)
    assert isr.is_alone
    assert isr.high_watermark(17) == 17


def test_a_leader_outside_its_isr_is_a_bug() -> None:
    with pytest.raises(BrokerBug):
        IsrState(LEADER, state_of([])._replace(isr=(2,), broker_epochs=(12,)))


def test_a_replica_that_left_joins_again_by_what_it_states_from_then_on() -> None:
    isr = IsrState(LEADER, state_of([2, 3]))
    for replica in (2, 3):
        fetch(isr, replica, 1000)
    isr.decide(state_of([2], version=1), 1.0)
    assert isr.joiners(1000, 100) == {}
    assert isr.high_watermark(1000) == 1000
    fetch(isr, 3, 1000, now_s=2.0)
    assert isr.joiners(1000, 1.0 + REJOIN_S) == {3: 13}


@given(
    local=offsets,
    committed=others,
    proposed=st.lists(others, max_size=3),
    positions=st.dictionaries(st.sampled_from(EVERYBODY[1:]), offsets),
    decided=others,
)
def test_rule_8_high_watermark_is_the_minimum_over_the_union_while_a_change_is_undecided(
    local: int,
    committed: set[int],
    proposed: list[set[int]],
    positions: dict[int, int],
    decided: set[int],
) -> None:
    isr = IsrState(LEADER, state_of(committed))
    for replica, end in positions.items():
        fetch(isr, replica, end)
    for members in proposed:
        isr.propose(epochs_of(members))
    counted = committed.union(*proposed)
    assert isr.high_watermark(local) == min([local, *(positions.get(r, 0) for r in counted)])
    assert isr.committed == committed | {LEADER}
    assert isr.is_alone == (not counted)
    # A state that the proposal was made over says nothing about it.
    isr.decide(state_of(committed), 0)
    assert isr.high_watermark(local) == min([local, *(positions.get(r, 0) for r in counted)])
    isr.decide(state_of(decided, version=1), 0)
    assert isr.high_watermark(local) == min([local, *(positions.get(r, 0) for r in decided)])
    assert not isr.is_undecided


def test_rule_8_a_shrink_counts_only_once_it_is_read_back() -> None:
    isr = IsrState(LEADER, state_of([2, 3]))
    fetch(isr, 2, 10)
    fetch(isr, 3, 4)
    isr.propose(epochs_of([2]))
    assert isr.high_watermark(10) == 4
    isr.decide(state_of([2], version=1), 0)
    assert isr.high_watermark(10) == 10


def test_rule_8_what_was_sent_before_stays_open_when_the_last_is_withdrawn() -> None:
    isr = IsrState(LEADER, state_of([]))
    isr.propose(epochs_of([2]))
    isr.propose(epochs_of([3]))
    isr.withdraw()
    fetch(isr, 2, 7)
    assert isr.high_watermark(10) == 7
    assert isr.is_undecided


def test_rule_8_what_is_known_not_to_be_written_counts_no_more() -> None:
    isr = IsrState(LEADER, state_of([]))
    isr.propose(epochs_of([2]))
    assert isr.high_watermark(10) == 0
    isr.withdraw()
    assert isr.high_watermark(10) == 10


@given(high_watermark=offsets, start=offsets, end=offsets)
def test_rule_8_a_follower_joins_at_high_watermark_and_start_of_the_term(
    high_watermark: int, start: int, end: int
) -> None:
    isr = IsrState(LEADER, state_of([3]), start_offset=start)
    fetch(isr, 2, end)
    fetch(isr, 3, end)
    joins = end >= high_watermark and end >= start
    assert isr.joiners(high_watermark, 0) == ({2: 12} if joins else {})


def test_who_has_left_stays_out_for_a_while_but_not_after_a_restart() -> None:
    isr = IsrState(LEADER, state_of([2, 3]), now_s=0)
    isr.decide(state_of([], version=1), 100)  # the controller: they are about to stop
    fetch(isr, 2, 10, now_s=101)
    isr.record_fetch(3, 14, 10, leader_end_offset=10, now_s=101)
    assert isr.joiners(10, 101) == {3: 14}
    assert isr.joiners(10, 99.9 + REJOIN_S) == {3: 14}
    assert isr.joiners(10, 100 + REJOIN_S) == {2: 12, 3: 14}


def test_who_never_fetched_or_without_an_epoch_does_not_join() -> None:
    isr = IsrState(LEADER, state_of([]))
    isr.record_fetch(2, -1, 0, leader_end_offset=0, now_s=0)
    assert isr.joiners(0, 0) == {}


def test_rule_6_positions_of_another_broker_epoch_do_not_move_the_high_watermark() -> None:
    isr = IsrState(LEADER, state_of([2]))
    isr.record_fetch(2, 13, 50, leader_end_offset=50, now_s=0)
    assert isr.high_watermark(50) == 0
    assert not isr.is_in_sync(2)
    assert isr.epoch_of(2) == 13
    # The controller saw that it stopped cleanly and is back.
    isr.decide(PartitionState(LEADER, 3, (1, 2), (11, 13), EVERYBODY, partition_epoch=1), now_s=0)
    assert isr.high_watermark(50) == 50
    assert isr.is_in_sync(2)


def test_rule_6_what_was_stated_before_a_restart_is_forgotten() -> None:
    isr = IsrState(LEADER, state_of([2]))
    fetch(isr, 2, 50)
    isr.decide(PartitionState(LEADER, 3, (1, 2), (11, 13), EVERYBODY, partition_epoch=1), now_s=0)
    assert isr.high_watermark(60) == 0
    isr.record_fetch(2, 13, 40, leader_end_offset=60, now_s=0)
    assert isr.high_watermark(60) == 40


@given(committed=others, least=st.integers(1, 5), local=offsets)
def test_rule_9_the_high_watermark_rests_while_too_few_are_in_sync(
    committed: set[int], least: int, local: int
) -> None:
    isr = IsrState(LEADER, state_of(committed))
    isr.least = least
    for replica in committed:
        fetch(isr, replica, local)
    assert isr.high_watermark(local) == (local if len(committed) + 1 >= least else -1)


@given(members=others, elr=others, joining=others, leaving=others, least=st.integers(1, 4))
def test_rule_9_who_leaves_too_small_an_isr_stays_electable_until_it_is_whole(
    members: set[int], elr: set[int], joining: set[int], leaving: set[int], least: int
) -> None:
    elr, joining, leaving = elr - members, joining - members, leaving & members
    before = state_of(members)._replace(
        elr=tuple(sorted(elr)), elr_epochs=tuple(20 + one for one in sorted(elr))
    )
    after = changed_isr(
        before, joining={one: 30 + one for one in joining}, leaving=leaving, min_insync=least
    )
    in_sync = ({LEADER} | members | joining) - leaving
    assert set(after.isr) == in_sync
    epochs = dict(zip(after.isr, after.broker_epochs, strict=True))
    assert epochs == {one: (30 if one in joining else 10) + one for one in in_sync}
    if len(in_sync) >= least:
        assert after.elr == after.elr_epochs == ()
    else:
        assert dict(zip(after.elr, after.elr_epochs, strict=True)) == {
            one: (10 if one in leaving else 20) + one for one in (elr | leaving) - joining
        }
    assert after.leader == LEADER
    assert after.leader_epoch == before.leader_epoch


def laggards(isr: IsrState, end: int, now_s: float, most: int = 0) -> set[int]:
    return isr.laggards(end, now_s, max_lag_s=30, max_lag_messages=most)


def test_who_has_not_held_everything_for_too_long_is_out_of_sync() -> None:
    isr = IsrState(LEADER, state_of([2, 3]), now_s=100)
    assert laggards(isr, 10, 130) == set()
    fetch(isr, 2, 10, leader_end=10, now_s=130)
    assert laggards(isr, 10, 131) == {3}
    assert laggards(isr, 12, 161) == set() | {3}
    assert laggards(isr, 12, 161.5) == {2, 3}


def test_who_always_fetches_what_was_there_before_is_in_sync_under_load() -> None:
    isr = IsrState(LEADER, state_of([2]), now_s=0)
    for second in range(100):
        fetch(isr, 2, 10 * second, leader_end=10 * second + 10, now_s=second)
        assert laggards(isr, 10 * second + 10, second) == set()


def test_who_has_everything_is_in_sync_however_long_it_has_nothing_to_fetch() -> None:
    isr = IsrState(LEADER, state_of([2]), now_s=0)
    fetch(isr, 2, 10, leader_end=10)
    assert laggards(isr, 10, 1000) == set()
    assert laggards(isr, 11, 1029) == set()
    assert laggards(isr, 11, 1031) == {2}


def test_who_joins_has_as_long_as_anybody_to_reach_the_end() -> None:
    isr = IsrState(LEADER, state_of([]), now_s=0)
    fetch(isr, 2, 10, leader_end=20, now_s=100)
    isr.decide(state_of([2], version=1), 100)
    assert laggards(isr, 20, 130) == set()
    assert laggards(isr, 20, 130.5) == {2}


def test_lag_by_messages_acts_only_when_it_lasts() -> None:
    isr = IsrState(LEADER, state_of([2]), now_s=0)
    fetch(isr, 2, 100, leader_end=300)
    assert laggards(isr, 300, 1, most=150) == set()
    fetch(isr, 2, 200, leader_end=300, now_s=3)
    assert laggards(isr, 300, 3, most=150) == set()
    assert laggards(isr, 400, 4, most=150) == set()
    assert laggards(isr, 400, 4 + LAG_BY_MESSAGES_S - 0.1, most=150) == set()
    assert laggards(isr, 400, 4 + LAG_BY_MESSAGES_S, most=0) == set()
    assert laggards(isr, 400, 5, most=150) == set()
    assert laggards(isr, 400, 5 + LAG_BY_MESSAGES_S, most=150) == {2}


def test_a_replica_whose_log_failed_says_so_and_leaves_the_rest_to_others() -> None:
    state = PartitionState(1, 5, (1, 2), (10, 20), (1, 2, 3))
    after = with_failed_log(state, 2, 20)
    assert after == state._replace(failed=(2,), failed_epochs=(20,))
    assert with_failed_log(after, 2, 22).failed_logs == {2: 22}
    assert with_failed_log(after, 3, 30).failed_logs == {2: 20, 3: 30}
    assert PartitionState.of(json.loads(after.encode()), 0) == after


def test_a_leader_takes_out_who_said_that_its_log_failed() -> None:
    state = PartitionState(LEADER, 5, (1, 2, 3), (10, 20, 30), (1, 2, 3))
    isr = IsrState(LEADER, state, now_s=0)
    assert isr.failed() == set()
    isr.decide(with_failed_log(with_failed_log(state, 2, 20), 3, 29), 1)
    assert isr.failed() == {2}, "3 said so before it registered again"
    after = changed_isr(isr.state, joining={}, leaving=isr.failed(), min_insync=3)
    assert (after.isr, after.elr, after.failed_logs) == ((1, 3), (2,), {2: 20, 3: 29})


def test_a_replica_whose_log_failed_joins_again_only_in_another_epoch() -> None:
    state = state_of([])
    isr = IsrState(LEADER, state)
    fetch(isr, 2, 10)
    assert isr.joiners(10, 1) == {2: 12}
    isr.decide(with_failed_log(state, 2, 12), 1)
    assert isr.joiners(10, 1) == {}
    isr.record_fetch(2, 13, 10, leader_end_offset=10, now_s=2)
    assert isr.joiners(10, 2) == {2: 13}
    after = changed_isr(isr.state, joining={2: 13}, leaving=(), min_insync=1)
    assert (after.isr, after.failed_logs) == ((1, 2), {})
