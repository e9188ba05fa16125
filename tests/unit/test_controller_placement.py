"""Placement: pure, so properties over all shapes of clusters."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.controller.placement import BrokerPlace, place, start_led_by
from trioq.errors import InvalidPartitions, InvalidReplicationFactor


@st.composite
def requests(draw):
    ids = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12, unique=True))
    racks = st.sampled_from([None, "a", "b", "c"])
    brokers = [BrokerPlace(broker_id, draw(racks)) for broker_id in ids]
    return (
        brokers,
        draw(st.integers(1, 40)),
        draw(st.integers(1, len(ids))),
        draw(st.integers(0, 100)),
    )


@given(requests())
def test_replicas_are_distinct_spread_over_racks_and_leaders_even(request):
    brokers, partitions, factor, start = request
    placed = place(brokers, partitions, factor, start=start)
    rack_of = dict(brokers)
    assert len(placed) == partitions
    for replicas in placed:
        assert len(replicas) == len(set(replicas)) == factor
        racks = {rack_of[broker] for broker in replicas}
        assert len(racks) == min(factor, len(set(rack_of.values())))
    leaders = Counter(replicas[0] for replicas in placed)
    counts = [leaders[broker.broker_id] for broker in brokers]
    assert max(counts) - min(counts) <= 1


@given(requests(), st.randoms(use_true_random=False))
def test_it_is_deterministic_and_ignores_the_order_of_brokers(request, rng):
    brokers, partitions, factor, start = request
    shuffled = brokers[:]
    rng.shuffle(shuffled)
    assert place(brokers, partitions, factor, start=start) == place(
        shuffled, partitions, factor, start=start
    )


@given(requests(), st.integers(1, 40))
def test_a_topic_grown_is_placed_as_one_made_at_once(request, more):
    brokers, partitions, factor, start = request
    whole = place(brokers, partitions + more, factor, start=start)
    grown = place(brokers, more, factor, start=start, first_partition=partitions)
    assert whole == place(brokers, partitions, factor, start=start) + grown


@given(requests())
def test_the_start_is_found_again_from_the_first_leader(request):
    brokers, _, _, start = request
    ((leader,),) = place(brokers, 1, 1, start=start)
    assert start_led_by(brokers, leader) == start % len(brokers)
    assert start_led_by(brokers, 5000) == 0


@given(st.integers(2, 9), st.integers(1, 9))
def test_with_equal_racks_replicas_are_even_too(count, rounds):
    brokers = [BrokerPlace(number) for number in range(count)]
    placed = place(brokers, count * rounds * (count - 1), 2)
    replicas = Counter(broker for ids in placed for broker in ids)
    assert len(set(replicas.values())) == 1
    # the followers of one leader are spread over all other brokers
    followers = Counter(ids[1] for ids in placed if ids[0] == 0)
    assert set(followers) == set(range(1, count))


def test_what_cannot_be_placed():
    brokers = [BrokerPlace(1), BrokerPlace(2)]
    with pytest.raises(InvalidPartitions):
        place(brokers, 0, 1)
    for factor in (0, -1, 3):
        with pytest.raises(InvalidReplicationFactor):
            place(brokers, 1, factor)
    with pytest.raises(InvalidReplicationFactor):
        place([], 1, 1)
