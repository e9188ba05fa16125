"""The handlers of membership: what they hand to the coordinator, and what they make of answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.groups_support import ORDERS, Exchange, ScriptedGroups, group_context
from trioq.coordinator.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatResult
from trioq.coordinator.group_requests import (
    JoinedMember,
    JoinRefused,
    JoinRequest,
    JoinResult,
    LeaveResult,
    LeavingMember,
    SyncRequest,
    SyncResult,
)
from trioq.errors import (
    CoordinatorNotAvailable,
    FencedInstanceId,
    GroupMaxSizeReached,
    IllegalGeneration,
    MemberIdRequired,
    RebalanceInProgress,
    UnknownMemberId,
    UnsupportedAssignor,
)
from trioq.metastore.group_encoding import encode_member
from trioq.metastore.group_layout import MAX_MEMBER_BYTES, ClassicMember
from trioq.server.handlers.consumer_group_heartbeat import handle_consumer_group_heartbeat
from trioq.server.handlers.group_border import (
    MAX_ASSIGNMENT_BYTES,
    MAX_PROTOCOLS_BYTES,
    is_group_id,
    text_bytes,
)
from trioq.server.handlers.heartbeat import handle_heartbeat
from trioq.server.handlers.join_group import handle_join_group
from trioq.server.handlers.leave_group import handle_leave_group
from trioq.server.handlers.sync_group import handle_sync_group
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatRequestTopicPartitions,
)
from trioq.wire.messages.heartbeat import HeartbeatRequest
from trioq.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from trioq.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupRequestMember
from trioq.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

TOO_LONG = "g" * 250
INVALID_REQUEST, INVALID_GROUP_ID, NOT_COORDINATOR = 42, 24, 16


def join_message(**values: Any) -> JoinGroupRequest:
    return JoinGroupRequest(
        **{
            "group_id": "g",
            "session_timeout_ms": 10_000,
            "protocol_type": "consumer",
            "protocols": [JoinGroupRequestProtocol(name="range", metadata=b"\0\1")],
            **values,
        }
    )


@pytest.mark.parametrize("version", range(10))
def test_join_is_handed_over_and_answered_later(version: int) -> None:
    groups = ScriptedGroups()
    message = join_message(member_id="m")
    if version >= 1:
        message.rebalance_timeout_ms = 20_000
    if version >= 5:
        message.group_instance_id = "static"
    if version >= 8:
        message.reason = "it started"
    exchange = Exchange(ApiKey.JOIN_GROUP, version, message)
    assert exchange.handle(handle_join_group, group_context(groups)) is None
    assert groups.asked == [
        (
            "join_group",
            JoinRequest(
                group_id="g",
                member_id="m",
                instance_id="static" if version >= 5 else None,
                client_id="client",
                client_host="/127.0.0.1",
                protocol_type="consumer",
                protocols=(("range", b"\0\1"),),
                session_timeout_ms=10_000,
                rebalance_timeout_ms=20_000 if version >= 1 else 10_000,
                reason="it started" if version >= 8 else None,
                requires_known_member_id=version >= 4,
                supports_skip_assignment=version >= 9,
            ),
        )
    ]
    member = JoinedMember("m", "static", b"meta")
    groups.replies[0](JoinResult(3, "consumer", "range", "m", version >= 9, "m", (member,)))
    answer = exchange.answer()
    assert (answer.error_code, answer.generation_id, answer.protocol_name) == (0, 3, "range")
    assert (answer.leader, answer.member_id) == ("m", "m")
    assert answer.skip_assignment == (version >= 9)
    assert answer.protocol_type == ("consumer" if version >= 7 else None)
    (told,) = answer.members
    assert (told.member_id, told.metadata) == ("m", b"meta")
    assert told.group_instance_id == ("static" if version >= 5 else None)


@pytest.mark.parametrize("version", range(10))
def test_a_refused_join_keeps_its_member_id(version: int) -> None:
    groups = ScriptedGroups(join_group=GroupMaxSizeReached())
    exchange = Exchange(ApiKey.JOIN_GROUP, version, join_message(member_id="m"))
    answer = exchange.handle(handle_join_group, group_context(groups))
    assert (answer.error_code, answer.member_id, answer.generation_id) == (81, "m", -1)
    assert answer.protocol_name == (None if version >= 7 else "")


def test_a_new_member_is_told_its_id() -> None:
    groups = ScriptedGroups(join_group=JoinRefused(MemberIdRequired(), "client-1"))
    exchange = Exchange(ApiKey.JOIN_GROUP, 5, join_message())
    answer = exchange.handle(handle_join_group, group_context(groups))
    assert (answer.error_code, answer.member_id) == (79, "client-1")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"group_id": ""}, INVALID_GROUP_ID),
        ({"group_id": TOO_LONG}, INVALID_GROUP_ID),
        ({"group_id": "ü" * 125}, INVALID_GROUP_ID),
        ({"group_instance_id": ""}, INVALID_REQUEST),
        ({"group_instance_id": TOO_LONG}, INVALID_REQUEST),
        (
            {"protocols": [JoinGroupRequestProtocol(name="p", metadata=bytes(40_000))] * 2},
            INVALID_REQUEST,
        ),
        ({"protocols": [JoinGroupRequestProtocol(name="\1" * 20_000)]}, INVALID_REQUEST),
        ({"protocol_type": "c" * 32_767, "protocols": []}, None),
    ],
)
def test_join_that_could_not_be_kept(values: dict[str, Any], code: int | None) -> None:
    groups = ScriptedGroups()
    exchange = Exchange(ApiKey.JOIN_GROUP, 9, join_message(member_id="m", **values))
    answer = exchange.handle(handle_join_group, group_context(groups))
    if code is None:
        assert answer is None
        assert groups.asked
    else:
        assert (answer.error_code, answer.member_id) == (code, "m")
        assert groups.asked == []


def test_what_is_let_in_fits_where_it_is_kept() -> None:
    names = ["p" * 1000, "\1" * 100, "ü" * 100]
    rest = MAX_PROTOCOLS_BYTES - text_bytes(["consumer", *names])
    protocols = [
        JoinGroupRequestProtocol(name=name, metadata=b"\xff" * (rest // 3)) for name in names
    ]
    message = join_message(protocols=protocols, group_instance_id="ü" * 124)
    groups = ScriptedGroups()
    exchange = Exchange(ApiKey.JOIN_GROUP, 5, message)
    exchange.request.client_id = "ü" * 5000
    assert exchange.handle(handle_join_group, group_context(groups)) is None
    request = groups.asked[0][1]
    member = ClassicMember(
        f"{request.client_id}-{ORDERS}",
        request.instance_id,
        request.client_id,
        request.client_host,
        2**31 - 1,
        2**31 - 1,
        request.protocols,
        b"\xff" * MAX_ASSIGNMENT_BYTES,
    )
    assert len(encode_member(member)) <= MAX_MEMBER_BYTES


def test_parked_members_look_for_the_coordinator_when_the_broker_stops() -> None:
    groups = ScriptedGroups()
    ctx = group_context(groups)
    join = Exchange(ApiKey.JOIN_GROUP, 5, join_message(member_id="m"))
    sync = Exchange(ApiKey.SYNC_GROUP, 3, SyncGroupRequest(group_id="g"))
    join.handle(handle_join_group, ctx)
    sync.handle(handle_sync_group, ctx)
    for exchange in (join, sync):
        assert exchange.slot.on_drain is not None
        exchange.slot.on_drain()
        assert exchange.answer().error_code == NOT_COORDINATOR
    assert join.answer().member_id == "m"
    # What the group answers after that is too late, and does no harm.
    groups.replies[0](RebalanceInProgress())
    groups.replies[1](SyncResult("consumer", "range", b""))


def test_an_answer_for_a_connection_that_ended_does_no_harm() -> None:
    groups = ScriptedGroups()
    ctx = group_context(groups)
    for key, handler, message in (
        (ApiKey.JOIN_GROUP, handle_join_group, join_message()),
        (ApiKey.SYNC_GROUP, handle_sync_group, SyncGroupRequest(group_id="g")),
        (ApiKey.LEAVE_GROUP, handle_leave_group, LeaveGroupRequest(group_id="g")),
    ):
        exchange = Exchange(key, 1, message)
        exchange.handle(handler, ctx)
        exchange.slot.cancel()
        groups.replies.pop()(CoordinatorNotAvailable())
        assert exchange.answer() is None


@pytest.mark.parametrize("version", range(6))
def test_sync(version: int) -> None:
    groups = ScriptedGroups()
    message = SyncGroupRequest(
        group_id="g",
        generation_id=4,
        member_id="m",
        assignments=[SyncGroupRequestAssignment(member_id="m", assignment=b"am")],
    )
    if version >= 3:
        message.group_instance_id = "static"
    if version >= 5:
        message.protocol_type, message.protocol_name = "consumer", "range"
    exchange = Exchange(ApiKey.SYNC_GROUP, version, message)
    assert exchange.handle(handle_sync_group, group_context(groups)) is None
    named = version >= 5
    request = SyncRequest(
        generation=4,
        member_id="m",
        instance_id="static" if version >= 3 else None,
        protocol_type="consumer" if named else None,
        protocol="range" if named else None,
        assignments={"m": b"am"},
    )
    assert groups.asked == [("sync_group", "g", request)]
    groups.replies[0](SyncResult("consumer", "range", b"mine"))
    answer = exchange.answer()
    assert (answer.error_code, answer.assignment) == (0, b"mine")
    assert answer.protocol_type == ("consumer" if named else None)
    assert answer.protocol_name == ("range" if named else None)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"group_id": ""}, INVALID_GROUP_ID),
        ({"protocol_type": None}, 23),
        ({"protocol_name": ""}, 23),
        (
            {
                "assignments": [
                    SyncGroupRequestAssignment(member_id="m", assignment=bytes(42 * 1024 + 1))
                ]
            },
            INVALID_REQUEST,
        ),
    ],
)
def test_sync_that_is_refused(values: dict[str, Any], code: int) -> None:
    groups = ScriptedGroups()
    message = SyncGroupRequest(
        **{"group_id": "g", "protocol_type": "consumer", "protocol_name": "range", **values}
    )
    exchange = Exchange(ApiKey.SYNC_GROUP, 5, message)
    answer = exchange.handle(handle_sync_group, group_context(groups))
    assert (answer.error_code, answer.assignment) == (code, b"")
    assert groups.asked == []


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("error", [None, RebalanceInProgress(), FencedInstanceId()])
def test_heartbeat(version: int, error: Any) -> None:
    groups = ScriptedGroups(heartbeat=error)
    message = HeartbeatRequest(group_id="g", generation_id=2, member_id="m")
    if version >= 3:
        message.group_instance_id = "static"
    exchange = Exchange(ApiKey.HEARTBEAT, version, message)
    answer = exchange.handle(handle_heartbeat, group_context(groups))
    assert groups.asked == [("heartbeat", "g", 2, "m", "static" if version >= 3 else None)]
    assert answer.error_code == (0 if error is None else error.code)
    assert answer.throttle_time_ms == 0


@pytest.mark.parametrize("group_id", ["", TOO_LONG])
def test_heartbeat_of_no_group(group_id: str) -> None:
    groups = ScriptedGroups(heartbeat=UnknownMemberId())
    exchange = Exchange(ApiKey.HEARTBEAT, 4, HeartbeatRequest(group_id=group_id))
    answer = exchange.handle(handle_heartbeat, group_context(groups))
    assert answer.error_code == INVALID_GROUP_ID


@pytest.mark.parametrize("version", range(6))
def test_leave(version: int) -> None:
    groups = ScriptedGroups()
    message = LeaveGroupRequest(group_id="g")
    if version >= 3:
        message.members = [
            LeaveGroupRequestMember(member_id="m"),
            LeaveGroupRequestMember(group_instance_id="static"),
        ]
        if version >= 5:
            message.members[0].reason = "it stopped"
        reason = "it stopped" if version >= 5 else None
        leaving = [LeavingMember("m", None, reason), LeavingMember("", "static")]
    else:
        message.member_id = "m"
        leaving = [LeavingMember("m")]
    exchange = Exchange(ApiKey.LEAVE_GROUP, version, message)
    assert exchange.handle(handle_leave_group, group_context(groups)) is None
    assert groups.asked == [("leave_group", "g", leaving)]
    groups.replies[0](
        [
            LeaveResult(one.member_id, one.instance_id, UnknownMemberId() if number == 0 else None)
            for number, one in enumerate(leaving)
        ]
    )
    answer = exchange.answer()
    if version >= 3:
        assert answer.error_code == 0
        assert [(m.member_id, m.group_instance_id, m.error_code) for m in answer.members] == [
            ("m", None, 25),
            ("", "static", 0),
        ]
    else:
        assert answer.error_code == 25


@pytest.mark.parametrize("version", range(6))
def test_leave_that_concerns_the_group(version: int) -> None:
    groups = ScriptedGroups(leave_group=CoordinatorNotAvailable())
    for group_id, code in (("g", 15), ("", INVALID_GROUP_ID)):
        message = LeaveGroupRequest(group_id=group_id)
        exchange = Exchange(ApiKey.LEAVE_GROUP, version, message)
        answer = exchange.handle(handle_leave_group, group_context(groups))
        assert (answer.error_code, answer.members) == (code, [])


@pytest.mark.parametrize("version", [0, 1])
def test_consumer_heartbeat(version: int) -> None:
    groups = ScriptedGroups()
    message = ConsumerGroupHeartbeatRequest(
        group_id="g",
        member_id="m",
        instance_id="static",
        rack_id="r",
        rebalance_timeout_ms=5_000,
        subscribed_topic_names=["b", "a", "b"],
        server_assignor="range",
        topic_partitions=[
            ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=ORDERS, partitions=[2, 0]),
            ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=ORDERS, partitions=[1]),
        ],
    )
    if version >= 1:
        message.subscribed_topic_regex = "a.*"
    exchange = Exchange(ApiKey.CONSUMER_GROUP_HEARTBEAT, version, message)
    assert exchange.handle(handle_consumer_group_heartbeat, group_context(groups)) is None
    assert groups.asked == [
        (
            "consumer_heartbeat",
            ConsumerHeartbeat(
                group_id="g",
                member_id="m",
                member_epoch=0,
                instance_id="static",
                rack_id="r",
                client_id="client",
                client_host="/127.0.0.1",
                rebalance_timeout_ms=5_000,
                subscribed_names=frozenset("ab"),
                subscribed_regex="a.*" if version >= 1 else None,
                server_assignor="range",
                owned={ORDERS: frozenset({0, 1, 2})},
                requires_member_id=version >= 1,
            ),
        )
    ]
    groups.replies[0](ConsumerHeartbeatResult("m", 3, 5_000, {ORDERS: frozenset({2, 1})}))
    answer = exchange.answer()
    assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, "m", 3)
    assert answer.heartbeat_interval_ms == 5_000
    (topic,) = answer.assignment.topic_partitions
    assert (topic.topic_id, topic.partitions) == (ORDERS, [1, 2])


def test_consumer_heartbeat_that_says_nothing_new() -> None:
    groups = ScriptedGroups(consumer_heartbeat=ConsumerHeartbeatResult("m", 3, 5_000))
    message = ConsumerGroupHeartbeatRequest(group_id="g", member_id="m", member_epoch=3)
    exchange = Exchange(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, message)
    answer = exchange.handle(handle_consumer_group_heartbeat, group_context(groups))
    request = groups.asked[0][1]
    assert request[6:] == ("/127.0.0.1", -1, None, None, None, None, True)
    assert (answer.error_code, answer.assignment) == (0, None)


def test_consumer_heartbeat_with_nothing_owned_any_more() -> None:
    groups = ScriptedGroups(
        consumer_heartbeat=ConsumerHeartbeatResult("m", 3, 5_000, assignment={})
    )
    message = ConsumerGroupHeartbeatRequest(group_id="g", member_id="m", topic_partitions=[])
    exchange = Exchange(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, message)
    answer = exchange.handle(handle_consumer_group_heartbeat, group_context(groups))
    assert groups.asked[0][1].owned == {}
    assert answer.assignment.topic_partitions == []


def test_a_refused_consumer_heartbeat_says_why() -> None:
    groups = ScriptedGroups(consumer_heartbeat=UnsupportedAssignor("there is uniform"))
    message = ConsumerGroupHeartbeatRequest(group_id="g", member_id="m")
    exchange = Exchange(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, message)
    answer = exchange.handle(handle_consumer_group_heartbeat, group_context(groups))
    assert (answer.error_code, answer.error_message) == (112, "there is uniform")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"group_id": ""}, INVALID_GROUP_ID),
        ({"group_id": TOO_LONG}, INVALID_GROUP_ID),
        ({"member_id": TOO_LONG}, INVALID_REQUEST),
        ({"instance_id": TOO_LONG}, INVALID_REQUEST),
        ({"subscribed_topic_names": ["t" * 249] * 300}, INVALID_REQUEST),
        ({"subscribed_topic_regex": "\1" * 20_000}, INVALID_REQUEST),
        ({"rack_id": "\1" * 20_000}, INVALID_REQUEST),
    ],
)
def test_consumer_heartbeat_that_could_not_be_kept(values: dict[str, Any], code: int) -> None:
    groups = ScriptedGroups()
    message = ConsumerGroupHeartbeatRequest(**{"group_id": "g", "member_id": "m", **values})
    exchange = Exchange(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, message)
    answer = exchange.handle(handle_consumer_group_heartbeat, group_context(groups))
    assert answer.error_code == code
    assert groups.asked == []


@pytest.mark.parametrize(
    ("group_id", "expected"),
    [
        ("", False),
        ("g", True),
        ("g" * 249, True),
        ("g" * 250, False),
        ("ü" * 124, True),
        ("ü" * 125, False),
        ("\U0001f600" * 62, True),
        ("\U0001f600" * 63, False),
    ],
)
def test_group_ids(group_id: str, expected: bool) -> None:
    assert is_group_id(group_id) == expected


def test_errors_of_a_member_are_passed_on() -> None:
    groups = ScriptedGroups(sync_group=IllegalGeneration())
    exchange = Exchange(ApiKey.SYNC_GROUP, 0, SyncGroupRequest(group_id="g"))
    assert exchange.handle(handle_sync_group, group_context(groups)).error_code == 22
