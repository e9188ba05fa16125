"""Committed offsets in memory: changes, expiry, clamping; and how changes share a write."""

from __future__ import annotations

import uuid
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.coordinator.offset_requests import NewOffset
from trioq.coordinator.offsets import Expiry, OffsetTable, changes_of, forgetting
from trioq.coordinator.stored_group import HEAD, STEP_OPERATIONS, StoredNodes
from trioq.coordinator.write_batch import Batch, GroupChange, OffsetChange, Removal
from trioq.errors import InvalidCommitOffsetSize, UnknownServerError
from trioq.metastore.group_layout import ClassicGroup, CommittedOffset, OffsetsKey

ORDERS, PAYMENTS = uuid.UUID(int=1), uuid.UUID(int=2)
NOW_MS = 1_700_000_000_000


class Group:
    """A group as its writer sees it."""

    def __init__(self, name: str = "g") -> None:
        self.nodes = StoredNodes(f"/slots/0/groups/{name}")
        self.offsets = OffsetTable()
        self.stored = ClassicGroup(name, None, 0, None, None, "Empty", NOW_MS)
        self.settled_changes = []

    def snapshot(self):
        return self.stored

    def settled(self, change):
        self.settled_changes.append(change)


def new_offset(partition, offset, metadata="", topic_id=ORDERS, epoch=3):
    return NewOffset(topic_id, partition, offset, epoch, metadata)


def commit(group, *offsets, expire_ms=None, now_ms=NOW_MS):
    return OffsetChange(group, changes_of(offsets, now_ms, expire_ms))


def write(*changes):
    """Write changes in as many batches as it takes; the steps of each."""
    queue = deque(changes)
    steps = []
    while queue:
        batch = Batch()
        batch.take_from(queue)
        for step in batch.steps:
            for nodes, one in step:
                nodes.operation(one)
                nodes.done(one)
        steps.append(batch.steps)
        batch.apply()
    return steps


def orders(group):
    return {number: one.offset for number, one in group.offsets.fetch(None)[ORDERS].items()}


def told(change):
    answers = []
    change.waiters.append(answers.append)
    return answers


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ORDERS, PAYMENTS]),
            st.integers(0, 700),
            st.integers(0, 2**60),
            st.sampled_from(["", "m", 'q"ü\\\n']),
        ),
        max_size=30,
    ),
    st.none() | st.integers(0, 2**45),
)
def test_what_is_committed_is_fetched(entries, expire_ms):
    group = Group()
    offsets = [
        NewOffset(topic, partition, offset, 7, text) for topic, partition, offset, text in entries
    ]
    write(OffsetChange(group, changes_of(offsets, NOW_MS, expire_ms)))
    expected = {}
    for topic, partition, offset, text in entries:
        committed = CommittedOffset(offset, 7, text, NOW_MS, expire_ms)
        expected.setdefault(topic, {})[partition] = committed
    assert group.offsets.fetch(None) == expected
    asked = {topic: [*found, 999] for topic, found in expected.items()}
    assert group.offsets.fetch(asked) == expected
    assert group.offsets.fetch({uuid.UUID(int=9): [1]}) == {}
    assert group.offsets.count() == sum(map(len, expected.values()))


def test_offsets_that_are_forgotten_are_gone_with_their_node():
    group = Group()
    write(commit(group, new_offset(0, 1), new_offset(300, 2)))
    assert group.nodes.existing == {HEAD, f"o-{ORDERS.hex}-0", f"o-{ORDERS.hex}-1"}
    write(OffsetChange(group, forgetting({ORDERS: [300, 5], PAYMENTS: [1]})))
    assert group.nodes.existing == {HEAD, f"o-{ORDERS.hex}-0"}
    assert list(group.offsets.fetch(None)[ORDERS]) == [0]
    assert group.offsets.topic_ids() == {ORDERS}


def test_one_write_carries_what_waited_of_all_groups_and_encodes_a_shard_once():
    groups = [Group(f"g{number}") for number in range(5)]
    changes = [
        commit(group, new_offset(n, round_))
        for round_ in (1, 2)
        for group in groups
        for n in range(4)
    ]
    answers = [told(change) for change in changes]
    ((step,),) = write(*changes)
    assert sorted(one.name for _, one in step) == sorted([HEAD, f"o-{ORDERS.hex}-0"] * 5)
    assert answers == [[None]] * len(changes)
    assert all(group.offsets.fetch(None)[ORDERS][3].offset == 2 for group in groups)


def test_what_does_not_fit_waits_for_the_next_write():
    group = Group()
    topics = [uuid.UUID(int=number) for number in range(1, 1_200)]
    big = commit(group, *(new_offset(0, 1, topic_id=topic) for topic in topics))
    late = commit(group, new_offset(0, 2, topic_id=topics[0]))
    answers = told(big)
    steps = write(big, late)
    assert len(steps) == 3
    assert all(len(step) <= STEP_OPERATIONS for batch in steps for step in batch)
    assert answers == [None]
    assert len(group.offsets.fetch(None)) == len(topics)
    assert group.offsets.fetch(None)[topics[0]][0].offset == 2


def test_safety_18_a_shard_that_no_multi_could_carry_is_refused():
    group = Group()
    changes = [commit(group, new_offset(n, 1, "x" * 16_000)) for n in range(40)]
    answers = [told(change) for change in changes]
    write(*changes)
    outcomes = [type(answer[0]) for answer in answers]
    assert set(outcomes) == {type(None), InvalidCommitOffsetSize}
    accepted = [n for n, outcome in enumerate(outcomes) if outcome is type(None)]
    assert list(group.offsets.fetch(None)[ORDERS]) == accepted
    fits = commit(group, new_offset(39, 5))
    answers = told(fits)
    write(fits)
    assert answers == [None]


def test_a_commit_that_nobody_waits_for_any_more_is_not_written():
    group = Group()
    change = commit(group, new_offset(0, 1))
    answers = told(change)
    change.give_up(UnknownServerError())
    assert write(change) == [[]]
    assert isinstance(answers[0], UnknownServerError)
    assert group.offsets.fetch(None) == {}
    assert group.settled_changes == [change]


def test_upkeep_changes_only_what_is_as_it_was():
    """A commit that waits while an offset expires is kept."""
    group = Group()
    write(commit(group, new_offset(0, 1), new_offset(1, 1)))
    expiry = Expiry(NOW_MS + 1_000, 500, 0)
    expired = group.offsets.expired(expiry)
    assert sum(map(len, expired.values())) == 2
    forget = OffsetChange(group, expired, group.offsets.entries_at(expired))
    write(commit(group, new_offset(0, 9)), forget)
    assert {number: one.offset for number, one in group.offsets.fetch(None)[ORDERS].items()} == {
        0: 9
    }


def test_a_removal_and_what_comes_after_it_keep_their_order():
    group = Group()
    write(commit(group, new_offset(0, 1), new_offset(1, 1)))
    before, removal, after = (
        commit(group, new_offset(0, 2)),
        Removal(group),
        commit(group, new_offset(1, 3)),
    )
    steps = write(before, removal, GroupChange(group), after)
    assert len(steps) == 3
    assert {number: one.offset for number, one in group.offsets.fetch(None)[ORDERS].items()} == {
        1: 3
    }
    write(Removal(group))
    assert group.nodes.existing == set()
    assert not group.offsets


@pytest.mark.parametrize(
    ("now", "since", "explicit", "kept", "is_over"),
    [
        (99, 0, None, False, False),
        (100, 0, None, False, True),
        (149, 50, None, False, False),  # empty since 50: that counts, if it is later
        (150, 50, None, False, True),
        (1_000, None, None, False, False),  # an active group that nobody can tell of
        (1_000, 0, None, True, False),  # subscribed
        (9, None, 10, True, False),  # the client's own retention goes before everything
        (10, None, 10, True, True),
    ],
)
def test_expiry_follows_kip_211(now, since, explicit, kept, is_over):
    committed = CommittedOffset(1, 0, "", 0, explicit)
    expiry = Expiry(now, 100, since, frozenset({ORDERS} if kept else ()))
    assert expiry.is_over(ORDERS, committed) is is_over


def test_safety_4_offsets_above_the_end_of_their_log_are_set_to_it():
    group = Group()
    write(commit(group, new_offset(0, 10, "note"), new_offset(1, 10), new_offset(2, 10)))
    ends = {0: 7, 1: 10}
    changes = group.offsets.clamped(lambda topic_id, partition: ends.get(partition))
    write(OffsetChange(group, changes))
    found = group.offsets.fetch(None)[ORDERS]
    assert found[0] == CommittedOffset(7, -1, "note", NOW_MS)
    assert (found[1].offset, found[1].leader_epoch) == (10, 3)
    assert found[2].offset == 10, "a log that is not led here is not looked at"


def test_offsets_of_deleted_topics_are_found():
    group = Group()
    write(commit(group, new_offset(0, 1), new_offset(5, 1, topic_id=PAYMENTS)))
    changes = group.offsets.without_topics(lambda topic_id: topic_id == ORDERS)
    assert changes == {OffsetsKey(PAYMENTS, 0): {5: None}}
