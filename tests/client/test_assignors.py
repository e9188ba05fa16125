"""Assignors: every partition to one subscriber, balanced, and (sticky ones) with few moves."""

from __future__ import annotations

import itertools
import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.client.assignors import (
    ASSIGNORS,
    Assignment,
    CooperativeStickyAssignor,
    Members,
    MemberSubscription,
    RangeAssignor,
    RoundRobinAssignor,
    StickyAssignor,
    assignors_named,
)
from trioq.client.sticky_user_data import decode_sticky, encode_sticky
from trioq.errors import ConfigError
from trioq.types import TopicPartition

TOPICS = ("a", "b", "c", "d")
MEMBERS = tuple(f"member-{number}" for number in range(6))

counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 9))
subscriptions = st.dictionaries(
    st.sampled_from(MEMBERS), st.frozensets(st.sampled_from(TOPICS)), min_size=1
)
partitions = st.builds(TopicPartition, st.sampled_from(TOPICS), st.integers(0, 10))


def plain(subscribed: dict[str, frozenset[str]]) -> dict[str, MemberSubscription]:
    return {member: MemberSubscription(topics) for member, topics in subscribed.items()}


def numbers(assignment: Assignment, member: str) -> list[str]:
    return [str(partition) for partition in assignment[member]]


def check_complete(
    partition_counts: dict[str, int], members: Members, assignment: Assignment
) -> None:
    """Every partition that somebody subscribes to is given out once, to a subscriber."""
    given_out = Counter(itertools.chain.from_iterable(assignment.values()))
    assert set(given_out.values()) <= {1}
    subscribed = frozenset().union(*(member.topics for member in members.values()))
    assert set(given_out) == {
        TopicPartition(topic, number)
        for topic, count in partition_counts.items()
        if topic in subscribed
        for number in range(count)
    }
    assert assignment.keys() == members.keys()
    for member, owned in assignment.items():
        assert {partition.topic for partition in owned} <= members[member].topics


def check_balanced(members: Members, assignment: Assignment) -> None:
    """Nobody could take over a partition from a member that has two more."""
    for giver, owned in assignment.items():
        for taker, subscription in members.items():
            movable = [one for one in owned if one.topic in subscription.topics]
            assert len(owned) - len(assignment[taker]) < 2 or not movable, (giver, taker)


@given(partition_counts=counts, subscribed=subscriptions, name=st.sampled_from(sorted(ASSIGNORS)))
def test_every_partition_goes_to_one_subscriber(
    partition_counts: dict[str, int], subscribed: dict[str, frozenset[str]], name: str
) -> None:
    members = plain(subscribed)
    check_complete(partition_counts, members, ASSIGNORS[name].assign(partition_counts, members))


def test_range_as_in_java() -> None:
    members = plain({"y": frozenset({"t", "u"}), "x": frozenset({"t", "u"}), "z": frozenset({"t"})})
    assignment = RangeAssignor().assign({"t": 7, "u": 3}, members)
    assert numbers(assignment, "x") == ["t-0", "t-1", "t-2", "u-0", "u-1"]
    assert numbers(assignment, "y") == ["t-3", "t-4", "u-2"]
    assert numbers(assignment, "z") == ["t-5", "t-6"]


def test_static_members_come_first_by_instance_id() -> None:
    topics = frozenset({"t"})
    members = {
        "a": MemberSubscription(topics),
        "z": MemberSubscription(topics, instance_id="1"),
        "y": MemberSubscription(topics, instance_id="2"),
    }
    assignment = RangeAssignor().assign({"t": 4}, members)
    assert numbers(assignment, "z") == ["t-0", "t-1"]
    assert numbers(assignment, "y") == ["t-2"]
    assert numbers(assignment, "a") == ["t-3"]


def test_roundrobin_passes_over_who_does_not_subscribe() -> None:
    members = plain(
        {
            "x": frozenset({"t0"}),
            "y": frozenset({"t0", "t1"}),
            "z": frozenset({"t0", "t1", "t2"}),
        }
    )
    assignment = RoundRobinAssignor().assign({"t0": 1, "t1": 2, "t2": 3}, members)
    assert numbers(assignment, "x") == ["t0-0"]
    assert numbers(assignment, "y") == ["t1-0"]
    assert numbers(assignment, "z") == ["t1-1", "t2-0", "t2-1", "t2-2"]


@given(
    partition_counts=counts,
    subscribed=subscriptions,
    claims=st.dictionaries(
        st.sampled_from(MEMBERS), st.tuples(st.lists(partitions, max_size=8), st.integers(-1, 3))
    ),
)
def test_sticky_is_complete_and_balanced_whatever_is_claimed(
    partition_counts: dict[str, int],
    subscribed: dict[str, frozenset[str]],
    claims: dict[str, tuple[list[TopicPartition], int]],
) -> None:
    members = {
        member: MemberSubscription(
            topics, user_data=encode_sticky(*claims[member]) if member in claims else None
        )
        for member, topics in subscribed.items()
    }
    assignment = StickyAssignor().assign(partition_counts, members)
    check_complete(partition_counts, members, assignment)
    check_balanced(members, assignment)


def sticky_again(
    before: Assignment, members: dict[str, MemberSubscription]
) -> dict[str, MemberSubscription]:
    return {
        member: subscription._replace(user_data=encode_sticky(before.get(member, []), 1))
        for member, subscription in members.items()
    }


@given(partition_counts=counts, subscribed=subscriptions)
def test_sticky_moves_nothing_without_a_reason(
    partition_counts: dict[str, int], subscribed: dict[str, frozenset[str]]
) -> None:
    members = plain(subscribed)
    first = StickyAssignor().assign(partition_counts, members)
    assert StickyAssignor().assign(partition_counts, sticky_again(first, members)) == first


@given(
    partition_counts=counts,
    before=st.sets(st.sampled_from(MEMBERS), min_size=1),
    after=st.sets(st.sampled_from(MEMBERS), min_size=1),
)
def test_sticky_moves_no_more_than_balance_takes(
    partition_counts: dict[str, int], before: set[str], after: set[str]
) -> None:
    """Of members who subscribe to the same, who stays loses only what is above a fair share."""
    topics = frozenset(TOPICS)
    first = StickyAssignor().assign(partition_counts, plain(dict.fromkeys(sorted(before), topics)))
    members = plain(dict.fromkeys(sorted(after), topics))
    second = StickyAssignor().assign(partition_counts, sticky_again(first, members))
    share = sum(partition_counts.values()) // len(after)
    for member in before & after:
        kept = set(first[member]) & set(second[member])
        assert len(kept) >= min(len(first[member]), share)


@given(
    partition_counts=counts,
    rounds=st.lists(subscriptions, min_size=1, max_size=4),
)
def test_cooperative_never_gives_out_what_another_still_owns(
    partition_counts: dict[str, int], rounds: list[dict[str, frozenset[str]]]
) -> None:
    """Members come, go and resubscribe; after each change the group settles, with no overlap."""
    assignor = CooperativeStickyAssignor()
    owned: dict[str, list[TopicPartition]] = {}
    generation = 0
    for subscribed in rounds:
        owned = {member: owned.get(member, []) for member in subscribed}
        for _ in range(3):
            generation += 1
            members = {
                member: MemberSubscription(
                    topics,
                    owned=tuple(one for one in owned[member] if one.topic in topics),
                    generation=generation - 1,
                )
                for member, topics in subscribed.items()
            }
            assignment = assignor.assign(partition_counts, members)
            for member, target in assignment.items():
                others = itertools.chain.from_iterable(
                    other.owned for name, other in members.items() if name != member
                )
                assert not set(target) & set(others)
            gave_up = any(set(members[name].owned) - set(assignment[name]) for name in members)
            owned = {member: list(target) for member, target in assignment.items()}
            if not gave_up:
                break
        check_complete(partition_counts, members, assignment)
        check_balanced(members, assignment)


def test_cooperative_reads_the_generation_of_members_that_send_it_as_user_data() -> None:
    topics = frozenset({"t"})
    both = (TopicPartition("t", 0), TopicPartition("t", 1))
    members = {
        "old": MemberSubscription(topics, owned=both, user_data=struct.pack(">i", 1)),
        "new": MemberSubscription(topics, owned=both[:1], user_data=struct.pack(">i", 2)),
    }
    assignment = CooperativeStickyAssignor().assign({"t": 2}, members)
    assert assignment == {"old": [both[1]], "new": []}


def test_sticky_user_data_as_java_writes_it() -> None:
    data = encode_sticky([TopicPartition("t", 1), TopicPartition("t", 0)], 7)
    assert data.hex() == "000000010001" + b"t".hex() + "00000002000000000000000100000007"
    assert decode_sticky(data) == ((TopicPartition("t", 0), TopicPartition("t", 1)), 7)
    assert decode_sticky(data[:-4]) == ((TopicPartition("t", 0), TopicPartition("t", 1)), -1)


@given(st.binary(max_size=60))
def test_any_bytes_are_tolerated_as_user_data(data: bytes) -> None:
    topics = frozenset({"t"})
    for assignor in (StickyAssignor(), CooperativeStickyAssignor()):
        members = {"m": MemberSubscription(topics, user_data=data)}
        assert len(assignor.assign({"t": 3}, members)["m"]) == 3


def test_names_are_checked() -> None:
    assert [one.name for one in assignors_named(["range", RoundRobinAssignor()])] == [
        "range",
        "roundrobin",
    ]
    for names, message in (([], "no assignor"), (["best"], "'best'"), (["range"] * 2, "twice")):
        with pytest.raises(ConfigError, match=message):
            assignors_named(names)
