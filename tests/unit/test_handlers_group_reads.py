"""The handlers of committed offsets and of groups as a whole, and who coordinates a group."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.groups_support import (
    GONE,
    ORDERS,
    Exchange,
    ScriptedGroups,
    answered,
    answered_by_task,
    group_context,
)
from trioq.coordinator.consumer_requests import ConsumerGroupDescription, ConsumerGroupPhase
from trioq.coordinator.group_requests import GroupDescription, MemberDescription
from trioq.coordinator.offset_requests import CommitRequest, GroupOverview, NewOffset
from trioq.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    GroupIdNotFound,
    GroupSubscribedToTopic,
    NonEmptyGroup,
    RebalanceInProgress,
    StaleMemberEpoch,
)
from trioq.metastore.group_layout import CommittedOffset, ConsumerGroup, ConsumerMember
from trioq.server.handlers.consumer_group_describe import handle_consumer_group_describe
from trioq.server.handlers.delete_groups import handle_delete_groups
from trioq.server.handlers.describe_groups import handle_describe_groups
from trioq.server.handlers.find_coordinator import handle_find_coordinator
from trioq.server.handlers.list_groups import handle_list_groups
from trioq.server.handlers.offset_commit import handle_offset_commit
from trioq.server.handlers.offset_delete import handle_offset_delete
from trioq.server.handlers.offset_fetch import handle_offset_fetch
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from trioq.wire.messages.delete_groups import DeleteGroupsRequest
from trioq.wire.messages.describe_groups import DescribeGroupsRequest
from trioq.wire.messages.find_coordinator import FindCoordinatorRequest
from trioq.wire.messages.list_groups import ListGroupsRequest
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
)

UNKNOWN_TOPIC, METADATA_TOO_LARGE, INVALID_GROUP_ID, GROUP_ID_NOT_FOUND = 3, 12, 24, 69
ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
NOT_ASKED = -(1 << 31)


def commit_message(version: int) -> OffsetCommitRequest:
    partitions = [
        OffsetCommitRequestPartition(partition_index=0, committed_offset=5, committed_metadata="m"),
        OffsetCommitRequestPartition(partition_index=2, committed_offset=6),
        OffsetCommitRequestPartition(partition_index=3, committed_offset=7),
        OffsetCommitRequestPartition(partition_index=-1, committed_offset=7),
        OffsetCommitRequestPartition(partition_index=1, committed_offset=-2),
        OffsetCommitRequestPartition(partition_index=1, committed_metadata="ü" * 129),
    ]
    if version >= 6:
        partitions[0].committed_leader_epoch = 9
    other = OffsetCommitRequestTopic(name="none", partitions=[OffsetCommitRequestPartition()])
    return OffsetCommitRequest(
        group_id="g",
        generation_id_or_member_epoch=2,
        member_id="m",
        group_instance_id="static" if version >= 7 else None,
        retention_time_ms=60_000 if version <= 4 else -1,
        topics=[OffsetCommitRequestTopic(name="orders", partitions=partitions), other],
    )


def codes(answer: Any) -> list[tuple[str, list[tuple[int, int]]]]:
    return [
        (topic.name, [(one.partition_index, one.error_code) for one in topic.partitions])
        for topic in answer.topics
    ]


@pytest.mark.parametrize("version", range(2, 10))
def test_commit_hands_over_what_can_be_committed(version: int) -> None:
    groups = ScriptedGroups()
    exchange = Exchange(ApiKey.OFFSET_COMMIT, version, commit_message(version))
    assert exchange.handle(handle_offset_commit, group_context(groups)) is None
    assert groups.asked == [
        (
            "commit_offsets",
            CommitRequest(
                group_id="g",
                generation=2,
                member_id="m",
                instance_id="static" if version >= 7 else None,
                offsets=[
                    NewOffset(ORDERS, 0, 5, 9 if version >= 6 else -1, "m"),
                    NewOffset(ORDERS, 2, 6, -1, ""),
                    NewOffset(ORDERS, 1, -2, -1, ""),  # how kafkajs resets to the earliest
                ],
                retention_ms=60_000 if version <= 4 else None,
            ),
        )
    ]
    groups.replies[0](None)
    refused = [(3, UNKNOWN_TOPIC), (-1, UNKNOWN_TOPIC)]
    assert codes(exchange.answer()) == [
        ("orders", [(0, 0), (2, 0), *refused, (1, 0), (1, METADATA_TOO_LARGE)]),
        ("none", [(0, UNKNOWN_TOPIC)]),
    ]


@pytest.mark.parametrize(
    ("version", "error", "code"),
    [
        (2, RebalanceInProgress(), 27),
        (9, CoordinatorNotAvailable(), 15),
        (9, StaleMemberEpoch(), 113),
        (8, StaleMemberEpoch(), 35),
    ],
)
def test_commit_that_the_group_refuses(version: int, error: Any, code: int) -> None:
    groups = ScriptedGroups(commit_offsets=error)
    exchange = Exchange(ApiKey.OFFSET_COMMIT, version, commit_message(version))
    orders, none = codes(exchange.handle(handle_offset_commit, group_context(groups)))
    assert orders[1][:3] == [(0, code), (2, code), (3, UNKNOWN_TOPIC)]
    assert none == ("none", [(0, UNKNOWN_TOPIC)])


def test_commit_with_nothing_to_commit_asks_nobody() -> None:
    groups = ScriptedGroups()
    exchange = Exchange(ApiKey.OFFSET_COMMIT, 8, OffsetCommitRequest(group_id="g"))
    assert codes(exchange.handle(handle_offset_commit, group_context(groups))) == []
    assert groups.asked == []


def test_commit_without_a_group() -> None:
    groups = ScriptedGroups()
    message = commit_message(8)
    message.group_id = ""
    exchange = Exchange(ApiKey.OFFSET_COMMIT, 8, message)
    orders, _ = codes(exchange.handle(handle_offset_commit, group_context(groups)))
    assert orders[1][:3] == [(0, INVALID_GROUP_ID), (2, INVALID_GROUP_ID), (3, UNKNOWN_TOPIC)]
    assert groups.asked == []


def test_metadata_is_bounded_by_the_configuration() -> None:
    groups = ScriptedGroups(commit_offsets=None)
    ctx = group_context(groups, **{"offset.metadata.max.bytes": "258"})
    exchange = Exchange(ApiKey.OFFSET_COMMIT, 8, commit_message(8))
    orders, _ = codes(exchange.handle(handle_offset_commit, ctx))
    assert orders[1][-1] == (1, 0)


COMMITTED = {
    ORDERS: {2: CommittedOffset(6, -1, "", 0), 0: CommittedOffset(5, 9, "m", 0)},
    GONE: {0: CommittedOffset(1, -1, "", 0)},
}
TOPICS = [
    OffsetFetchRequestTopic(name="orders", partition_indexes=[1, 0]),
    OffsetFetchRequestTopic(name="none", partition_indexes=[4]),
]


def fetched(topics: Any) -> list[tuple[Any, ...]]:
    return [
        (topic.name, one.partition_index, one.committed_offset, one.metadata, one.error_code)
        for topic in topics
        for one in topic.partitions
    ]


@pytest.mark.parametrize("version", range(1, 8))
def test_fetch_of_one_group(version: int) -> None:
    groups = ScriptedGroups(fetch_offsets=COMMITTED)
    message = OffsetFetchRequest(group_id="g", topics=TOPICS, require_stable=version >= 7)
    answer = answered(
        ApiKey.OFFSET_FETCH, version, message, handle_offset_fetch, group_context(groups)
    )
    assert groups.asked == [("fetch_offsets", "g", None, -1, {ORDERS: [1, 0]}, version >= 7)]
    assert fetched(answer.topics) == [
        ("orders", 1, -1, "", 0),
        ("orders", 0, 5, "m", 0),
        ("none", 4, -1, "", 0),
    ]
    assert answer.error_code == 0
    epochs = [one.committed_leader_epoch for one in answer.topics[0].partitions]
    assert epochs == ([-1, 9] if version >= 5 else [-1, -1])


@pytest.mark.parametrize("version", [1, 9])
def test_fetch_that_names_a_topic_twice(version: int) -> None:
    groups = ScriptedGroups(fetch_offsets=COMMITTED)
    topics = [OffsetFetchRequestTopic(name="orders", partition_indexes=[one]) for one in (0, 2)]
    message = OffsetFetchRequest(group_id="g", topics=topics)
    if version >= 8:
        message = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=topics)])
    answer = answered(
        ApiKey.OFFSET_FETCH, version, message, handle_offset_fetch, group_context(groups)
    )
    assert groups.asked == [("fetch_offsets", "g", None, -1, {ORDERS: [0, 2]}, False)]
    found = answer.groups[0].topics if version >= 8 else answer.topics
    assert fetched(found) == [("orders", 0, 5, "m", 0), ("orders", 2, 6, "", 0)]


@pytest.mark.parametrize("version", range(2, 8))
def test_fetch_of_everything(version: int) -> None:
    groups = ScriptedGroups(fetch_offsets=COMMITTED)
    message = OffsetFetchRequest(group_id="g", topics=None)
    answer = answered(
        ApiKey.OFFSET_FETCH, version, message, handle_offset_fetch, group_context(groups)
    )
    assert groups.asked == [("fetch_offsets", "g", None, -1, None, False)]
    assert fetched(answer.topics) == [("orders", 0, 5, "m", 0), ("orders", 2, 6, "", 0)]


@pytest.mark.parametrize("version", range(1, 8))
def test_fetch_that_concerns_the_group(version: int) -> None:
    groups = ScriptedGroups(fetch_offsets=CoordinatorLoadInProgress())
    message = OffsetFetchRequest(group_id="g", topics=TOPICS)
    answer = answered(
        ApiKey.OFFSET_FETCH, version, message, handle_offset_fetch, group_context(groups)
    )
    if version >= 2:
        assert (answer.error_code, answer.topics) == (14, [])
    else:
        assert fetched(answer.topics) == [
            ("orders", 1, -1, "", 14),
            ("orders", 0, -1, "", 14),
            ("none", 4, -1, "", 14),
        ]


@pytest.mark.parametrize("version", [8, 9])
def test_fetch_of_many_groups(version: int) -> None:
    def answer_for(group_id: str, *_: Any) -> Any:
        return StaleMemberEpoch() if group_id == "stale" else COMMITTED

    groups = ScriptedGroups(fetch_offsets=answer_for)
    message = OffsetFetchRequest(
        groups=[
            OffsetFetchRequestGroup(group_id="g", topics=TOPICS),
            OffsetFetchRequestGroup(group_id="all", topics=None),
            OffsetFetchRequestGroup(group_id="stale", topics=None),
            OffsetFetchRequestGroup(group_id="", topics=None),
        ]
    )
    if version >= 9:
        message.groups[0].member_id, message.groups[0].member_epoch = "m", 3
    answer = answered(
        ApiKey.OFFSET_FETCH, version, message, handle_offset_fetch, group_context(groups)
    )
    member = ("m", 3) if version >= 9 else (None, -1)
    assert groups.asked == [
        ("fetch_offsets", "g", *member, {ORDERS: [1, 0]}, False),
        ("fetch_offsets", "all", None, -1, None, False),
        ("fetch_offsets", "stale", None, -1, None, False),
    ]
    assert [(one.group_id, one.error_code) for one in answer.groups] == [
        ("g", 0),
        ("all", 0),
        ("stale", 113),
        ("", INVALID_GROUP_ID),
    ]
    assert len(fetched(answer.groups[0].topics)) == 3
    assert fetched(answer.groups[1].topics) == [("orders", 0, 5, "m", 0), ("orders", 2, 6, "", 0)]
    assert answer.groups[2].topics == []


def delete_message() -> OffsetDeleteRequest:
    partitions = [OffsetDeleteRequestPartition(partition_index=n) for n in (0, 3, 0)]
    return OffsetDeleteRequest(
        group_id="g",
        topics=[
            OffsetDeleteRequestTopic(name="orders", partitions=partitions),
            OffsetDeleteRequestTopic(name="none", partitions=partitions[:1]),
        ],
    )


@pytest.mark.parametrize("error", [None, GroupSubscribedToTopic()])
def test_offset_delete(error: Any) -> None:
    groups = ScriptedGroups(delete_offsets={} if error is None else {ORDERS: error})
    ctx = group_context(groups)
    answer = answered_by_task(ApiKey.OFFSET_DELETE, 0, delete_message(), handle_offset_delete, ctx)
    assert groups.asked == [("delete_offsets", "g", {ORDERS: [0, 0]})]
    code = 0 if error is None else 86
    assert answer.error_code == 0
    assert codes(answer) == [
        ("orders", [(0, code), (3, UNKNOWN_TOPIC), (0, code)]),
        ("none", [(0, UNKNOWN_TOPIC)]),
    ]


def test_offset_delete_that_concerns_the_group() -> None:
    groups = ScriptedGroups(delete_offsets=GroupIdNotFound())
    ctx = group_context(groups)
    message = delete_message()
    answer = answered_by_task(ApiKey.OFFSET_DELETE, 0, message, handle_offset_delete, ctx)
    assert (answer.error_code, answer.topics) == (69, [])
    message.group_id = ""
    answer = answered_by_task(ApiKey.OFFSET_DELETE, 0, message, handle_offset_delete, ctx)
    assert answer.error_code == INVALID_GROUP_ID
    assert len(groups.asked) == 1


OVERVIEWS = [
    GroupOverview("a", "consumer", "Stable", "classic"),
    GroupOverview("b", "consumer", "Empty", "consumer"),
    GroupOverview("c", "connect", "Empty", "classic"),
]


@pytest.mark.parametrize("version", range(6))
def test_list_groups(version: int) -> None:
    ctx = group_context(ScriptedGroups(list_groups=OVERVIEWS))
    answer = answered(ApiKey.LIST_GROUPS, version, ListGroupsRequest(), handle_list_groups, ctx)
    assert [(one.group_id, one.protocol_type) for one in answer.groups] == [
        ("a", "consumer"),
        ("b", "consumer"),
        ("c", "connect"),
    ]
    states = ["Stable", "Empty", "Empty"] if version >= 4 else [""] * 3
    types = ["classic", "consumer", "classic"] if version >= 5 else [""] * 3
    assert [one.group_state for one in answer.groups] == states
    assert [one.group_type for one in answer.groups] == types


@pytest.mark.parametrize(
    ("states", "types", "expected"),
    [
        (["empty"], [], "bc"),
        (["Empty", "stable"], ["Classic"], "ac"),
        ([], ["consumer"], "b"),
        (["Nonsense"], [], ""),
        ([], ["share"], ""),
    ],
)
def test_filters_of_list_groups(states: list[str], types: list[str], expected: str) -> None:
    ctx = group_context(ScriptedGroups(list_groups=OVERVIEWS))
    message = ListGroupsRequest(states_filter=states, types_filter=types)
    answer = answered(ApiKey.LIST_GROUPS, 5, message, handle_list_groups, ctx)
    assert "".join(one.group_id for one in answer.groups) == expected


def test_list_groups_while_they_are_read() -> None:
    ctx = group_context(ScriptedGroups(list_groups=CoordinatorLoadInProgress()))
    answer = answered(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(), handle_list_groups, ctx)
    assert (answer.error_code, answer.groups) == (14, [])


@pytest.mark.parametrize("version", range(7))
def test_describe_groups(version: int) -> None:
    member = MemberDescription("m", "static", "client", "/127.0.0.1", b"meta", b"part")
    described = {
        "g": GroupDescription("g", "Stable", "consumer", "range", (member,)),
        "none": GroupIdNotFound(),
        "loading": CoordinatorLoadInProgress(),
    }
    ctx = group_context(ScriptedGroups(describe_group=described.get))
    message = DescribeGroupsRequest(
        groups=["g", "none", "loading", ""], include_authorized_operations=version >= 3
    )
    answer = answered(ApiKey.DESCRIBE_GROUPS, version, message, handle_describe_groups, ctx)
    there, none, loading, bad = answer.groups
    assert (there.error_code, there.group_id, there.group_state) == (0, "g", "Stable")
    assert (there.protocol_type, there.protocol_data) == ("consumer", "range")
    (told,) = there.members
    assert (told.member_id, told.client_id, told.client_host) == ("m", "client", "/127.0.0.1")
    assert (told.member_metadata, told.member_assignment) == (b"meta", b"part")
    assert told.group_instance_id == ("static" if version >= 4 else None)
    is_told = version >= 6
    assert (none.error_code, none.group_state, none.members) == (
        GROUP_ID_NOT_FOUND if is_told else 0, "Dead", []
    )  # fmt: skip
    assert (none.error_message is not None, there.error_message) == (is_told, None)
    assert (loading.error_code, loading.group_state) == (14, "")
    assert bad.error_code == INVALID_GROUP_ID
    operations = ALL_GROUP_OPERATIONS if version >= 3 else NOT_ASKED
    assert there.authorized_operations == none.authorized_operations == operations


@pytest.mark.parametrize("version", range(3))
def test_delete_groups(version: int) -> None:
    groups = ScriptedGroups(delete_groups={"a": None, "b": NonEmptyGroup()})
    ctx = group_context(groups)
    message = DeleteGroupsRequest(groups_names=["a", "", "b", "a"])
    answer = answered_by_task(ApiKey.DELETE_GROUPS, version, message, handle_delete_groups, ctx)
    assert groups.asked == [("delete_groups", ["a", "b"])]
    assert [(one.group_id, one.error_code) for one in answer.results] == [
        ("a", 0),
        ("", INVALID_GROUP_ID),
        ("b", 68),
    ]


@pytest.mark.parametrize("version", range(2))
def test_describe_consumer_groups(version: int) -> None:
    new = ConsumerMember(
        "n",
        None,
        "rack",
        "client",
        "/127.0.0.1",
        1000,
        4,
        3,
        "STABLE",
        subscribed_names=frozenset({"orders", "more"}),
        subscribed_regex="o.*",
        assigned={ORDERS: frozenset({2, 0})},
        target={ORDERS: frozenset({1}), GONE: frozenset({0})},
    )
    old = new._replace(member_id="o", classic_session_timeout_ms=6_000)
    group = ConsumerGroup("g", 5, 4, "uniform", 0, (new, old))
    described = {
        "g": ConsumerGroupDescription(ConsumerGroupPhase.RECONCILING, group),
        "none": GroupIdNotFound("there is no such group"),
    }
    ctx = group_context(ScriptedGroups(describe_consumer_group=described.get))
    message = ConsumerGroupDescribeRequest(
        group_ids=["g", "none", ""], include_authorized_operations=True
    )
    answer = answered(
        ApiKey.CONSUMER_GROUP_DESCRIBE, version, message, handle_consumer_group_describe, ctx
    )
    there, none, bad = answer.groups
    assert (there.error_code, there.group_state, there.assignor_name) == (
        0,
        "Reconciling",
        "uniform",
    )
    assert (there.group_epoch, there.assignment_epoch) == (5, 4)
    assert there.authorized_operations == ALL_GROUP_OPERATIONS
    first, second = there.members
    assert (first.member_id, first.rack_id, first.member_epoch) == ("n", "rack", 4)
    assert (first.subscribed_topic_names, first.subscribed_topic_regex) == (
        ["more", "orders"],
        "o.*",
    )
    for part, numbers in ((first.assignment, [0, 2]), (first.target_assignment, [1])):
        (topic,) = part.topic_partitions
        assert (topic.topic_id, topic.topic_name, topic.partitions) == (ORDERS, "orders", numbers)
    assert [first.member_type, second.member_type] == ([1, 0] if version >= 1 else [-1, -1])
    assert (none.error_code, none.error_message) == (69, "there is no such group")
    assert bad.error_code == INVALID_GROUP_ID


def find(ctx: Any, version: int, key_type: int, *keys: str) -> list[tuple[Any, ...]]:
    message = FindCoordinatorRequest(key_type=key_type)
    if version >= 4:
        message.coordinator_keys = list(keys)
    else:
        (message.key,) = keys
    answer = answered(ApiKey.FIND_COORDINATOR, version, message, handle_find_coordinator, ctx)
    found = answer.coordinators if version >= 4 else [answer]
    return [(one.node_id, one.host, one.port, one.error_code) for one in found]


@pytest.mark.parametrize("version", range(6))
def test_the_coordinator_of_a_group_is_who_leads_its_slot(version: int) -> None:
    leaders = {"here": 1, "elsewhere": 2}
    ctx = group_context(ScriptedGroups(leader_of=leaders.get))
    here, nowhere = (1, "localhost", 9092, 0), (-1, "", -1, 15)
    if version >= 4:
        asked = ("here", "elsewhere", "led by nobody")
        assert find(ctx, version, 0, *asked) == [here, nowhere, nowhere]
    else:
        assert find(ctx, version, 0, "here") == [here]
        assert find(ctx, version, 0, "elsewhere") == [nowhere]
        assert find(ctx, version, 0, "led by nobody") == [nowhere]


@pytest.mark.parametrize(("key_type", "code"), [(1, 53), (2, 42)])
def test_other_keys_have_no_coordinator(key_type: int, code: int) -> None:
    groups = ScriptedGroups()
    for version in (1, 4):
        answer = find(group_context(groups), version, key_type, "x")
        assert answer == [(-1, "", -1, code)]
    assert groups.asked == []
