"""The assignors of the server: complete, balanced, sticky, and only what was subscribed to."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.coordinator.assignors import ASSIGNORS, Plan, Subscriber, assign_range, assign_uniform
from trioq.types import TopicId

TOPICS = [uuid.UUID(int=n + 1) for n in range(6)]
A, B, C = TOPICS[:3]


def members(*names: str, topics: tuple[TopicId, ...] = (A,)) -> list[Subscriber]:
    return [Subscriber(name, None, frozenset(topics), {}) for name in names]


def after(plan: Plan, subscribers: list[Subscriber]) -> list[Subscriber]:
    """The subscribers with the plan as their target."""
    return [s._replace(target=plan.get(s.member_id, {})) for s in subscribers]


def owners(plan: Plan) -> dict[tuple[TopicId, int], str]:
    found: dict[tuple[TopicId, int], str] = {}
    for member_id, assignment in plan.items():
        for topic_id, numbers in assignment.items():
            assert numbers, "no empty sets"
            for number in numbers:
                assert found.setdefault((topic_id, number), member_id) == member_id
    return found


def sizes(plan: Plan) -> dict[str, int]:
    counts = Counter(dict.fromkeys(plan, 0))
    counts.update(owners(plan).values())
    return counts


def moved(before: Plan, now: Plan) -> int:
    """How many partitions that somebody had went to somebody else."""
    had, has = owners(before), owners(now)
    return sum(1 for partition, owner in had.items() if has.get(partition, owner) != owner)


# Random groups.


@st.composite
def groups(
    draw: st.DrawFn, *, same_topics: bool = False
) -> tuple[list[Subscriber], dict[TopicId, int]]:
    counts = {t: draw(st.integers(1, 7)) for t in TOPICS[: draw(st.integers(1, 6))]}
    number = draw(st.integers(1, 7))
    some = st.frozensets(st.sampled_from(sorted(counts)))
    shared = draw(some)
    subscriptions = [shared if same_topics else draw(some) for _ in range(number)]
    subscribers = [
        Subscriber(f"m{i}", draw(st.none() | st.just(f"i{number - i}")), topics, {})
        for i, topics in enumerate(subscriptions)
    ]
    # A last plan of whatever kind: of topics that are gone, or not subscribed to any more.
    claims = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(TOPICS), st.integers(0, 9)), st.integers(0, number - 1)
        )
    )
    targets: list[dict[TopicId, frozenset[int]]] = [{} for _ in subscribers]
    for (topic_id, partition), index in claims.items():
        has = targets[index].get(topic_id, frozenset())
        targets[index][topic_id] = has | {partition}
    subscribers = [s._replace(target=t) for s, t in zip(subscribers, targets, strict=True)]
    wanted = frozenset().union(*subscriptions)
    return subscribers, {t: n for t, n in counts.items() if t in wanted}


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(group=groups())
def test_every_partition_goes_to_one_subscriber(
    name: str, group: tuple[list[Subscriber], dict[TopicId, int]]
) -> None:
    subscribers, counts = group
    plan = ASSIGNORS[name](subscribers, counts)
    assert list(plan) == [s.member_id for s in subscribers]
    assert owners(plan).keys() == {(t, p) for t, n in counts.items() for p in range(n)}
    for subscriber in subscribers:
        assert plan[subscriber.member_id].keys() <= subscriber.topics


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(group=groups())
def test_the_same_question_again_changes_nothing(
    name: str, group: tuple[list[Subscriber], dict[TopicId, int]]
) -> None:
    subscribers, counts = group
    plan = ASSIGNORS[name](subscribers, counts)
    again = ASSIGNORS[name](after(plan, subscribers), counts)
    assert all(again[member_id] is assignment for member_id, assignment in plan.items())


@given(group=groups(same_topics=True))
def test_uniform_differs_by_one_at_most_and_moves_no_more_than_it_must(
    group: tuple[list[Subscriber], dict[TopicId, int]],
) -> None:
    subscribers, counts = group
    plan = assign_uniform(subscribers, counts)
    numbers = sizes(plan).values()
    assert max(numbers) - min(numbers) <= 1
    last = {
        s.member_id: {
            t: kept
            for t, numbers in s.target.items()
            if t in s.topics and (kept := numbers & frozenset(range(counts[t])))
        }
        for s in subscribers
    }
    each, extra = divmod(sum(counts.values()), len(subscribers))
    had = sorted(sizes(last).values(), reverse=True)
    must = sum(max(0, n - each - (i < extra)) for i, n in enumerate(had))
    assert moved(last, plan) == must


@given(group=groups())
def test_uniform_leaves_no_single_move_that_would_balance(
    group: tuple[list[Subscriber], dict[TopicId, int]],
) -> None:
    subscribers, counts = group
    plan = assign_uniform(subscribers, counts)
    numbers = sizes(plan)
    for (topic_id, _), owner in owners(plan).items():
        for other in subscribers:
            if topic_id in other.topics:
                assert numbers[owner] - numbers[other.member_id] <= 1


@given(group=groups())
def test_range_gives_neighbours_in_order(
    group: tuple[list[Subscriber], dict[TopicId, int]],
) -> None:
    subscribers, counts = group
    plan = assign_range(subscribers, counts)
    for topic_id, count in counts.items():
        those = [s for s in subscribers if topic_id in s.topics]
        those.sort(key=lambda s: (s.instance_id is None, s.instance_id or s.member_id))
        parts = [sorted(plan[s.member_id].get(topic_id, ())) for s in those]
        assert [p for part in parts for p in part] == list(range(count))
        lengths = list(map(len, parts))
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] - lengths[-1] <= 1


# Examples.


def test_nobody_is_given_nothing() -> None:
    assert assign_uniform([], {}) == {}
    assert assign_range([], {}) == {}
    assert assign_uniform(members("a", topics=()), {}) == {"a": {}}


def test_range_gives_the_same_numbers_of_topics_that_are_alike() -> None:
    plan = assign_range(members("a", "b", topics=(A, B)), {A: 3, B: 3})
    assert plan == {
        "a": {A: frozenset({0, 1}), B: frozenset({0, 1})},
        "b": {A: frozenset({2}), B: frozenset({2})},
    }


def test_range_knows_static_members_by_their_instance_id() -> None:
    first = [Subscriber("a", "two", frozenset({A}), {}), Subscriber("b", "one", frozenset({A}), {})]
    again = [Subscriber("y", "two", frozenset({A}), {}), Subscriber("x", "one", frozenset({A}), {})]
    before, now = assign_range(first, {A: 4}), assign_range(again, {A: 4})
    assert now["x"] == before["b"] == {A: frozenset({0, 1})}
    assert now["y"] == before["a"]


def test_uniform_gives_a_second_member_half_of_what_the_first_had() -> None:
    (a,) = after(assign_uniform(members("a"), {A: 6}), members("a"))
    plan = assign_uniform([a, *members("b")], {A: 6})
    assert sizes(plan) == {"a": 3, "b": 3}
    assert plan["a"][A] < a.target[A]


def test_uniform_spreads_each_topic_over_the_members() -> None:
    plan = assign_uniform(members("a", "b", topics=(A, B, C)), {A: 4, B: 4, C: 4})
    for assignment in plan.values():
        assert {t: len(numbers) for t, numbers in assignment.items()} == {A: 2, B: 2, C: 2}


def test_uniform_gives_topics_of_one_subscriber_to_it_and_the_rest_to_others() -> None:
    subscribers = [*members("a", topics=(A, B)), *members("b", topics=(B,))]
    plan = assign_uniform(subscribers, {A: 4, B: 6})
    assert sizes(plan) == {"a": 5, "b": 5}


def test_two_that_claim_the_same_partition_do_not_both_keep_it() -> None:
    both = {A: frozenset({0, 1})}
    subscribers = [s._replace(target=both) for s in members("a", "b")]
    plan = assign_uniform(subscribers, {A: 2})
    assert sizes(plan) == {"a": 1, "b": 1}


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@pytest.mark.parametrize("alike", [True, False])
def test_a_thousand_members_with_ten_thousand_partitions(name: str, alike: bool) -> None:
    topics = [uuid.UUID(int=n) for n in range(100)]
    subscribers = [
        Subscriber(f"m{i}", None, frozenset(topics if alike else topics[i % 3 :: 3]), {})
        for i in range(1000)
    ]
    counts = dict.fromkeys(topics, 100)
    plan = ASSIGNORS[name](subscribers, counts)
    assert len(owners(plan)) == 10_000
    if name == "uniform":
        assert set(sizes(plan).values()) <= ({10} if alike else {9, 10, 11})
