"""Plans of replicas: pure, so properties over all shapes of clusters."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trioq.controller.placement import BrokerPlace
from trioq.controller.replica_plan import plan_drain, plan_rebalance
from trioq.errors import InvalidReplicationFactor
from trioq.types import TopicPartition


@st.composite
def clusters(draw, racks=("a", "b", "c", None), dead=True):
    ids = draw(st.lists(st.integers(1, 30), min_size=1, max_size=7, unique=True))
    rack = st.sampled_from(racks)
    brokers = [BrokerPlace(broker_id, draw(rack)) for broker_id in ids]
    known = [*ids, 99] if dead else ids
    placement = {}
    for number in range(draw(st.integers(0, 25))):
        replicas = draw(
            st.lists(st.sampled_from(known), min_size=1, max_size=min(4, len(known)), unique=True)
        )
        placement[TopicPartition("t", number)] = tuple(replicas)
    return brokers, placement


def spread(brokers, replicas) -> int:
    rack_of = dict(brokers)
    return len({rack_of[one] for one in replicas if one in rack_of})


def widest(brokers, replicas) -> int:
    rack_of = dict(brokers)
    here = sum(one in rack_of for one in replicas)
    return min(here, len(set(rack_of.values())))


def moved(placement, plan) -> int:
    """Replicas that have to be copied."""
    return sum(len(set(plan[one]) - set(placement[one])) for one in plan)


@given(clusters(), st.integers(0, 6))
def test_a_drained_broker_holds_nothing_and_nothing_else_moves(cluster, index):
    brokers, placement = cluster
    leaving = brokers[index % len(brokers)].broker_id
    rest = [one for one in brokers if one.broker_id != leaving]
    try:
        plan = plan_drain(brokers, placement, leaving)
    except InvalidReplicationFactor:
        assert any(
            leaving in replicas and {one.broker_id for one in rest} <= set(replicas)
            for replicas in placement.values()
        )
        return
    assert set(plan) == {one for one, replicas in placement.items() if leaving in replicas}
    for partition, replicas in plan.items():
        before = placement[partition]
        assert len(set(replicas)) == len(replicas) == len(before)
        assert set(before) - {leaving} < set(replicas) or len(before) == 1
        assert len(set(replicas) - set(before)) == 1
        kept = [one for one in before if one != leaving]
        (new,) = set(replicas) - set(before)
        free = [one for one in rest if one.broker_id not in before]
        best = max(spread(rest, [*kept, one.broker_id]) for one in free)
        assert spread(rest, [*kept, new]) == best, "in as many racks as can be"
        if before[0] != leaving:
            assert replicas[0] == before[0], "it goes on leading"
    assert not plan_drain(rest, {**placement, **plan}, leaving)


def test_what_a_broker_had_is_spread_over_the_others_and_so_is_what_it_led():
    brokers = [BrokerPlace(number) for number in range(1, 6)]
    placement = {
        TopicPartition("t", number): (1, 2 + number % 4, 2 + (number + 1) % 4)
        for number in range(40)
    }
    plan = plan_drain(brokers, placement, 1)
    replicas = Counter(one for after in plan.values() for one in after)
    leaders = Counter(after[0] for after in plan.values())
    assert set(replicas.values()) == {30}
    assert set(leaders.values()) == {10}


def test_a_broker_whose_replicas_fit_nowhere_stays():
    placement = {TopicPartition("orders", 3): (1, 2, 3)}
    with pytest.raises(InvalidReplicationFactor, match=r"orders-3 has 3 replicas.*2 brokers"):
        plan_drain([BrokerPlace(1), BrokerPlace(2), BrokerPlace(3)], placement, 3)
    assert plan_drain([BrokerPlace(1)], {}, 1) == {}


@settings(max_examples=60)
@given(clusters())
def test_after_a_rebalance_nothing_is_left_to_do(cluster):
    brokers, placement = cluster
    plan = plan_rebalance(brokers, placement)
    after = {**placement, **plan}
    ids = {one.broker_id for one in brokers}
    for partition, replicas in after.items():
        before = placement[partition]
        assert len(set(replicas)) == len(replicas) == len(before)
        assert {one for one in before if one not in ids} <= set(replicas), "the dead may be back"
        assert spread(brokers, replicas) == widest(brokers, replicas)
    assert all(plan[one] != placement[one] for one in plan)
    assert plan_rebalance(brokers, after) == {}


@settings(max_examples=60)
@given(clusters(), st.sets(st.integers(0, 24), max_size=8))
def test_partitions_that_cannot_move_stay(cluster, numbers):
    brokers, placement = cluster
    fixed = {TopicPartition("t", number) for number in numbers}
    plan = plan_rebalance(brokers, placement, fixed=fixed)
    assert not fixed & set(plan)
    assert plan_rebalance(brokers, {**placement, **plan}, fixed=fixed) == {}


@settings(max_examples=60)
@given(clusters(racks=(None,), dead=False))
def test_without_racks_it_is_even_and_moves_as_little_as_that_takes(cluster):
    brokers, placement = cluster
    plan = plan_rebalance(brokers, placement)
    loads = Counter(one for replicas in placement.values() for one in replicas)
    even = Counter(one for replicas in {**placement, **plan}.values() for one in replicas)
    counts = [even[one.broker_id] for one in brokers]
    assert max(counts) - min(counts) <= 1
    share, remainder = divmod(sum(counts), len(counts))
    ranked = sorted((loads[one.broker_id] for one in brokers), reverse=True)
    least = sum(max(0, load - share - (rank < remainder)) for rank, load in enumerate(ranked))
    assert moved(placement, plan) == least


@settings(max_examples=60)
@given(clusters(dead=False), st.integers(2, 3))
def test_leaders_are_as_even_as_the_replicas_allow(cluster, factor):
    brokers, placement = cluster
    assume(len(brokers) >= factor)
    placement = {
        partition: tuple(
            brokers[(number + step) % len(brokers)].broker_id for step in range(factor)
        )
        for number, partition in enumerate(placement)
    }
    after = {**placement, **plan_rebalance(brokers, placement)}
    leads = Counter(replicas[0] for replicas in after.values())
    # nobody who leads two fewer could take one over
    for replicas in after.values():
        for follower in replicas[1:]:
            assert leads[replicas[0]] - leads[follower] < 2


def test_a_new_broker_takes_its_share_of_replicas_and_leaders():
    brokers = [BrokerPlace(number, f"r{number % 2}") for number in (1, 2)]
    placement = {TopicPartition("t", number): (1, 2) for number in range(30)}
    plan = plan_rebalance([*brokers, BrokerPlace(3, "r1"), BrokerPlace(4, "r0")], placement)
    after = {**placement, **plan}
    assert Counter(one for replicas in after.values() for one in replicas) == {
        1: 15,
        2: 15,
        3: 15,
        4: 15,
    }
    leads = Counter(replicas[0] for replicas in after.values())
    assert max(leads.values()) - min(leads.values()) <= 1
    assert moved(placement, plan) == 30
