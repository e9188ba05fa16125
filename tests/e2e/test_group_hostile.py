"""Members of groups that do not keep to the rules, and more of them than there usually are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import GROUPS
from tests.e2e.raw import RawConnection
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import request_frame
from trioq.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from trioq.wire.messages.consumer_protocol import (
    ConsumerProtocolSubscription,
    encode_subscription,
)
from trioq.wire.messages.describe_groups import DescribeGroupsRequest
from trioq.wire.messages.heartbeat import HeartbeatRequest
from trioq.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from trioq.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupRequestMember
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.offset_fetch import OffsetFetchRequest
from trioq.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

VERSIONS = {
    ApiKey.JOIN_GROUP: 5,
    ApiKey.SYNC_GROUP: 3,
    ApiKey.HEARTBEAT: 3,
    ApiKey.LEAVE_GROUP: 3,
    ApiKey.OFFSET_COMMIT: 7,
    ApiKey.OFFSET_FETCH: 5,
    ApiKey.DESCRIBE_GROUPS: 3,
    ApiKey.CONSUMER_GROUP_HEARTBEAT: 1,
}
"""Those of today's librdkafka, which are not flexible, except for the last."""

UNKNOWN_TOPIC, METADATA_TOO_LARGE, ILLEGAL_GENERATION, INCONSISTENT_PROTOCOL = 3, 12, 22, 23
INVALID_GROUP_ID, UNKNOWN_MEMBER, INVALID_SESSION_TIMEOUT, REBALANCING = 24, 25, 26, 27
INVALID_REQUEST, MEMBER_ID_REQUIRED, FENCED_INSTANCE = 42, 79, 82
NOT_COORDINATOR = 16
FENCED_EPOCH, UNSUPPORTED_ASSIGNOR, INVALID_REGEX = 110, 112, 128

METADATA = encode_subscription(ConsumerProtocolSubscription(topics=["t"]), 0)


class RawMember:
    """One member on a connection of its own, which says whatever the test wants."""

    def __init__(self, broker: BrokerProcess, group: str) -> None:
        self.group = group
        self.member_id = ""
        self.generation = -1
        self.leads = False
        self._connection = RawConnection(broker, group=group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.__exit__(*exc)

    def send(self, key: ApiKey, message: Any, version: int | None = None) -> None:
        frame = request_frame(key, VERSIONS[key] if version is None else version, 7, "raw", message)
        self._connection.send(b"".join(frame))  # type: ignore[arg-type]

    def receive(self, key: ApiKey, version: int | None = None) -> Any:
        version = VERSIONS[key] if version is None else version
        frame = memoryview(self._connection.read_frame())
        start = 5 if APIS[key].is_flexible(version) else 4
        return APIS[key].response_class.decode(frame, start, len(frame), version)

    def call(self, key: ApiKey, message: Any, version: int | None = None) -> Any:
        self.send(key, message, version)
        return self.receive(key, version)

    # ---- a member as it should be

    def send_join(self, version: int | None = None, **values: Any) -> None:
        protocols = [JoinGroupRequestProtocol(name="range", metadata=METADATA)]
        message = JoinGroupRequest(
            **{
                "group_id": self.group,
                "session_timeout_ms": 20_000,
                "rebalance_timeout_ms": 20_000 if version != 0 else -1,
                "member_id": self.member_id,
                "protocol_type": "consumer",
                "protocols": protocols,
                **values,
            }
        )
        self.send(ApiKey.JOIN_GROUP, message, version)

    def receive_join(self, version: int | None = None) -> int:
        """The error code; otherwise its place in the group is known now."""
        answer = self.receive(ApiKey.JOIN_GROUP, version)
        self.member_id = answer.member_id
        if not answer.error_code:
            self.generation = answer.generation_id
            self.leads = answer.leader == answer.member_id
            self.members = [one.member_id for one in answer.members]
        code: int = answer.error_code
        return code

    def join(self, version: int | None = None, **values: Any) -> int:
        self.send_join(version, **values)
        code = self.receive_join(version)
        if code == MEMBER_ID_REQUIRED:
            self.send_join(version, **values)
            code = self.receive_join(version)
        return code

    def sync_message(self, plan: Iterable[str] = (), **values: Any) -> SyncGroupRequest:
        parts = [SyncGroupRequestAssignment(member_id=one, assignment=one.encode()) for one in plan]
        return SyncGroupRequest(
            **{
                "group_id": self.group,
                "generation_id": self.generation,
                "member_id": self.member_id,
                "assignments": parts,
                **values,
            }
        )

    def sync(self, plan: Iterable[str] = (), **values: Any) -> Any:
        return self.call(ApiKey.SYNC_GROUP, self.sync_message(plan, **values))

    def heartbeat(self, **values: Any) -> int:
        message = HeartbeatRequest(
            **{
                "group_id": self.group,
                "generation_id": self.generation,
                "member_id": self.member_id,
                **values,
            }
        )
        code: int = self.call(ApiKey.HEARTBEAT, message).error_code
        return code

    def commit(self, topic: str, **values: Any) -> int:
        partition = OffsetCommitRequestPartition(
            partition_index=values.pop("partition", 0),
            committed_offset=1,
            committed_metadata=values.pop("metadata", ""),
        )
        message = OffsetCommitRequest(
            **{
                "group_id": self.group,
                "generation_id_or_member_epoch": self.generation,
                "member_id": self.member_id,
                "topics": [OffsetCommitRequestTopic(name=topic, partitions=[partition])],
                **values,
            }
        )
        code: int = self.call(ApiKey.OFFSET_COMMIT, message).topics[0].partitions[0].error_code
        return code


@pytest.fixture
def created(group_broker: BrokerProcess, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": group_broker.address})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    return topic


@pytest.fixture
def alone(group_broker: BrokerProcess, created: str) -> Iterable[RawMember]:
    """The only member of a stable group."""
    with RawMember(group_broker, created) as member:
        assert member.join() == 0
        assert member.sync([member.member_id]).error_code == 0
        yield member


def test_join_requests_that_are_refused(group_broker: BrokerProcess, topic: str) -> None:
    large = [JoinGroupRequestProtocol(name="range", metadata=bytes(100_000))]
    refused: list[tuple[dict[str, Any], int]] = [
        ({"group_id": ""}, INVALID_GROUP_ID),
        ({"group_id": "g" * 250}, INVALID_GROUP_ID),
        ({"session_timeout_ms": 499}, INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 1_800_001}, INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": -1}, INVALID_SESSION_TIMEOUT),
        ({"protocol_type": ""}, INCONSISTENT_PROTOCOL),
        ({"protocols": []}, INCONSISTENT_PROTOCOL),
        ({"protocols": large}, INVALID_REQUEST),
        ({"group_instance_id": ""}, INVALID_REQUEST),
        ({"member_id": "nobody"}, UNKNOWN_MEMBER),
    ]
    with RawMember(group_broker, topic) as member:
        for values, code in refused:
            member.member_id = ""
            assert member.join(**values) == code, values
        member.member_id = ""
        assert member.join() == 0


@pytest.mark.parametrize("version", [0, 1, 3])
def test_old_clients_join_in_one_step(
    group_broker: BrokerProcess, topic: str, version: int
) -> None:
    with RawMember(group_broker, topic) as member:
        member.send_join(version)
        assert member.receive_join(version) == 0
        assert member.leads


def test_strangers_in_a_stable_group(
    group_broker: BrokerProcess, created: str, alone: RawMember
) -> None:
    with RawMember(group_broker, created) as other:
        stranger = {"member_id": "nobody", "generation_id": alone.generation}
        assert other.heartbeat(**stranger) == UNKNOWN_MEMBER
        assert other.sync(**stranger).error_code == UNKNOWN_MEMBER
        leave = LeaveGroupRequest(
            group_id=created, members=[LeaveGroupRequestMember(member_id="nobody")]
        )
        (left,) = other.call(ApiKey.LEAVE_GROUP, leave).members
        assert left.error_code == UNKNOWN_MEMBER
        # A client that is no member commits only while the group is empty.
        assert other.commit(created) == UNKNOWN_MEMBER
        assert other.commit(created, member_id="nobody") == UNKNOWN_MEMBER
        # Members of another kind, or without an assignor in common, are not let in.
        assert other.join(protocol_type="connect") == INCONSISTENT_PROTOCOL
        other.member_id = ""
        sticky = [JoinGroupRequestProtocol(name="sticky", metadata=METADATA)]
        assert other.join(protocols=sticky) == INCONSISTENT_PROTOCOL
    assert alone.heartbeat() == 0


def test_what_is_stale_is_refused(alone: RawMember, created: str) -> None:
    old = alone.generation - 1
    assert alone.heartbeat(generation_id=old) == ILLEGAL_GENERATION
    assert alone.sync(generation_id=old).error_code == ILLEGAL_GENERATION
    assert alone.commit(created, generation_id_or_member_epoch=old) == ILLEGAL_GENERATION
    assert alone.heartbeat(generation_id=alone.generation + 1) == ILLEGAL_GENERATION
    assert alone.commit(created, metadata="x" * 257) == METADATA_TOO_LARGE
    assert alone.commit(created, partition=1) == UNKNOWN_TOPIC
    assert alone.commit("none") == UNKNOWN_TOPIC
    assert alone.commit(created) == 0


def test_of_two_with_one_instance_id_the_later_wins(
    group_broker: BrokerProcess, topic: str
) -> None:
    with RawMember(group_broker, topic) as first, RawMember(group_broker, topic) as second:
        assert first.join(group_instance_id="i") == 0
        assert first.sync([first.member_id], group_instance_id="i").error_code == 0
        assert second.join(group_instance_id="i") == 0
        assert second.generation == first.generation
        assert first.heartbeat(group_instance_id="i") == FENCED_INSTANCE
        assert first.join(group_instance_id="i") == FENCED_INSTANCE
        assert second.heartbeat(group_instance_id="i") == 0


def test_a_member_that_joins_and_never_syncs_is_left_out(
    group_broker: BrokerProcess, topic: str
) -> None:
    """Its generation ends when the rebalance timeout has passed; the next one is without it."""
    with RawMember(group_broker, topic) as good, RawMember(group_broker, topic) as lazy:
        assert good.join(rebalance_timeout_ms=1_000) == 0
        assert good.sync([good.member_id]).error_code == 0
        lazy.send_join(rebalance_timeout_ms=1_000)
        assert lazy.receive_join() == MEMBER_ID_REQUIRED
        lazy.send_join(rebalance_timeout_ms=1_000)
        while good.heartbeat() == 0:
            pass
        assert good.join(rebalance_timeout_ms=1_000) == 0
        assert lazy.receive_join() == 0
        assert len(good.members) == 2
        assert good.sync(good.members).error_code == 0
        while (code := good.heartbeat()) == 0:
            pass
        assert code == REBALANCING
        assert good.join() == 0
        assert good.members == [good.member_id]
        assert lazy.heartbeat() == UNKNOWN_MEMBER


def test_consumer_heartbeats_that_are_refused(group_broker: BrokerProcess, topic: str) -> None:
    def beat(**values: Any) -> int:
        message = ConsumerGroupHeartbeatRequest(
            **{
                "group_id": topic,
                "member_id": "m",
                "rebalance_timeout_ms": 5_000,
                "subscribed_topic_names": ["t"],
                "topic_partitions": [],
                **values,
            }
        )
        code: int = member.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, message).error_code
        return code

    refused: list[tuple[dict[str, Any], int]] = [
        ({"group_id": ""}, INVALID_GROUP_ID),
        ({"member_id": ""}, INVALID_REQUEST),
        ({"member_epoch": -3}, INVALID_REQUEST),
        ({"member_epoch": -2}, INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, INVALID_REQUEST),
        ({"subscribed_topic_names": None}, INVALID_REQUEST),
        ({"instance_id": ""}, INVALID_REQUEST),
        ({"rack_id": ""}, INVALID_REQUEST),
        ({"server_assignor": "none such"}, UNSUPPORTED_ASSIGNOR),
        ({"subscribed_topic_regex": "("}, INVALID_REGEX),
        ({"member_epoch": 5}, UNKNOWN_MEMBER),
    ]
    with RawMember(group_broker, topic) as member:
        for values, code in refused:
            assert beat(**values) == code, values
        assert beat() == 0
        assert beat(member_epoch=99) == FENCED_EPOCH
        assert beat(member_id="other", member_epoch=1) == UNKNOWN_MEMBER


def listed_groups(admin: AdminClient) -> set[str]:
    """All groups, once every broker tells of its own: a list with errors is not whole."""
    deadline_s = time.monotonic() + 30
    while (found := admin.list_consumer_groups().result(30)).errors:
        assert time.monotonic() < deadline_s, found.errors
    return {one.group_id for one in found.valid}


def test_a_group_of_hundreds_and_hundreds_of_groups(
    start_broker: Callable[..., BrokerProcess], topic: str
) -> None:
    """All members are told of each other, all groups are there after a restart."""
    broker = start_broker(settings=GROUPS | {"group.initial.rebalance.delay.ms": "300"})
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(RawMember(broker, "large")) for _ in range(300)]
        for member in members:
            member.send_join(3)
        for member in members:
            assert member.receive_join(3) == 0
        if len({member.generation for member in members}) > 1:
            # Who came after the first round has been taken in by a second one.
            for member in members:
                member.send_join(3)
            assert all(member.receive_join(3) == 0 for member in members)
        (leader,) = (member for member in members if member.leads)
        ids = {member.member_id for member in members}
        assert set(leader.members) == ids
        for member in members:
            plan = ids if member is leader else ()
            member.send(ApiKey.SYNC_GROUP, member.sync_message(plan))
        for member in members:
            answer = member.receive(ApiKey.SYNC_GROUP)
            assert (answer.error_code, answer.assignment) == (0, member.member_id.encode())
        groups = [f"group-{number}" for number in range(500)]
        partition = OffsetCommitRequestPartition(
            partition_index=0, committed_offset=0, committed_metadata="kept"
        )
        asked = OffsetCommitRequestTopic(name=topic, partitions=[partition])
        coordinators: dict[tuple[str, int], RawMember] = {}
        # In a cluster that has just started groups may still move to another broker.
        allowed = {0} if len(broker.nodes) == 1 else {0, NOT_COORDINATOR}
        pending = groups
        while pending:
            asked_of = []
            for group in pending:
                where = broker.coordinator_of(group)
                if where not in coordinators:
                    coordinators[where] = stack.enter_context(RawMember(broker, group))
                message = OffsetCommitRequest(group_id=group, topics=[asked])
                coordinators[where].send(ApiKey.OFFSET_COMMIT, message)
                asked_of.append(coordinators[where])
            codes = [
                one.receive(ApiKey.OFFSET_COMMIT).topics[0].partitions[0].error_code
                for one in asked_of
            ]
            assert set(codes) <= allowed
            pending = [group for group, code in zip(pending, codes, strict=True) if code]
    broker.kill9()
    broker.start()
    whole, deadline_s = {"large", *groups}, time.monotonic() + 30
    # In a cluster a group that has no coordinator yet is nobody's to tell of.
    while (listed := listed_groups(admin)) != whole and len(broker.nodes) > 1:
        assert time.monotonic() < deadline_s, whole - listed
    assert listed == whole
    with RawMember(broker, "large") as member:
        (described,) = member.call(
            ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=["large"])
        ).groups
        assert {one.member_id for one in described.members} == ids
        assert all(one.member_assignment == one.member_id.encode() for one in described.members)
    with RawMember(broker, "group-499") as member:
        fetch = OffsetFetchRequest(group_id="group-499", topics=None)
        (found,) = member.call(ApiKey.OFFSET_FETCH, fetch).topics[0].partitions
        assert (found.committed_offset, found.metadata) == (0, "kept")
