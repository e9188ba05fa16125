"""Frames recorded from real clients (see record.py) are decoded, and encoded as they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trioq.wire.api_keys import APIS
from trioq.wire.framing import request_frame
from trioq.wire.header import RequestHeader, decode_request_header
from trioq.wire.messages.consumer_protocol import decode_assignment, decode_subscription
from trioq.wire.schema import Message

HERE = Path(__file__).parent
FRAMES = sorted(HERE.glob("*/*.hex"))

SEEN = {
    "aiokafka": "ApiVersions-v0 Metadata-v5 InitProducerId-v0 Produce-v7 Fetch-v11 ListOffsets-v3 "
    "FindCoordinator-v1 JoinGroup-v5 SyncGroup-v3 Heartbeat-v1 LeaveGroup-v1 OffsetCommit-v3 "
    "OffsetFetch-v3 ListGroups-v1 DescribeGroups-v3",
    "confluent-kafka": "ApiVersions-v3 Metadata-v13 InitProducerId-v4 Produce-v10 Fetch-v16 "
    "FindCoordinator-v2 JoinGroup-v5 SyncGroup-v3 Heartbeat-v3 LeaveGroup-v1 OffsetCommit-v9 "
    "OffsetFetch-v9 ListGroups-v5 DescribeGroups-v5 DeleteGroups-v2 ConsumerGroupHeartbeat-v1 "
    "ConsumerGroupDescribe-v0 ElectLeaders-v2",
    "kafka-python": "ApiVersions-v4 Metadata-v13 InitProducerId-v4 Produce-v9 Fetch-v12 "
    "FindCoordinator-v5 JoinGroup-v7 SyncGroup-v5 Heartbeat-v4 LeaveGroup-v5 OffsetCommit-v8 "
    "OffsetFetch-v8 ListGroups-v5 DescribeGroups-v5 DeleteGroups-v2 OffsetDelete-v0 "
    "ElectLeaders-v2 AlterPartitionReassignments-v0 ListPartitionReassignments-v0",
    "kafka-clients": "ApiVersions-v4 Metadata-v13 Fetch-v16 FindCoordinator-v5 JoinGroup-v9 "
    "SyncGroup-v5 Heartbeat-v4 LeaveGroup-v5 OffsetCommit-v9 OffsetFetch-v9 ListGroups-v5 "
    "DescribeGroups-v6 DeleteGroups-v2 OffsetDelete-v0 ConsumerGroupHeartbeat-v1 "
    "ConsumerGroupDescribe-v1 ElectLeaders-v2 AlterPartitionReassignments-v0 "
    "ListPartitionReassignments-v0",
}
"""What each client must have been caught sending; guards against an empty recording."""


def frame_of(path: Path) -> bytes:
    return bytes.fromhex(path.read_text())


def decoded(path: Path) -> tuple[RequestHeader, Message]:
    frame = memoryview(frame_of(path))
    header = decode_request_header(frame, 0, len(frame))
    cls = APIS[header.api_key].request_class
    return header, cls.decode(frame, header.position, len(frame), header.api_version)


def request(client: str, name: str) -> Any:
    return decoded(HERE / client / f"{name}.hex")[1]


@pytest.mark.parametrize("client", SEEN)
def test_the_recording_is_complete(client: str) -> None:
    recorded = {path.stem for path in FRAMES if path.parent.name == client}
    assert recorded >= set(SEEN[client].split())


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_decoded_and_encoded_again(path: Path) -> None:
    header, message = decoded(path)
    assert path.stem == f"{APIS[header.api_key].name}-v{header.api_version}"
    again = b"".join(request_frame(*header[:4], message))  # type: ignore[arg-type]
    assert again[4:] == frame_of(path)


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("aiokafka", "Produce-v7"),
        ("confluent-kafka", "Produce-v10"),
        ("kafka-python", "Produce-v9"),
    ],
)
def test_produced_records(client: str, name: str) -> None:
    message = request(client, name)
    (topic,) = message.topic_data
    (partition,) = topic.partition_data
    assert (topic.name, partition.index, message.acks) == ("golden", 0, -1)
    assert partition.records[16] == 2  # the magic of a v2 batch
    assert int.from_bytes(partition.records[8:12]) == len(partition.records) - 12


def test_fetches() -> None:
    by_id = request("confluent-kafka", "Fetch-v16")
    assert str(by_id.topics[0].topic_id) == "5f2f6a3c-6e0c-4d4a-9d1b-0a7a3b6f1c01"
    by_name = request("kafka-python", "Fetch-v12")
    assert by_name.topics[0].topic == "golden"
    assert by_name.topics[0].partitions[0].fetch_offset == 0


def test_admin_requests() -> None:
    created = request("confluent-kafka", "CreateTopics-v4").topics[0]
    assert (created.name, created.num_partitions) == ("created", 3)
    assert [(c.name, c.value) for c in created.configs] == [("retention.ms", "1000")]
    assert request("confluent-kafka", "CreatePartitions-v2").topics[0].count == 5
    assert request("confluent-kafka", "DeleteTopics-v4").topic_names == ["created"]
    assert request("confluent-kafka", "DeleteRecords-v2").topics[0].partitions[0].offset == 5


def test_members_of_groups() -> None:
    joined = request("confluent-kafka", "JoinGroup-v5")
    (protocol,) = joined.protocols
    assert (joined.group_id, joined.protocol_type) == ("golden-group", "consumer")
    assert protocol.name == "cooperative-sticky"
    version, subscription = decode_subscription(protocol.metadata)
    assert (version >= 1, subscription.topics) == (True, ["golden"])
    for client, name in (("aiokafka", "SyncGroup-v3"), ("kafka-python", "SyncGroup-v5")):
        (part,) = request(client, name).assignments
        (topic,) = decode_assignment(part.assignment)[1].assigned_partitions
        assert (topic.topic, topic.partitions) == ("golden", [0])
    assert request("kafka-python", "JoinGroup-v7").group_instance_id == "golden-instance"
    leaving = request("kafka-python", "LeaveGroup-v5").members[0]
    assert (leaving.member_id, leaving.group_instance_id) == ("", "golden-instance")


def test_members_of_groups_of_the_new_protocol() -> None:
    beat = request("confluent-kafka", "ConsumerGroupHeartbeat-v1")
    assert (beat.group_id, beat.member_epoch) == ("golden-group", 0)
    assert beat.subscribed_topic_names == ["golden"]
    assert beat.member_id
    assert beat.rebalance_timeout_ms > 0
    assert beat.topic_partitions == []


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("aiokafka", "OffsetCommit-v3"),
        ("confluent-kafka", "OffsetCommit-v9"),
        ("kafka-python", "OffsetCommit-v8"),
    ],
)
def test_commits(client: str, name: str) -> None:
    committed = request(client, name)
    (topic,) = committed.topics
    (partition,) = topic.partitions
    assert (committed.group_id, topic.name) == ("golden-group", "golden")
    assert (partition.partition_index, partition.committed_offset) == (0, 3)
    # confluent-kafka sends the end of its C string too.
    assert partition.committed_metadata.rstrip("\0") == "note"


@pytest.mark.parametrize(
    ("client", "kind"), [("confluent-kafka", 0), ("kafka-python", 1), ("kafka-clients", 1)]
)
def test_elections(client: str, kind: int) -> None:
    message = request(client, "ElectLeaders-v2")
    assert message.election_type == kind
    assert [(one.topic, one.partitions) for one in message.topic_partitions] == [("golden", [0])]


@pytest.mark.parametrize("client", ["kafka-python", "kafka-clients"])
def test_moves(client: str) -> None:
    message = request(client, "AlterPartitionReassignments-v0")
    asked = {one.partition_index: one.replicas for one in message.topics[0].partitions}
    assert asked == {0: [2, 1], 1: None}
    listed = request(client, "ListPartitionReassignments-v0")
    assert [(one.name, one.partition_indexes) for one in listed.topics] == [("golden", [0])]
