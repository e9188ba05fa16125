"""The admin API against our broker."""

from __future__ import annotations

import pytest

import trioq
from tests.client.written import write
from trioq.errors import (
    ElectionNotNeeded,
    GroupIdNotFound,
    InvalidConfig,
    InvalidPartitions,
    InvalidReplicaAssignment,
    NonEmptyGroup,
    NoReassignmentInProgress,
    TopicAlreadyExists,
    UnknownTopicOrPartition,
)
from trioq.types import TopicPartition

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(group_broker):
    async with trioq.connect(group_broker.address, unknown_topic_timeout_ms=100) as client:
        yield client


async def test_topics(client, topic):
    admin = client.admin
    await admin.create_topic(topic, partitions=3, configs={"retention.ms": "1000"})
    with pytest.raises(TopicAlreadyExists, match=f"creating topic '{topic}'"):
        await admin.create_topic(topic)
    assert topic in await admin.list_topics()
    described = await admin.describe_topic(topic)
    assert (described.name, len(described.partitions)) == (topic, 3)
    await admin.create_partitions(topic, 5)
    assert len((await admin.describe_topic(topic)).partitions) == 5
    with pytest.raises(InvalidPartitions, match="adding partitions"):
        await admin.create_partitions(topic, 2)
    await admin.delete_topic(topic)
    with pytest.raises(UnknownTopicOrPartition, match=f"deleting topic '{topic}'"):
        await admin.delete_topic(topic)
    with pytest.raises(UnknownTopicOrPartition):
        await admin.describe_topic(topic)


async def test_validating_creates_nothing(client, topic):
    await client.admin.create_topic(topic, validate_only=True)
    assert topic not in await client.admin.list_topics()


async def test_assigned_by_hand(client, topic, group_broker):
    await client.admin.create_topic(topic, assignments={0: [group_broker.node_id]})
    (partition,) = (await client.admin.describe_topic(topic)).partitions
    assert partition.replicas == (group_broker.node_id,)


async def test_records_and_offsets(client, topic):
    admin, place = client.admin, TopicPartition(topic, 0)
    await admin.create_topic(topic, partitions=1)
    await client.cluster.metadata.topic(topic)
    for timestamp_ms in (1000, 2000):
        await write(client, topic, [b"v"], timestamp_ms=timestamp_ms)
    assert await admin.end_offsets([place]) == {place: 2}
    assert (await admin.offsets_at({place: 1500}))[place].offset == 1
    assert await admin.delete_records({place: 1}) == {place: 1}
    assert await admin.beginning_offsets([place]) == {place: 1}
    assert await admin.delete_records({place: -1}) == {place: 2}


async def test_configuration(client, topic, group_broker):
    admin = client.admin
    await admin.create_topic(topic)
    await admin.alter_topic_configs(
        topic, set_to={"retention.ms": "5000"}, append={"cleanup.policy": "compact"}
    )
    configs = await admin.topic_configs(topic)
    assert (configs["retention.ms"].value, configs["retention.ms"].source) == ("5000", "topic")
    assert configs["cleanup.policy"].value == "delete,compact"
    await admin.alter_topic_configs(
        topic, delete=["retention.ms"], subtract={"cleanup.policy": "compact"}
    )
    configs = await admin.topic_configs(topic)
    assert configs["retention.ms"].source != "topic"
    assert configs["cleanup.policy"].value == "delete"
    with pytest.raises(InvalidConfig, match=f"changing the configuration of topic '{topic}'"):
        await admin.alter_topic_configs(topic, set_to={"retention.ms": "often"})
    broker = await admin.broker_configs(group_broker.node_id)
    assert broker["num.partitions"].value == "4"


async def test_the_cluster_and_its_disks(client, topic, group_broker):
    admin = client.admin
    await admin.create_topic(topic, partitions=1)
    await client.cluster.metadata.topic(topic)
    await write(client, topic, [b"v"])
    cluster = await admin.describe_cluster()
    assert [node.node_id for node in cluster.brokers] == [group_broker.node_id]
    assert cluster.controller_id == group_broker.node_id
    (directory,) = (await admin.describe_log_dirs())[group_broker.node_id]
    assert directory.path == str(group_broker.data_dir)
    assert directory.partitions[TopicPartition(topic, 0)] > 0


async def test_leaders_and_replicas(client, topic, group_broker):
    admin, place, here = client.admin, TopicPartition(topic, 1), group_broker.node_id
    await admin.create_topic(topic, partitions=2)
    assert await admin.list_partition_reassignments() == {}
    assert await admin.list_partition_reassignments([place]) == {}
    await admin.alter_partition_reassignments({place: [here]})
    with pytest.raises(InvalidReplicaAssignment, match=f"moving {topic}-1.*{here + 1}"):
        await admin.alter_partition_reassignments({(topic, 0): [here], place: [here + 1]})
    with pytest.raises(NoReassignmentInProgress, match=r"moving .*\(2 of 2 are refused\)"):
        await admin.alter_partition_reassignments({(topic, 0): None, place: None})
    assert await admin.elect_leaders() == {}
    elected = await admin.elect_leaders([place, (topic, 7)])
    assert isinstance(elected[place], ElectionNotNeeded)
    assert isinstance(elected[TopicPartition(topic, 7)], UnknownTopicOrPartition)


async def test_configuration_of_several_topics(client, topic):
    admin = client.admin
    await admin.create_topic(topic, partitions=1, configs={"retention.ms": "1000"})
    await admin.create_topic(f"{topic}-2", partitions=1)
    names = [topic, f"{topic}-2", f"{topic}-3"]
    found = await admin.topics_configs(names, keys=["retention.ms"])
    assert {name: list(entries) for name, entries in found.items()} == {
        name: ["retention.ms"] for name in names[:2]
    }
    assert found[topic]["retention.ms"].value == "1000"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_groups_and_their_offsets(client, topic, protocol):
    admin, place = client.admin, TopicPartition(topic, 0)
    await admin.create_topic(topic, partitions=1)
    await client.cluster.metadata.topic(topic)
    await write(client, topic, [b"0", b"1", b"2"])
    with pytest.raises(GroupIdNotFound, match=topic):
        await admin.describe_group(topic)
    async with client.consumer(
        topic, group=topic, group_protocol=protocol, auto_offset_reset="earliest"
    ) as consumer:
        await anext(consumer)
        await consumer.commit()
        group = await admin.describe_group(topic)
        assert (group.group_type, group.state) == (protocol, "Stable")
        (member,) = group.members
        assert (member.topics, member.assignment) == ({topic}, {place})
        assert member.client_id == "trioq"
        lag = (await admin.group_lag(topic))[place]
        assert (lag.committed.offset, lag.end_offset, lag.lag) == (1, 3, 2)
        with pytest.raises(NonEmptyGroup):
            await admin.delete_group(topic)
    (listed,) = [one for one in await admin.list_groups() if one.group_id == topic]
    assert (listed.state, listed.group_type) == ("Empty", protocol)
    stable = await admin.list_groups(states=["Stable"])
    assert topic not in {one.group_id for one in stable}
    await admin.alter_group_offsets(topic, {place: 2})
    assert (await admin.group_offsets(topic))[place].offset == 2
    assert await admin.group_offsets(topic, [(topic, 5)]) == {}
    await admin.delete_group_offsets(topic, [place])
    assert await admin.group_offsets(topic) == {}
    await admin.delete_group(topic)
    with pytest.raises(GroupIdNotFound):
        await admin.delete_group(topic)
