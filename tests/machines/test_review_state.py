"""What a controller finds to change when brokers come and go; SAFETY rules 6, 9, 17 and 18."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq.config import BrokerConfig
from trioq.controller.election_state import LogEnd
from trioq.controller.review_state import (
    ASK_AGAIN_S,
    BATCH,
    PartitionChange,
    ReviewState,
    batches,
)
from trioq.controller.storm_state import StormState
from trioq.controller.topic_plan import chunks
from trioq.metastore import feed, store
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import BrokerRegistration, PartitionState

CONFIG = BrokerConfig.from_mapping({})
RECOVERING = BrokerConfig.from_mapping({"unclean.recovery.timeout.ms": "60000"})
TOPIC = uuid.UUID(int=1000)
STATE = PartitionState(1, 5, (1, 2, 3), (10, 20, 30), (1, 2, 3))
ALL = {1: 10, 2: 20, 3: 30}


def registration(broker: int, epoch: int, clean: bool = True) -> BrokerRegistration:
    return BrokerRegistration(broker, epoch, None, {}, (f"d{broker}",), "h", f"i{epoch}", clean)


def image(*states: PartitionState, live=ALL, unclean=(), config=None) -> ClusterImage:
    topic = TopicImage("t", TOPIC, states, config or {"min.insync.replicas": "2"}, 0)
    brokers = {
        broker: registration(broker, epoch, broker not in unclean) for broker, epoch in live.items()
    }
    return ClusterImage(topics={"t": topic}, topics_by_id={TOPIC: topic}, brokers=brokers)


def review_state(*, wait_s: float = 10.0, can_ask: bool = True) -> ReviewState:
    return ReviewState(CONFIG, storm_wait_s=wait_s, can_ask=can_ask)


def look(state: ReviewState, at: ClusterImage, now_s: float = 0.0):
    for topic in state.begin(at, now_s):
        state.examine(topic)
    return state.findings()


def after(findings) -> list[PartitionState]:
    return [change.after for change in findings.changes]


def test_nothing_is_found_while_all_is_well_and_only_what_changed_is_looked_at():
    state = review_state()
    first = image(STATE, STATE)
    assert look(state, first).changes == []
    assert state.begin(first, 1.0) == []
    moved = image(STATE, STATE._replace(partition_epoch=1))
    assert [topic.name for topic in state.begin(moved, 2.0)] == ["t"]


def test_safety_6_a_broker_that_bounced_and_may_have_lost_its_tail_does_not_go_on_leading():
    """The controller never saw it gone: the ids are the same, the epochs are not."""
    state = review_state()
    look(state, image(STATE))
    back = image(STATE, live={**ALL, 1: 11}, unclean={1})
    (led,) = after(look(state, back))
    assert (led.leader, led.isr, led.broker_epochs) == (2, (2, 3), (20, 30))
    # After a clean stop it holds everything, and leads by a state that names its new epoch.
    state = review_state()
    (led,) = after(look(state, image(STATE, live={**ALL, 1: 11})))
    assert (led.leader, led.leader_epoch) == (1, 6)
    assert (led.isr, led.broker_epochs) == ((1, 2, 3), (11, 20, 30))


def test_safety_9_the_last_replicas_standing_are_waited_for_and_the_longest_log_leads():
    alone = STATE._replace(isr=(1,), broker_epochs=(10,), elr=(2, 3), elr_epochs=(20, 30))
    state = review_state()
    (dead,) = after(look(state, image(alone, live={4: 40, 5: 50, 6: 60, 7: 70})))
    assert dead.leader == -1
    # Two of the three are back from unclean stops: the third may hold more.
    two = image(dead, live={1: 11, 2: 21}, unclean={1, 2})
    findings = look(state, two)
    assert (findings.changes, findings.ask) == ([], {})
    assert state.offline == {TOPIC: (0,)}
    three = image(dead, live={1: 11, 2: 21, 3: 31}, unclean={1, 2, 3})
    findings = look(state, three)
    assert findings.changes == []
    assert findings.ask == {broker: [(TOPIC, 0)] for broker in (1, 2, 3)}
    state.answered(1, 11, {(TOPIC, 0): LogEnd(5, 100)})
    state.answered(2, 21, {(TOPIC, 0): LogEnd(6, 90)})
    assert look(state, three).changes == []
    state.answered(3, 31, {(TOPIC, 0): LogEnd(6, 80)})
    (led,) = after(look(state, three))
    assert (led.leader, led.isr, led.broker_epochs) == (2, (2,), (21,))


def test_what_a_broker_told_in_another_epoch_does_not_count():
    dead = STATE._replace(leader=-1, last_leader=1, isr=(1, 2), broker_epochs=(10, 20))
    state = review_state()
    both = image(dead, live={1: 11, 2: 21}, unclean={1, 2})
    look(state, both)
    state.answered(1, 11, {(TOPIC, 0): LogEnd(5, 100)})
    again = image(dead, live={1: 12, 2: 21}, unclean={1, 2})
    look(state, again)
    state.answered(2, 21, {(TOPIC, 0): LogEnd(5, 50)})
    assert look(state, again).changes == []
    state.answered(1, 12, {(TOPIC, 0): LogEnd(5, 10)})
    (led,) = after(look(state, again))
    assert led.leader == 2


def test_brokers_that_do_not_answer_are_asked_again():
    dead = STATE._replace(leader=-1, last_leader=1, isr=(1,), broker_epochs=(10,))
    state = review_state()
    at = image(dead, live={**ALL, 1: 11}, unclean={1})
    findings = look(state, at, 5.0)
    assert findings.ask
    assert findings.again_at_s == 5.0 + ASK_AGAIN_S
    assert not look(state, at, 5.1).ask
    assert look(state, at, 5.0 + ASK_AGAIN_S).ask == {1: [(TOPIC, 0)]}


def test_nothing_is_kept_of_a_deleted_topic():
    dead = STATE._replace(leader=-1, last_leader=1, isr=(1, 2), broker_epochs=(10, 20))
    state = review_state()
    state.config = RECOVERING
    at = image(dead, live={**ALL, 1: 11, 2: 21}, unclean={1, 2})
    look(state, at)
    state.answered(1, 11, {(TOPIC, 0): LogEnd(5, 100)})
    assert (len(state._asked_at_s), len(state._back_since_s)) == (1, 1)
    look(state, ClusterImage(brokers=at.brokers))
    assert (state.offline, state._logs) == ({}, {})
    assert (state._asked_at_s, state._back_since_s) == ({}, {})


def test_rule_9_the_others_are_waited_for_as_long_as_is_configured():
    """1 and 2 held everything; 2 is back, and may have lost its tail."""
    dead = STATE._replace(leader=-1, last_leader=1, isr=(1, 2), broker_epochs=(10, 20))
    others = {3: 30, 4: 40, 5: 50}
    nobody, one = image(dead, live=others), image(dead, live={**others, 2: 21}, unclean={2})
    for_ever, state = review_state(), review_state()
    state.config = RECOVERING
    assert look(state, nobody, 0.0).again_at_s is None, "nobody waits"
    findings = look(state, one, 100.0)
    assert (findings.changes, findings.ask, findings.again_at_s) == ([], {}, 160.0)
    look(state, nobody, 120.0)  # it went once more: the wait begins anew
    assert look(state, one, 130.0).again_at_s == 190.0
    assert look(state, one, 189.0).ask == {}
    assert look(state, one, 190.0).ask == {2: [(TOPIC, 0)]}
    state.answered(2, 21, {(TOPIC, 0): LogEnd(5, 7)})
    (led,) = after(look(state, one, 190.1))
    assert (led.leader, led.isr, led.elr, led.elr_epochs) == (2, (2,), (1,), (10,))
    look(for_ever, one, 0.0)
    findings = look(for_ever, one, 1e6)
    assert (findings.changes, findings.ask, findings.again_at_s) == ([], {}, None)


def test_an_unclean_election_asks_first_and_goes_on_with_whoever_answered():
    config = {"unclean.leader.election.enable": "true"}
    dead = STATE._replace(leader=-1, last_leader=1, isr=(1,), broker_epochs=(10,))
    at = image(dead, live={2: 20, 3: 30}, config=config)
    state = review_state()
    findings = look(state, at)
    assert (findings.changes, sorted(findings.ask)) == ([], [2, 3])
    state.answered(3, 30, {(TOPIC, 0): LogEnd(4, 7)})
    assert look(state, at, 0.1).changes == []
    (led,) = after(look(state, at, ASK_AGAIN_S))
    assert (led.leader, led.isr) == (3, (3,))
    # Nobody to ask: at once.
    (led,) = after(look(review_state(can_ask=False), at))
    assert led.leader == 2


def test_a_broker_that_is_leaving_is_not_elected_while_another_can_be():
    state = review_state()
    look(state, image(STATE))
    state.leaving[2] = 20
    (led,) = after(look(state, image(STATE, live={2: 20, 3: 30})))
    assert led.leader == 3
    state = review_state()
    look(state, image(STATE))
    state.leaving[2] = 20
    only = STATE._replace(isr=(1, 2), broker_epochs=(10, 20))
    (led,) = after(look(state, image(only, live={2: 20, 3: 30})))
    assert led.leader == 2
    # Registered anew it is a broker as any other.
    look(state, image(STATE, live={**ALL, 2: 21}))
    assert state.leaving == {}


def test_leaders_are_handed_over_as_far_as_somebody_else_can_lead():
    state = review_state()
    alone = STATE._replace(isr=(1,), broker_epochs=(10,))
    follower = STATE._replace(leader=2)
    at = image(STATE, alone, follower)
    state.leaving[1] = 10
    changes = {one.partition: one.after for one in state.handing_over(at, 1)}
    assert changes.keys() == {0, 2}
    assert (changes[0].leader, changes[0].isr) == (2, (2, 3))
    assert (changes[2].leader, changes[2].isr) == (2, (2, 3))
    state.leaving[2] = 20
    assert next(one.after.leader for one in state.handing_over(at, 1)) == 3


def test_a_last_replica_standing_takes_no_leadership_from_a_leader_that_stops():
    # Broker 2 is back, but not in sync yet: what acks=1 acknowledged may be on broker 1 only.
    standing = STATE._replace(isr=(1,), broker_epochs=(10,), elr=(2,), elr_epochs=(20,))
    state = review_state()
    state.leaving[1] = 10
    assert state.handing_over(image(standing), 1) == []
    state.leaving |= {2: 20, 3: 30}
    assert state.handing_over(image(standing), 1) == []
    # Once it has gone, the last replica standing leads.
    (led,) = after(look(review_state(), image(standing, live={2: 20, 3: 30})))
    assert led.leader == 2


def test_preferred_leaders_lead_again_where_more_than_a_share_is_led_by_others():
    elsewhere = STATE._replace(leader=2)
    few = image(*[STATE] * 9, elsewhere)
    state = review_state()
    assert state.rebalancing(few) == []
    many = image(*[STATE] * 8, elsewhere, elsewhere)
    assert {one.partition: one.after.leader for one in state.rebalancing(many)} == {8: 1, 9: 1}
    out_of_sync = elsewhere._replace(isr=(2, 3), broker_epochs=(20, 30))
    assert state.rebalancing(image(out_of_sync)) == []
    state.leaving[1] = 10
    assert state.rebalancing(many) == []


def test_safety_17_leaderless_partitions_come_first():
    led_elsewhere = STATE._replace(leader=2)
    findings = look(review_state(), image(led_elsewhere, STATE, live={2: 20, 3: 30}))
    assert [change.partition for change in findings.changes] == [1, 0]


def test_safety_17_more_than_half_missing_is_waited_for_as_long_as_a_session():
    state = review_state(wait_s=10)
    look(state, image(STATE))
    one_left = image(STATE, live={3: 30})
    findings = look(state, one_left, 100.0)
    assert (findings.changes, findings.again_at_s) == ([], 110.0)
    assert look(state, one_left, 109.9).changes == []
    # They are back: nothing was shrunk, nothing moved.
    assert look(state, image(STATE), 109.9).changes == []
    findings = look(state, one_left, 200.0)
    assert findings.again_at_s == 210.0
    (led,) = after(look(state, one_left, 210.0))
    assert (led.leader, led.isr) == (3, (3,))
    assert set(led.elr) == {1, 2}


def test_safety_17_half_of_them_missing_is_acted_on_at_once():
    assert StormState(10).acts_at_s({1, 2}, {1}, 5.0) == 5.0
    assert StormState(10).acts_at_s({1, 2, 3}, {1}, 5.0) == 15.0


def test_safety_17_an_isr_without_a_live_member_is_not_shrunk():
    nobody = image(STATE, live={4: 40, 5: 50, 6: 60, 7: 70})
    (dead,) = after(look(review_state(), nobody))
    assert (dead.leader, dead.isr, dead.broker_epochs) == (-1, (1, 2, 3), (10, 20, 30))


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(0, 450),
    replicas=st.integers(1, 300),
)
def test_safety_17_and_18_batches_are_small_enough_for_a_multi(count, replicas):
    ids = tuple(range(replicas))
    big = PartitionState(0, 0, ids, ids, ids, elr=ids, elr_epochs=ids)
    topic = TopicImage("t", TOPIC, (big,) * count, {}, 0)
    changes = [PartitionChange(topic, number, big, big) for number in range(count)]
    made = list(batches(changes))
    assert [change for batch in made for change in batch.changes] == changes
    for batch in made:
        assert len(batch.changes) <= BATCH
        chain = [store.Check("/controller/epoch", 0), store.Set("/controller/seq", b"x" * 16, 0)]
        store.check_multi([*chain, *feed.with_entry(batch.operations)])


@pytest.mark.parametrize("slots", [1, 500, 10_000])
def test_safety_18_slots_are_written_in_pieces_that_fit(slots):
    writes = [store.Set(f"/slots/{number}", b"x" * 40, 0) for number in range(slots)]
    made = list(chunks(writes))
    assert [one for write in made for one in write] == writes
    for write in made:
        chain = [store.Check("/controller/epoch", 0), store.Set("/controller/seq", b"x" * 16, 0)]
        store.check_multi([*chain, *write, store.Create("/feed/e-", b"x" * 256 * 1024)])
