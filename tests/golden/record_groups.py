"""The part of the recording that concerns groups: a stub coordinator, and clients in groups."""

from __future__ import annotations

import time
from typing import Any

from trioq.errors import GroupIdNotFound, MemberIdRequired
from trioq.wire.api_keys import ApiKey
from trioq.wire.header import RequestHeader
from trioq.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeResponse,
    ConsumerGroupDescribeResponseGroup,
)
from trioq.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatResponse,
    ConsumerGroupHeartbeatResponseAssignment,
    ConsumerGroupHeartbeatResponseTopicPartitions,
)
from trioq.wire.messages.delete_groups import DeleteGroupsResponse, DeleteGroupsResponseResult
from trioq.wire.messages.describe_groups import (
    DescribeGroupsResponse,
    DescribeGroupsResponseGroup,
)
from trioq.wire.messages.find_coordinator import (
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)
from trioq.wire.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from trioq.wire.messages.leave_group import LeaveGroupResponse, LeaveGroupResponseMember
from trioq.wire.messages.offset_commit import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from trioq.wire.messages.offset_delete import OffsetDeleteResponse
from trioq.wire.messages.offset_fetch import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from trioq.wire.messages.sync_group import SyncGroupResponse
from trioq.wire.schema import Message

GROUP = "golden-group"
MEMBER = "golden-member"
SETTLE_S = 3.0


def group_answer(header: RequestHeader, request: Any, port: int, topic_id: Any) -> Message | None:
    """Enough of a coordinator whose groups have one member; None for other APIs."""
    version = header.api_version
    match header.api_key:
        case ApiKey.FIND_COORDINATOR:
            return coordinator(request, version, port)
        case ApiKey.JOIN_GROUP:
            return joined(request, version)
        case ApiKey.SYNC_GROUP:
            return SyncGroupResponse(
                protocol_type=request.protocol_type,
                protocol_name=request.protocol_name,
                assignment=request.assignments[0].assignment,
            )
        case ApiKey.LEAVE_GROUP:
            members = [
                LeaveGroupResponseMember(
                    member_id=one.member_id, group_instance_id=one.group_instance_id
                )
                for one in request.members
            ]
            return LeaveGroupResponse(members=members)
        case ApiKey.OFFSET_COMMIT:
            return committed(request)
        case ApiKey.OFFSET_FETCH:
            return fetched(request, version)
        case ApiKey.CONSUMER_GROUP_HEARTBEAT:
            return beaten(request, topic_id)
        case ApiKey.DESCRIBE_GROUPS:
            groups = [
                DescribeGroupsResponseGroup(group_id=one, group_state="Dead")
                for one in request.groups
            ]
            return DescribeGroupsResponse(groups=groups)
        case ApiKey.CONSUMER_GROUP_DESCRIBE:
            unknown = [
                ConsumerGroupDescribeResponseGroup(group_id=one, error_code=GroupIdNotFound.code)
                for one in request.group_ids
            ]
            return ConsumerGroupDescribeResponse(groups=unknown)
        case ApiKey.DELETE_GROUPS:
            results = [DeleteGroupsResponseResult(group_id=one) for one in request.groups_names]
            return DeleteGroupsResponse(results=results)
        case ApiKey.OFFSET_DELETE:
            return OffsetDeleteResponse()
    return None


def coordinator(request: Any, version: int, port: int) -> Message:
    if version < 4:
        return FindCoordinatorResponse(node_id=1, host="127.0.0.1", port=port)
    return FindCoordinatorResponse(
        coordinators=[
            FindCoordinatorResponseCoordinator(key=key, node_id=1, host="127.0.0.1", port=port)
            for key in request.coordinator_keys
        ]
    )


def joined(request: Any, version: int) -> Message:
    if version >= 4 and not request.member_id and request.group_instance_id is None:
        return JoinGroupResponse(error_code=MemberIdRequired.code, member_id=MEMBER)
    first = request.protocols[0]
    return JoinGroupResponse(
        generation_id=1,
        protocol_type=request.protocol_type,
        protocol_name=first.name,
        leader=MEMBER,
        member_id=MEMBER,
        members=[JoinGroupResponseMember(member_id=MEMBER, metadata=first.metadata)],
    )


def committed(request: Any) -> Message:
    topics = [
        OffsetCommitResponseTopic(
            name=topic.name,
            partitions=[
                OffsetCommitResponsePartition(partition_index=one.partition_index)
                for one in topic.partitions
            ],
        )
        for topic in request.topics
    ]
    return OffsetCommitResponse(topics=topics)


def fetched(request: Any, version: int) -> Message:
    def topics(asked: Any) -> list[OffsetFetchResponseTopic]:
        return [
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(partition_index=number, committed_offset=0)
                    for number in topic.partition_indexes
                ],
            )
            for topic in asked or ()
        ]

    if version < 8:
        return OffsetFetchResponse(topics=topics(request.topics))
    return OffsetFetchResponse(
        groups=[
            OffsetFetchResponseGroup(group_id=group.group_id, topics=topics(group.topics))
            for group in request.groups
        ]
    )


def beaten(request: Any, topic_id: Any) -> Message:
    owned = ConsumerGroupHeartbeatResponseTopicPartitions(topic_id=topic_id, partitions=[0])
    assignment = ConsumerGroupHeartbeatResponseAssignment(topic_partitions=[owned])
    return ConsumerGroupHeartbeatResponse(
        member_id=request.member_id,
        member_epoch=max(request.member_epoch, 1) if request.member_epoch >= 0 else -1,
        heartbeat_interval_ms=500,
        assignment=assignment if request.member_epoch == 0 else None,
    )


def run_confluent_groups(address: str, topic: str) -> None:
    from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import AdminClient

    common = {"bootstrap.servers": address, "client.id": "golden", "group.id": GROUP}
    classic = {"heartbeat.interval.ms": 500, "partition.assignment.strategy": "cooperative-sticky"}
    for settings in (classic, {"group.protocol": "consumer"}):
        consumer = Consumer({**common, **settings})
        consumer.subscribe([topic])
        end_s = time.monotonic() + SETTLE_S
        while time.monotonic() < end_s:
            consumer.poll(0.1)
        consumer.commit(offsets=[TopicPartition(topic, 0, 3, "note")], asynchronous=False)
        consumer.committed([TopicPartition(topic, 0)], timeout=5)
        consumer.close()
    admin = AdminClient({"bootstrap.servers": address, "client.id": "golden"})
    admin.list_consumer_groups()
    admin.describe_consumer_groups([GROUP])
    admin.delete_consumer_groups([GROUP])
    admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])
    admin.poll(2)


async def run_aiokafka_groups(address: str, topic: str) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=address,
        client_id="golden",
        group_id=GROUP,
        heartbeat_interval_ms=500,
        enable_auto_commit=False,
    )
    await consumer.start()
    await consumer.getmany(timeout_ms=int(SETTLE_S * 1000))
    await consumer.commit({TopicPartition(topic, 0): (3, "note")})
    await consumer.committed(TopicPartition(topic, 0))
    await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=address, client_id="golden")
    await admin.start()
    await admin.list_consumer_groups()
    await admin.describe_consumer_groups([GROUP])
    await admin.close()


def run_kafka_python_groups(address: str, topic: str) -> None:
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
    from kafka.admin import KafkaAdminClient, MemberToRemove

    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=address,
        client_id="golden",
        group_id=GROUP,
        group_instance_id="golden-instance",
        heartbeat_interval_ms=500,
        session_timeout_ms=6_000,
        enable_auto_commit=False,
    )
    end_s = time.monotonic() + SETTLE_S
    while time.monotonic() < end_s:
        consumer.poll(timeout_ms=100)
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "note", -1)})
    consumer.committed(TopicPartition(topic, 0))
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=address, client_id="golden")
    admin.list_groups()
    admin.describe_groups([GROUP])
    admin.delete_group_offsets(GROUP, [TopicPartition(topic, 0)])
    admin.delete_groups([GROUP])
    admin.remove_group_members(GROUP, [MemberToRemove("", "golden-instance")])
    admin.close()
