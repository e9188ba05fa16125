"""Topic administration over a real embedded metastore."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager

import pytest
import trio

from trioq.config import BrokerConfig
from trioq.controller.election_state import LogEnd
from trioq.controller.partition_admin import Reassignment, reassignments_in
from trioq.controller.takeover import take_over_alone
from trioq.controller.topic_rules import NewPartitions, NewTopic
from trioq.controller.topics import TopicAdmin
from trioq.controller.write_chain import WriteChain
from trioq.errors import (
    ElectionNotNeeded,
    InvalidConfig,
    InvalidPartitions,
    InvalidReplicaAssignment,
    InvalidReplicationFactor,
    InvalidRequest,
    InvalidTopicException,
    NoReassignmentInProgress,
    NotController,
    PolicyViolation,
    PreferredLeaderNotAvailable,
    RequestTimedOut,
    TopicAlreadyExists,
    TopicDeletionDisabled,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from trioq.metastore import layout
from trioq.metastore.bootstrap import ensure_cluster, register_broker
from trioq.metastore.embedded import open_embedded
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.store import Set
from trioq.types import ZERO_TOPIC_ID, TopicPartition

pytestmark = pytest.mark.trio


class Cluster:
    """One broker's metastore, follower and administration, with what tests ask of them."""

    def __init__(self, metastore, chain: WriteChain, follower: ImageFollower, config):
        self.metastore = metastore
        self.chain = chain
        self.follower = follower
        self.admin = TopicAdmin(chain, follower, config)

    @property
    def image(self) -> ClusterImage:
        return self.follower.image

    async def create(self, *topics: NewTopic):
        created = await self.admin.create_topics(topics)
        assert [answer.error for answer in created] == [None] * len(topics)
        return created

    async def reloaded(self) -> ClusterImage:
        fresh = ImageFollower(self.metastore)
        await fresh.load()
        return fresh.image


def registration(broker_id: int) -> layout.BrokerRegistration:
    endpoints = {"PLAINTEXT": ("localhost", 9092)}
    rack = f"rack-{broker_id % 2}"
    return layout.BrokerRegistration(
        broker_id, -1, rack, endpoints, (f"dir-{broker_id}",), "host", f"inc-{broker_id}", True
    )


@asynccontextmanager
async def opened(path, *, brokers=(1,), **config):
    settings = {key.replace("_", "."): value for key, value in config.items()}
    async with open_embedded(path) as metastore:
        await ensure_cluster(metastore)
        registered = [await register_broker(metastore, registration(b)) for b in brokers]
        chain = await take_over_alone(metastore, brokers[0], registered[0].broker_epoch)
        follower = ImageFollower(metastore)
        async with trio.open_nursery() as follower_nursery:
            await follower_nursery.start(follower.run)
            yield Cluster(metastore, chain, follower, BrokerConfig.from_mapping(settings))
            follower_nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metastore.sqlite"


@pytest.fixture
async def cluster(path):
    async with opened(path) as cluster:
        yield cluster


@pytest.fixture
async def cluster_of_four(path):
    async with opened(path, brokers=(1, 2, 3, 4)) as cluster:
        yield cluster


async def test_a_created_topic_is_in_the_image_when_the_call_returns(cluster):
    (created,) = await cluster.create(NewTopic("orders", 3, 1, None, {"retention.ms": " 5000 "}))
    topic = cluster.image.topics["orders"]
    assert cluster.image.topics_by_id[created.topic_id] is topic
    assert created == ("orders", topic.topic_id, 3, 1, {"retention.ms": "5000"}, None)
    assert topic.config == {"retention.ms": "5000"}
    assert topic.topic_id.version == 4
    assert [(p.leader, p.leader_epoch, p.isr, p.replicas) for p in topic.partitions] == [
        (1, 0, (1,), (1,))
    ] * 3
    assert all(p.broker_epochs == (0,) for p in topic.partitions)
    assert await cluster.reloaded() == cluster.image


async def test_defaults_are_the_brokers(path):
    async with opened(path, num_partitions="4") as cluster:
        (created,) = await cluster.create(NewTopic("t"))
        assert (created.partitions, created.replication_factor) == (4, 1)


@pytest.mark.parametrize(
    ("topic", "error", "said"),
    [
        (NewTopic(""), InvalidTopicException, "empty"),
        (NewTopic("."), InvalidTopicException, "'.'"),
        (NewTopic(".."), InvalidTopicException, "'..'"),
        (NewTopic("../../etc/passwd"), InvalidTopicException, "characters"),
        (NewTopic("a/b"), InvalidTopicException, "characters"),
        (NewTopic("a\n"), InvalidTopicException, "characters"),
        (NewTopic("größe"), InvalidTopicException, "characters"),
        (NewTopic("a" * 250), InvalidTopicException, "250"),
        (NewTopic("t", 0), InvalidPartitions, "greater than 0"),
        (NewTopic("t", -2), InvalidPartitions, "greater than 0"),
        (NewTopic("t", 10_001), InvalidPartitions, "max.partitions.per.topic"),
        (NewTopic("t", 2**31 - 1), InvalidPartitions, "max.partitions.per.topic"),
        (NewTopic("t", 1, 0), InvalidReplicationFactor, "greater than 0"),
        (NewTopic("t", 1, 2), InvalidReplicationFactor, "available brokers, 1"),
        (NewTopic("t", 1, -1, {0: [1]}), InvalidRequest, "-1"),
        (NewTopic("t", -1, 1, {0: [1]}), InvalidRequest, "-1"),
        (NewTopic("t", -1, -1, {1: [1]}), InvalidReplicaAssignment, "begins with 0"),
        (NewTopic("t", -1, -1, {0: []}), InvalidReplicaAssignment, "empty"),
        (NewTopic("t", -1, -1, {0: [1, 1]}), InvalidReplicaAssignment, "more than once"),
        (NewTopic("t", -1, -1, {0: [9]}), InvalidReplicaAssignment, "[9]"),
        (NewTopic("t", configs={"retention.mz": "1"}), InvalidConfig, "retention.ms"),
        (NewTopic("t", configs={"retention.ms": "soon"}), InvalidConfig, "soon"),
        (NewTopic("t", configs={"retention.ms": None}), InvalidConfig, "retention.ms"),
    ],
)
async def test_wrong_topics_are_refused_and_others_created(cluster, topic, error, said):
    before = await cluster.metastore.read_tree(layout.TOPICS)
    for validate_only in (True, False):
        wrong, right = await cluster.admin.create_topics(
            [topic, NewTopic("right")], validate_only=validate_only
        )
        assert type(wrong.error) is error
        assert said in str(wrong.error)
        assert wrong.topic_id == ZERO_TOPIC_ID
        assert right.error is None
        if validate_only:
            assert await cluster.metastore.read_tree(layout.TOPICS) == before
            assert right.topic_id == ZERO_TOPIC_ID
    assert list(cluster.image.topics) == ["right"]


async def test_names_of_every_legal_length_and_kind_are_accepted(cluster):
    names = ["a", "A" * 249, "0", "-", "_", "a.b_c-D9", "..."]
    await cluster.create(*(NewTopic(name) for name in names))
    assert set(cluster.image.topics) == set(names)


async def test_a_topic_that_exists_or_collides_is_refused(cluster):
    await cluster.create(NewTopic("a.b"))
    same, collides, other = await cluster.admin.create_topics(
        [NewTopic("a.b"), NewTopic("a_b"), NewTopic("a-b")]
    )
    assert type(same.error) is TopicAlreadyExists
    assert type(collides.error) is InvalidTopicException
    assert "a.b" in str(collides.error)
    assert other.error is None
    first, second = await cluster.admin.create_topics([NewTopic("x_y"), NewTopic("x.y")])
    assert first.error is None
    assert type(second.error) is InvalidTopicException


async def test_a_topic_twice_in_a_request_is_refused_both_times(cluster):
    answers = await cluster.admin.create_topics([NewTopic("a"), NewTopic("b"), NewTopic("a")])
    assert [type(answer.error) for answer in answers] == [
        InvalidRequest,
        type(None),
        InvalidRequest,
    ]


async def test_of_clients_creating_one_topic_at_once_exactly_one_wins(cluster):
    rival = TopicAdmin(
        WriteChain(cluster.metastore, cluster.chain.controller_epoch),
        cluster.follower,
        BrokerConfig.from_mapping({}),
    )
    errors = []

    async def create(admin, number):
        answers = await admin.create_topics([NewTopic("one"), NewTopic(f"own-{number}")])
        assert answers[1].error is None
        errors.append(answers[0].error)

    async with trio.open_nursery() as client_nursery:
        for number in range(8):
            client_nursery.start_soon(create, [cluster.admin, rival][number % 2], number)
    assert errors.count(None) == 1
    assert sum(isinstance(error, TopicAlreadyExists) for error in errors) == 7
    assert len(cluster.image.topics) == 9


async def test_of_colliding_names_at_once_exactly_one_is_created(cluster):
    rival = TopicAdmin(
        WriteChain(cluster.metastore, cluster.chain.controller_epoch),
        cluster.follower,
        BrokerConfig.from_mapping({}),
    )
    errors = []

    async def create(admin, name):
        (answer,) = await admin.create_topics([NewTopic(name)])
        errors.append(type(answer.error))

    async with trio.open_nursery() as client_nursery:
        client_nursery.start_soon(create, cluster.admin, "a.b")
        client_nursery.start_soon(create, rival, "a_b")
    assert sorted(errors, key=str) == sorted([InvalidTopicException, type(None)], key=str)
    assert len(cluster.image.topics) == 1


async def test_a_thousand_topics_at_once(cluster):
    writes = (await cluster.metastore.get(layout.CONTROLLER_SEQ)).version
    await cluster.create(*(NewTopic(f"topic-{number}") for number in range(1000)))
    assert len(cluster.image.topics) == 1000
    written = (await cluster.metastore.get(layout.CONTROLLER_SEQ)).version - writes
    assert written <= 10
    assert await cluster.reloaded() == cluster.image


async def test_a_topic_of_more_partitions_than_a_multi_holds(cluster):
    (created,) = await cluster.create(NewTopic("big", 1500))
    assert len(cluster.image.topics["big"].partitions) == 1500
    assert await cluster.reloaded() == cluster.image
    (grown,) = await cluster.admin.create_partitions([NewPartitions("big", 2600)])
    assert grown.error is None
    assert len(cluster.image.topics["big"].partitions) == 2600
    assert await cluster.reloaded() == cluster.image
    (deleted,) = await cluster.admin.delete_topics([created.topic_id])
    assert deleted == ("big", created.topic_id, None)
    assert cluster.image.topics == {}
    assert await cluster.metastore.get_many([layout.topic_path(created.topic_id)]) == [None]
    await cluster.create(NewTopic("big"))
    assert await cluster.reloaded() == cluster.image


async def test_a_request_has_its_limit_of_partitions(cluster):
    topics = [NewTopic("a", 9_000), NewTopic("b", 1_001), NewTopic("c", 1_000)]
    answers = await cluster.admin.create_topics(topics, validate_only=True)
    assert [type(answer.error) for answer in answers] == [type(None), PolicyViolation, type(None)]


async def test_a_big_topic_that_loses_its_name_leaves_nothing(cluster):
    claim = layout.TopicClaim("big", uuid.uuid4())
    await cluster.metastore.create(claim.path("big"), claim.encode())
    (answer,) = await cluster.admin.create_topics([NewTopic("big", 1500)], timeout_s=20)
    assert type(answer.error) is RequestTimedOut
    tree = await cluster.metastore.read_tree(layout.TOPIC_IDS)
    assert all(path.count("/") < 4 for path in tree)


async def test_deleting(cluster):
    a, b = await cluster.create(NewTopic("a"), NewTopic("b", 2))
    unknown = uuid.uuid4()
    answers = await cluster.admin.delete_topics(["a", "missing", unknown, b.topic_id])
    assert answers[0] == ("a", a.topic_id, None)
    assert type(answers[1].error) is UnknownTopicOrPartition
    assert answers[1].name == "missing"
    assert type(answers[2].error) is UnknownTopicId
    assert answers[2][:2] == (None, unknown)
    assert answers[3] == ("b", b.topic_id, None)
    assert cluster.image.topics == {}
    tree = await cluster.metastore.read_tree(layout.TOPICS)
    assert not any(node.value for node in tree.values())
    (again,) = await cluster.create(NewTopic("a"))
    assert again.topic_id != a.topic_id


async def test_deleting_one_topic_twice_in_a_request(cluster):
    (a,) = await cluster.create(NewTopic("a"))
    answers = await cluster.admin.delete_topics(["a", a.topic_id])
    assert [type(answer.error) for answer in answers] == [InvalidRequest] * 2
    assert "a" in cluster.image.topics


async def test_deletion_may_be_switched_off(path):
    async with opened(path, delete_topic_enable="false") as cluster:
        await cluster.create(NewTopic("a"))
        (answer,) = await cluster.admin.delete_topics(["a"])
        assert type(answer.error) is TopicDeletionDisabled
        assert "a" in cluster.image.topics


async def test_growing(cluster):
    await cluster.create(NewTopic("a", 2, configs={"retention.ms": "5"}), NewTopic("b", 2))
    before = cluster.image.topics["a"]
    (answer,) = await cluster.admin.create_partitions([NewPartitions("a", 5)], validate_only=True)
    assert answer.error is None
    assert cluster.image.topics["a"] is before
    (answer,) = await cluster.admin.create_partitions([NewPartitions("a", 5, [[1], [1], [1]])])
    assert answer == ("a", None)
    topic = cluster.image.topics["a"]
    assert len(topic.partitions) == 5
    assert topic.partitions[:2] == before.partitions
    assert topic.config == {"retention.ms": "5"}
    assert await cluster.reloaded() == cluster.image


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (NewPartitions("missing", 5), UnknownTopicOrPartition),
        (NewPartitions("a", 2), InvalidPartitions),
        (NewPartitions("a", 1), InvalidPartitions),
        (NewPartitions("a", -1), InvalidPartitions),
        (NewPartitions("a", 10_001), InvalidPartitions),
        (NewPartitions("a", 3, [[1], [1]]), InvalidReplicaAssignment),
        (NewPartitions("a", 3, [[]]), InvalidReplicaAssignment),
        (NewPartitions("a", 3, [[2]]), InvalidReplicaAssignment),
    ],
)
async def test_wrong_growth_is_refused(cluster, request_, error):
    await cluster.create(NewTopic("a", 2))
    wrong, _ = await cluster.admin.create_partitions([request_, NewPartitions("other", 3)])
    assert type(wrong.error) is error
    assert len(cluster.image.topics["a"].partitions) == 2


async def test_growing_one_topic_twice_in_a_request(cluster):
    await cluster.create(NewTopic("a"))
    answers = await cluster.admin.create_partitions([NewPartitions("a", 2), NewPartitions("a", 3)])
    assert [type(answer.error) for answer in answers] == [InvalidRequest] * 2


async def test_replicas_are_placed_over_racks_and_leaders_even(cluster_of_four):
    await cluster_of_four.create(*(NewTopic(f"t{n}", 4, 2) for n in range(3)))
    leaders = []
    for topic in cluster_of_four.image.topics.values():
        for partition in topic.partitions:
            assert len({broker % 2 for broker in partition.replicas}) == 2
            assert partition.isr == partition.replicas
            leaders.append(partition.leader)
    assert [leaders.count(broker) for broker in (1, 2, 3, 4)] == [3] * 4
    (grown,) = await cluster_of_four.admin.create_partitions([NewPartitions("t0", 8)])
    assert grown.error is None
    leaders = [p.leader for p in cluster_of_four.image.topics["t0"].partitions]
    assert [leaders.count(broker) for broker in (1, 2, 3, 4)] == [2] * 4


async def test_assignments_of_the_client_are_kept(cluster_of_four):
    wanted = {0: [3, 1], 1: [4, 2]}
    await cluster_of_four.create(NewTopic("t", assignments=wanted))
    partitions = cluster_of_four.image.topics["t"].partitions
    assert [p.replicas for p in partitions] == [(3, 1), (4, 2)]
    assert [p.leader for p in partitions] == [3, 4]
    (uneven,) = await cluster_of_four.admin.create_topics(
        [NewTopic("u", assignments={0: [3, 1], 1: [4]})]
    )
    assert type(uneven.error) is InvalidReplicaAssignment


async def test_auto_create(path):
    async with opened(path, num_partitions="2") as cluster:
        topics = []

        async def create():
            topics.append(await cluster.admin.auto_create("t"))

        async with trio.open_nursery() as client_nursery:
            for _ in range(5):
                client_nursery.start_soon(create)
        assert all(topic is cluster.image.topics["t"] for topic in topics)
        with pytest.raises(InvalidTopicException):
            await cluster.admin.auto_create("a/b")
    async with opened(path, auto_create_topics_enable="false") as cluster:
        with pytest.raises(UnknownTopicOrPartition):
            await cluster.admin.auto_create("u")


async def test_everything_is_there_after_a_restart_and_led_in_a_new_epoch(path):
    async with opened(path) as cluster:
        await cluster.create(NewTopic("a", 3, configs={"retention.ms": "7"}), NewTopic("b"))
        first = cluster.image
    async with opened(path) as cluster:
        second = cluster.image
    assert second.cluster_id == first.cluster_id
    assert second.brokers[1].broker_epoch == first.brokers[1].broker_epoch + 1
    assert second.controller_epoch == first.controller_epoch + 1
    assert second.controller_id == 1
    assert second.topics.keys() == first.topics.keys()
    for name, topic in second.topics.items():
        before = first.topics[name]
        assert (topic.topic_id, topic.config) == (before.topic_id, before.config)
        for old, new in zip(before.partitions, topic.partitions, strict=True):
            assert new.leader_epoch == old.leader_epoch + 1
            assert new.partition_epoch == old.partition_epoch + 1
            assert new.broker_epochs == (1,)
            assert (new.leader, new.isr, new.replicas) == (1, (1,), (1,))


async def test_a_start_removes_what_was_left_unfinished(path):
    async with opened(path) as cluster:
        (kept,) = await cluster.create(NewTopic("kept"))
        state = cluster.image.topics["kept"].partitions[0].encode()
        draft = uuid.uuid4()
        node = layout.TopicNode("draft", 2, live=False)
        await cluster.metastore.create(layout.topic_path(draft), node.encode())
        await cluster.metastore.create(layout.partition_path(draft, 0), state)
        await cluster.metastore.create(layout.partition_path(kept.topic_id, 1), state)
    async with opened(path) as cluster:
        assert list(cluster.image.topics) == ["kept"]
        tree = await cluster.metastore.read_tree(layout.TOPIC_IDS)
        deep = [path for path in tree if path.count("/") >= 4]
        assert deep == [
            layout.topic_path(kept.topic_id),
            layout.partition_path(kept.topic_id, 0),
        ]


async def test_partitions_of_another_broker_id_have_no_leader(path):
    async with opened(path, brokers=(1,)) as cluster:
        await cluster.create(NewTopic("a"))
    async with opened(path, brokers=(2,)) as cluster:
        (partition,) = cluster.image.topics["a"].partitions
        assert (partition.leader, partition.last_leader, partition.leader_epoch) == (-1, 1, 1)
        assert partition.isr == (1,)
    async with opened(path, brokers=(1,)) as cluster:
        (partition,) = cluster.image.topics["a"].partitions
        assert (partition.leader, partition.last_leader, partition.leader_epoch) == (1, -1, 2)


async def test_a_deposed_controller_writes_nothing(cluster):
    epoch = cluster.chain.controller_epoch
    await cluster.metastore.set(layout.CONTROLLER_EPOCH, b'{"controller":9}', epoch)
    (answer,) = await cluster.admin.create_topics([NewTopic("t")])
    assert type(answer.error) is NotController
    (answer,) = await cluster.admin.create_topics([NewTopic("big", 1500)])
    assert type(answer.error) is NotController
    tree = await cluster.metastore.read_tree(layout.TOPICS)
    assert not any(node.value for node in tree.values())


async def test_a_lost_metastore_is_a_retriable_error(path):
    async with opened(path) as cluster:
        pass
    answers = await cluster.admin.create_topics([NewTopic("t"), NewTopic("/")])
    assert [type(answer.error) for answer in answers] == [NotController, InvalidTopicException]
    answers = await cluster.admin.delete_topics(["t"])
    assert [type(answer.error) for answer in answers] == [UnknownTopicOrPartition]


async def test_a_cancelled_request_keeps_the_chain_whole(cluster):
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cluster.admin.create_topics, [NewTopic(f"t{number}", 2)])
                for _ in range(number):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    await cluster.create(NewTopic("after"))
    assert await cluster.reloaded() == cluster.image


async def test_a_change_that_the_image_never_shows_times_out(path):
    async with open_embedded(path) as metastore:
        await ensure_cluster(metastore)
        await register_broker(metastore, registration(1))
        chain = await take_over_alone(metastore, 1, 0)
        follower = ImageFollower(metastore)
        await follower.load()
        admin = TopicAdmin(chain, follower, BrokerConfig.from_mapping({}))
        (answer,) = await admin.create_topics([NewTopic("t")], timeout_s=0.05)
        assert type(answer.error) is RequestTimedOut


async def test_three_replicas_ask_for_two_in_sync_unless_somebody_says_otherwise(path):
    async with opened(path, brokers=(1, 2, 3)) as cluster:
        told = NewTopic("told", 1, 3, None, {"min.insync.replicas": "1"})
        three, two, told = await cluster.create(NewTopic("a", 1, 3), NewTopic("b", 1, 2), told)
        assert three.config == {"min.insync.replicas": "2"}
        assert two.config == {}
        assert told.config == {"min.insync.replicas": "1"}
    async with opened(path, brokers=(1, 2, 3), min_insync_replicas="1") as cluster:
        (created,) = await cluster.create(NewTopic("c", 1, 3))
        assert created.config == {}


def errors_of(results) -> list[type | None]:
    return [None if one.error is None else type(one.error) for one in results]


async def test_elections_and_moves_on_a_single_broker(cluster):
    await cluster.create(NewTopic("t", 2))
    here, there, missing = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("t", 2)
    elected = await cluster.admin.elect_leaders([here, missing])
    assert errors_of(elected) == [ElectionNotNeeded, UnknownTopicOrPartition]
    assert (
        errors_of(await cluster.admin.elect_leaders(None, unclean=True)) == [ElectionNotNeeded] * 2
    )
    before = cluster.image.topics["t"]
    altered = await cluster.admin.alter_reassignments(
        [
            Reassignment(here, (1,)),
            Reassignment(there, None),
            Reassignment(missing, (1,)),
        ]
    )
    assert errors_of(altered) == [None, NoReassignmentInProgress, UnknownTopicOrPartition]
    refused = await cluster.admin.alter_reassignments(
        [Reassignment(here, (1, 2)), Reassignment(there, ())]
    )
    assert errors_of(refused) == [InvalidReplicaAssignment] * 2
    twice = await cluster.admin.alter_reassignments([Reassignment(here, (1,))] * 2)
    assert errors_of(twice) == [InvalidRequest] * 2
    assert cluster.image.topics["t"] == before
    assert list(reassignments_in(cluster.image)) == []


async def test_moves_begin_and_are_cancelled(cluster_of_four):
    cluster = cluster_of_four
    await cluster.create(NewTopic("t", assignments={0: [1, 2], 1: [2, 1]}))
    first, second = TopicPartition("t", 0), TopicPartition("t", 1)
    altered = await cluster.admin.alter_reassignments(
        [Reassignment(first, (3, 4)), Reassignment(second, (1, 2))]
    )
    assert errors_of(altered) == [None, None]
    moving, reordered = cluster.image.topics["t"].partitions
    assert (moving.replicas, moving.adding, moving.removing) == ((3, 4, 1, 2), (3, 4), (1, 2))
    assert (reordered.replicas, reordered.leader) == ((1, 2), 2)
    assert [one for one, _ in reassignments_in(cluster.image)] == [first]
    assert [one for one, _ in reassignments_in(cluster.image, [second])] == []
    elected = await cluster.admin.elect_leaders([first, second])
    assert errors_of(elected) == [PreferredLeaderNotAvailable, None]
    assert cluster.image.topics["t"].partitions[1].leader == 1
    assert errors_of(await cluster.admin.alter_reassignments([Reassignment(first, None)])) == [None]
    assert cluster.image.topics["t"].partitions[0].replicas == (1, 2)


async def test_an_unclean_election_takes_the_log_that_reaches_furthest(path):
    async with opened(path, brokers=(1, 2, 3)) as cluster:
        await cluster.create(NewTopic("t", assignments={0: [1, 2, 3]}))
        topic = cluster.image.topics["t"]
        dead = topic.partitions[0]._replace(
            leader=-1, leader_epoch=3, isr=(1,), broker_epochs=(77,), last_leader=1
        )
        at = layout.partition_path(topic.topic_id, 0)
        position = await cluster.chain.write([Set(at, dead.encode(), 0)])
        await cluster.follower.wait_for(position)

        async def ask(broker, partitions):
            return {one: LogEnd(2, 100 * broker) for one in partitions if broker != 3}

        admin = TopicAdmin(
            cluster.chain, cluster.follower, BrokerConfig.from_mapping({}), ask_log_ends=ask
        )
        assert errors_of(await admin.elect_leaders(None, unclean=True)) == [None]
        state = cluster.image.topics["t"].partitions[0]
        assert (state.leader, state.isr, state.leader_epoch) == (2, (2,), 4)


async def test_brokers_that_are_leaving_get_no_new_replicas_while_there_are_enough(path):
    async with opened(path, brokers=(1, 2, 3)) as cluster:
        config = BrokerConfig.from_mapping({})
        admin = TopicAdmin(cluster.chain, cluster.follower, config, leaving=lambda: {2})
        await admin.create_topics([NewTopic("two", 4, 2), NewTopic("three", 1, 3)])
        await admin.create_partitions([NewPartitions("two", 8)])
        topics = cluster.image.topics
        assert {one for state in topics["two"].partitions for one in state.replicas} == {1, 3}
        assert len(topics["two"].partitions) == 8
        assert set(topics["three"].partitions[0].replicas) == {1, 2, 3}
