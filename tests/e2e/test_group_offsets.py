"""Committed offsets and groups as tools see them: through clients' own admin APIs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import kafka
import kafka.errors
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, Kcat
from tests.e2e.group_member import AUTO
from tests.e2e.group_process import Member, everything, wait_until_shared
from tests.e2e.message import Message
from tests.e2e.raw import RawConnection
from trioq.wire.api_keys import ApiKey
from trioq.wire.framing import request_frame
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
    OffsetFetchResponse,
)

StartMember = Callable[..., Member]

PARTITIONS = 2
COUNT = 5


@pytest.fixture
def admin(group_broker: BrokerProcess) -> AdminClient:
    return AdminClient({"bootstrap.servers": group_broker.address})


@pytest.fixture
def written(group_broker: BrokerProcess, admin: AdminClient, topic: str) -> str:
    """A topic of two partitions with five records in each."""
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result(30)
    for number in range(PARTITIONS):
        messages = [Message(f"{number}-{offset}".encode()) for offset in range(COUNT)]
        Confluent().write(group_broker.address, topic, messages, partition=number)
    return topic


@contextlib.contextmanager
def kafka_admin(broker: BrokerProcess) -> Iterator[kafka.KafkaAdminClient]:
    client = kafka.KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        yield client
    finally:
        client.close()


def committed(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    """Everything that the group has committed."""
    asked = ConsumerGroupTopicPartitions(group)
    result = admin.list_consumer_group_offsets([asked])[group].result(30)
    return {(one.topic, one.partition): one.offset for one in result.topic_partitions}


def commit(broker: BrokerProcess, group: str, topic: str, offsets: list[int]) -> None:
    """As a consumer that is no member, of partitions 0, 1 and so on."""
    consumer = Confluent.consumer(broker.address, **{"group.id": group})
    try:
        places = [TopicPartition(topic, number, offset) for number, offset in enumerate(offsets)]
        for one in consumer.commit(offsets=places, asynchronous=False):
            assert one.error is None
    finally:
        consumer.close()


def test_a_group_goes_on_where_it_was_reset_to(
    group_broker: BrokerProcess, admin: AdminClient, written: str, start_member: StartMember
) -> None:
    address, group = group_broker.address, written
    member = start_member("confluent", address, group, topics=[written])
    member.wait_for_records(PARTITIONS * COUNT)
    # While the group is active nobody else sets its offsets.
    reset = ConsumerGroupTopicPartitions(group, [TopicPartition(written, 0, 3)])
    refused = admin.alter_consumer_group_offsets([reset])[group].result(30)
    assert refused.topic_partitions[0].error is not None
    member.stop()
    assert committed(admin, group) == {(written, 0): COUNT, (written, 1): COUNT}

    done = admin.alter_consumer_group_offsets([reset])[group].result(30)
    assert done.topic_partitions[0].error is None
    again = start_member("kafka-python", address, group, topics=[written])
    again.wait_for(lambda: again.processed == ["0-3", "0-4"], "read what it was reset to")
    again.stop()

    with kafka_admin(group_broker) as other:
        place = kafka.TopicPartition(written, 1)
        other.alter_group_offsets(group, {place: kafka.OffsetAndMetadata(4, "", -1)})
    last = start_member("aiokafka", address, group, topics=[written])
    last.wait_for(lambda: last.processed == ["1-4"], "read what it was reset to")


def test_clients_that_commit_by_themselves_take_over_from_each_other(
    group_broker: BrokerProcess, written: str, start_member: StartMember
) -> None:
    """What one has read, and committed when it closed, the next one does not read again."""
    expected = [f"{number}-{offset}" for number in range(PARTITIONS) for offset in range(COUNT)]
    for client in ("confluent", "aiokafka", "kafka-python", "confluent"):
        member = start_member(client, group_broker.address, written, topics=[written], commit=AUTO)
        member.wait_for_records(len(expected))
        member.stop()
        assert sorted(member.processed) == expected
        expected = [f"after {client}"]
        Confluent().write(group_broker.address, written, [Message(expected[0].encode())])


def test_the_lag_of_a_group(group_broker: BrokerProcess, admin: AdminClient, written: str) -> None:
    commit(group_broker, "lagging", written, [2, 5])
    latest = admin.list_offsets(
        {TopicPartition(written, number): OffsetSpec.latest() for number in range(PARTITIONS)}
    )
    ends = {(one.topic, one.partition): future.result(30).offset for one, future in latest.items()}
    offsets = committed(admin, "lagging")
    assert {place: ends[place] - offset for place, offset in offsets.items()} == {
        (written, 0): 3,
        (written, 1): 0,
    }


def test_offsets_keep_their_metadata_and_leader_epoch(
    group_broker: BrokerProcess, written: str
) -> None:
    consumer = kafka.KafkaConsumer(bootstrap_servers=group_broker.address, group_id=written)
    place = kafka.TopicPartition(written, 0)
    try:
        consumer.assign([place])
        consumer.commit({place: kafka.OffsetAndMetadata(3, "where I was", 0)})
        assert consumer.committed(place, metadata=True) == kafka.OffsetAndMetadata(
            3, "where I was", 0
        )
        with pytest.raises(kafka.errors.OffsetMetadataTooLargeError):
            consumer.commit({place: kafka.OffsetAndMetadata(3, "x" * 257, 0)})
        assert consumer.committed(place) == 3
    finally:
        consumer.close(autocommit=False)


def test_commits_and_reads_on_one_connection_are_in_order(
    group_broker: BrokerProcess, written: str
) -> None:
    """Everything is sent before anything is read: each fetch sees the commit before it."""
    version, group = 7, f"{written}-order"
    asked = OffsetFetchRequestTopic(name=written, partition_indexes=[0])
    fetch = OffsetFetchRequest(group_id=group, topics=[asked])
    frames: list[Any] = []
    for offset in range(1, 6):
        place = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
        topic = OffsetCommitRequestTopic(name=written, partitions=[place])
        commit = OffsetCommitRequest(group_id=group, topics=[topic])
        frames += request_frame(ApiKey.OFFSET_COMMIT, version, offset, "raw", commit)
        frames += request_frame(ApiKey.OFFSET_FETCH, version, -offset, "raw", fetch)
    with RawConnection(group_broker, group=group) as raw:
        raw.send(b"".join(frames))
        for offset in range(1, 6):
            assert int.from_bytes(raw.read_frame()[:4], signed=True) == offset
            frame = memoryview(raw.read_frame())
            assert int.from_bytes(frame[:4], signed=True) == -offset
            answer = OffsetFetchResponse.decode(frame, 5, len(frame), version)
            assert answer.topics[0].partitions[0].committed_offset == offset


def test_groups_are_listed_and_described(
    group_broker: BrokerProcess, admin: AdminClient, written: str, start_member: StartMember
) -> None:
    address = group_broker.address
    classic, consumer, empty = (f"{written}-{name}" for name in ("classic", "consumer", "empty"))
    members = [
        start_member("confluent", address, classic, topics=[written]),
        start_member("confluent", address, consumer, topics=[written], strategy="consumer"),
    ]
    for member in members:
        wait_until_shared([member], everything(written, PARTITIONS))
    commit(group_broker, empty, written, [1, 1])

    listed = {one.group_id: one for one in admin.list_consumer_groups().result(30).valid}
    shown = {group: (listed[group].state.name, listed[group].type.name) for group in listed}
    assert {group: shown[group] for group in (classic, consumer, empty)} == {
        classic: ("STABLE", "CLASSIC"),
        consumer: ("STABLE", "CONSUMER"),
        empty: ("EMPTY", "CLASSIC"),
    }
    only_empty = admin.list_consumer_groups(
        states={confluent_kafka.ConsumerGroupState.EMPTY}
    ).result(30)
    assert empty in {one.group_id for one in only_empty.valid}
    assert classic not in {one.group_id for one in only_empty.valid}

    for group in (classic, consumer):
        described = admin.describe_consumer_groups([group])[group].result(30)
        assert described.state.name == "STABLE"
        (member,) = described.members
        assert member.host == "/127.0.0.1"
        assert member.client_id == "rdkafka"
        owned = {(one.topic, one.partition) for one in member.assignment.topic_partitions}
        assert owned == everything(written, PARTITIONS)
    gone = admin.describe_consumer_groups(["none"])["none"].result(30)
    assert gone.state.name == "DEAD"

    with kafka_admin(group_broker) as other:
        found = other.describe_groups([classic])
        assert "Stable" in str(found)
        assert written in str(found)


def test_groups_and_offsets_are_deleted(
    group_broker: BrokerProcess, admin: AdminClient, written: str, start_member: StartMember
) -> None:
    active, idle = f"{written}-active", f"{written}-idle"
    member = start_member("confluent", group_broker.address, active, topics=[written])
    member.wait_for_records(PARTITIONS * COUNT)
    commit(group_broker, idle, written, [1, 2])
    with kafka_admin(group_broker) as other:
        other.delete_group_offsets(idle, [kafka.TopicPartition(written, 0)])
        assert committed(admin, idle) == {(written, 1): 2}
    deleted = admin.delete_consumer_groups([active, idle, f"{written}-none"])
    with pytest.raises(confluent_kafka.KafkaException, match="NON_EMPTY_GROUP"):
        deleted[active].result(30)
    assert deleted[idle].result(30) is None
    with pytest.raises(confluent_kafka.KafkaException, match="GROUP_ID_NOT_FOUND"):
        deleted[f"{written}-none"].result(30)
    assert committed(admin, idle) == {}
    assert idle not in {one.group_id for one in admin.list_consumer_groups().result(30).valid}
    member.stop()
    assert admin.delete_consumer_groups([active])[active].result(30) is None


def test_offsets_of_a_deleted_topic_are_gone(
    group_broker: BrokerProcess, admin: AdminClient, written: str
) -> None:
    """A topic of the same name is another topic: what was committed does not concern it."""
    group = f"{written}-gone"
    commit(group_broker, group, written, [1, 2])
    admin.delete_topics([written])[written].result(30)
    admin.create_topics([NewTopic(written, PARTITIONS, 1)])[written].result(30)
    assert committed(admin, group) == {}


def test_kcat_commits_and_goes_on(group_broker: BrokerProcess, written: str) -> None:
    arguments = ["-b", group_broker.address, "-e", "-q", "-f", r"%s\n"]
    arguments += ["-X", "auto.offset.reset=earliest", "-X", "partition.assignment.strategy=range"]
    first = Kcat.run(*arguments, "-G", f"{written}-kcat", written)
    assert len(first.stdout.split()) == PARTITIONS * COUNT, first.stderr
    Confluent().write(group_broker.address, written, [Message(b"later")])
    second = Kcat.run(*arguments, "-G", f"{written}-kcat", written)
    assert second.stdout.split() == [b"later"], second.stderr
