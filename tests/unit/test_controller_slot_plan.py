"""The plan of slots: pure, so properties over all shapes of clusters."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trioq.controller.slot_plan import plan_slots, slot_writes
from trioq.metastore import store
from trioq.metastore.image import SlotImage
from trioq.metastore.layout import SlotState

slots = st.lists(
    st.builds(SlotImage, st.integers(-1, 5), st.integers(0, 2), st.integers(0, 9)), max_size=40
)
brokers = st.dictionaries(st.integers(0, 5), st.integers(0, 2), max_size=6)
leaving = st.sets(st.integers(0, 5), max_size=3)


def applied(before, plan) -> tuple[SlotImage, ...]:
    after = list(before)
    for number, state in plan.items():
        after[number] = SlotImage(*state, before[number].epoch + 1)
    return tuple(after)


def is_led(slot: SlotImage, live) -> bool:
    return live.get(slot.leader) == slot.broker_epoch


@given(slots, brokers, leaving, st.booleans())
def test_every_slot_gets_a_leader_that_stays_and_nothing_is_left_to_do(
    before, live, leaving, even_out
):
    plan = plan_slots(before, live, leaving=leaving, even_out=even_out)
    after = applied(before, plan)
    staying = {broker: epoch for broker, epoch in live.items() if broker not in leaving}
    if staying:
        assert all(is_led(slot, staying) for slot in after)
    else:
        assert not plan, "nobody could do better"
    assert not plan_slots(after, live, leaving=leaving, even_out=even_out)
    assert all((before[number][:2]) != tuple(state) for number, state in plan.items())


@given(slots, brokers, leaving)
def test_slots_are_even_with_as_few_moves_as_that_takes(before, live, leaving):
    staying = {broker: epoch for broker, epoch in live.items() if broker not in leaving}
    if not staying:
        return
    plan = plan_slots(before, live, leaving=leaving)
    counts = Counter(slot.leader for slot in applied(before, plan))
    assert max(counts[one] for one in staying) - min(counts[one] for one in staying) <= 1
    led = Counter(slot.leader for slot in before if is_led(slot, staying))
    share, remainder = divmod(len(before), len(staying))
    kept = 0
    for rank, count in enumerate(sorted((led[one] for one in staying), reverse=True)):
        kept += min(count, share + (rank < remainder))
    assert len(plan) == len(before) - kept


@given(slots, brokers)
def test_without_evening_out_no_slot_is_taken_from_a_live_leader(before, live):
    plan = plan_slots(before, live, even_out=False)
    assert all(not is_led(before[number], live) for number in plan)


def test_safety_6_a_leader_that_is_back_under_another_epoch_leads_by_a_new_state_only():
    """Even if nobody noticed that it was gone, and the list of ids never changed."""
    before = (SlotImage(1, 4, 7), SlotImage(2, 3, 1))
    assert plan_slots(before, {1: 5, 2: 3}) == {0: SlotState(1, 5)}


def test_a_broker_that_comes_takes_its_share_and_one_that_leaves_gives_all():
    alone = tuple(SlotImage(1, 0, 0) for _ in range(9))
    plan = plan_slots(alone, {1: 0, 2: 0, 3: 0})
    assert Counter(state.leader for state in plan.values()) == {2: 3, 3: 3}
    three = applied(alone, plan)
    plan = plan_slots(three, {1: 0, 2: 0, 3: 0}, leaving={1})
    assert {number for number, slot in enumerate(three) if slot.leader == 1} == set(plan)
    assert plan_slots(three, {1: 0}, leaving={1}) == {}


def test_writes_compare_with_the_epoch_that_was_seen():
    before = (SlotImage(1, 0, 3), SlotImage(2, 0, 8))
    plan = plan_slots(before, {1: 0, 3: 6})
    assert slot_writes(before, plan) == [store.Set("/slots/1", SlotState(3, 6).encode(), 8)]
