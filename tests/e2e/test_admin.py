"""Administration by each client's own admin API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiokafka.admin
import confluent_kafka
import kafka
import kafka.admin
import kafka.errors
import pytest
from aiokafka.admin.config_resource import ConfigResource as AiokafkaResource
from aiokafka.admin.config_resource import ConfigResourceType as AiokafkaResourceType
from confluent_kafka import KafkaError, KafkaException, admin
from kafka.protocol.admin import CreateTopicsRequest, CreateTopicsResponse
from kafka.protocol.metadata import MetadataRequest, MetadataResponse

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent, Kcat, run_asyncio
from tests.e2e.message import Message
from tests.e2e.raw import RawConnection


def confluent_admin(broker: BrokerProcess) -> admin.AdminClient:
    return admin.AdminClient({"bootstrap.servers": broker.address})


def error_of(future: Any) -> int:
    """Code of the error with which a confluent-kafka future ends."""
    with pytest.raises(KafkaException) as caught:
        future.result(30)
    return caught.value.args[0].code()


def write(broker: BrokerProcess, topic: str, count: int, partition: int = 0) -> None:
    messages = [Message(b"%d" % number) for number in range(count)]
    Confluent().write(broker.address, topic, messages, partition=partition)


# ---- confluent-kafka ----


def test_confluent_creates_describes_grows_and_deletes(broker: BrokerProcess, topic: str) -> None:
    client = confluent_admin(broker)
    new = admin.NewTopic(topic, 2, 1, config={"retention.ms": "1000"})
    client.create_topics([new], validate_only=True)[topic].result(30)
    assert topic not in client.list_topics(timeout=30).topics
    client.create_topics([new])[topic].result(30)
    broker.settle()
    assert error_of(client.create_topics([new])[topic]) == KafkaError.TOPIC_ALREADY_EXISTS
    found = client.list_topics(topic, timeout=30)
    assert found.controller_id == broker.controller_id
    leaders = {number: part.leader for number, part in found.topics[topic].partitions.items()}
    assert leaders.keys() == {0, 1}
    assert set(leaders.values()) <= broker.nodes.keys()
    described = client.describe_topics(confluent_kafka.TopicCollection([topic]))[topic].result(30)
    assert [part.id for part in described.partitions] == [0, 1]
    assert described.is_internal is False
    grow = admin.NewPartitions(topic, 5)
    client.create_partitions([grow])[topic].result(30)
    broker.settle()
    assert len(client.list_topics(topic, timeout=30).topics[topic].partitions) == 5
    for count in (5, 3):
        fewer = client.create_partitions([admin.NewPartitions(topic, count)])[topic]
        assert error_of(fewer) == KafkaError.INVALID_PARTITIONS
    write(broker, topic, 3, partition=4)
    client.delete_topics([topic])[topic].result(30)
    broker.settle()
    assert error_of(client.delete_topics([topic])[topic]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert topic not in client.list_topics(timeout=30).topics


def test_confluent_elects_leaders(broker: BrokerProcess, topic: str) -> None:
    client = confluent_admin(broker)
    client.create_topics([admin.NewTopic(topic, 1, 1)])[topic].result(30)
    here = confluent_kafka.TopicPartition(topic, 0)
    nowhere = confluent_kafka.TopicPartition(topic, 1)
    for kind in (confluent_kafka.ElectionType.PREFERRED, confluent_kafka.ElectionType.UNCLEAN):
        elected = client.elect_leaders(kind, [here, nowhere]).result(30)
        codes = {one.partition: error.code() for one, error in elected.items()}
        assert codes == {
            0: KafkaError.ELECTION_NOT_NEEDED,
            1: KafkaError.UNKNOWN_TOPIC_OR_PART,
        }
        assert here not in client.elect_leaders(kind).result(30)


def test_confluent_configs(broker: BrokerProcess, topic: str) -> None:
    client = confluent_admin(broker)
    client.create_topics([admin.NewTopic(topic, 1, 1)])[topic].result(30)

    def resource(**operations: Any) -> admin.ConfigResource:
        entries = [
            admin.ConfigEntry(name.replace("_", "."), value, incremental_operation=operation)
            for name, (operation, value) in operations.items()
        ]
        return admin.ConfigResource(
            admin.ConfigResource.Type.TOPIC, topic, incremental_configs=entries
        )

    def config() -> dict[str, Any]:
        asked = resource()
        return client.describe_configs([asked])[asked].result(30)

    before = config()
    assert before["cleanup.policy"].value == "delete"
    assert before["max.message.bytes"].value == "1048588"
    assert before["retention.ms"].is_default
    assert [one.name for one in before["retention.ms"].synonyms.values()]
    operation = admin.AlterConfigOpType
    changes = resource(retention_ms=(operation.SET, "77"), flush_policy=(operation.SET, "commit"))
    client.incremental_alter_configs([changes])[changes].result(30)
    after = config()
    assert after["retention.ms"].value == "77"
    assert after["retention.ms"].source == admin.ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert after["flush.policy"].value == "commit"
    reset = resource(retention_ms=(operation.DELETE, None))
    client.incremental_alter_configs([reset])[reset].result(30)
    assert config()["retention.ms"].value == before["retention.ms"].value
    assert config()["flush.policy"].value == "commit"
    for name, value in (("retention.mss", "1"), ("retention.ms", "soon"), ("segment.bytes", "-1")):
        wrong = resource(**{name.replace(".", "_"): (operation.SET, value)})
        future = client.incremental_alter_configs([wrong])[wrong]
        assert error_of(future) == KafkaError.INVALID_CONFIG
    missing = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, f"{topic}-missing")
    code = error_of(client.describe_configs([missing])[missing])
    assert code == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_confluent_broker_configs(broker: BrokerProcess) -> None:
    client = confluent_admin(broker)
    resource = admin.ConfigResource(admin.ConfigResource.Type.BROKER, str(broker.node_id))
    found = client.describe_configs([resource])[resource].result(30)
    assert found["node.id"].value == str(broker.node_id)
    assert found["node.id"].is_read_only
    assert not found["message.max.bytes"].is_read_only
    assert found["log.segment.delete.delay.ms"].source == (
        admin.ConfigSource.STATIC_BROKER_CONFIG.value
    )
    other = admin.ConfigResource(admin.ConfigResource.Type.BROKER, "999")
    with pytest.raises((KafkaException, ValueError)):
        client.describe_configs([other], request_timeout=2)[other].result(30)


def test_confluent_deletes_records(broker: BrokerProcess, topic: str) -> None:
    client = confluent_admin(broker)
    write(broker, topic, 10)
    place = confluent_kafka.TopicPartition(topic, 0, 4)
    assert client.delete_records([place])[place].result(30).low_watermark == 4
    consumer = Confluent.consumer(broker.address)
    assert consumer.get_watermark_offsets(place, timeout=30) == (4, 10)
    consumer.close()
    found = Confluent().read(broker.address, topic, 4, 6)
    assert [message.value for message in found] == [b"%d" % number for number in range(4, 10)]
    beyond = confluent_kafka.TopicPartition(topic, 0, 11)
    code = error_of(client.delete_records([beyond])[beyond])
    assert code == KafkaError.OFFSET_OUT_OF_RANGE
    everything = confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_END)
    assert client.delete_records([everything])[everything].result(30).low_watermark == 10


def test_confluent_describes_the_cluster(broker: BrokerProcess) -> None:
    client = confluent_admin(broker)
    found = client.describe_cluster(include_authorized_operations=True).result(30)
    assert len(found.cluster_id) == 22
    assert found.controller.id == broker.controller_id
    assert {node.id: f"{node.host}:{node.port}" for node in found.nodes} == broker.nodes
    assert found.authorized_operations


def test_confluent_lists_offsets(broker: BrokerProcess, topic: str) -> None:
    write(broker, topic, 6)
    client = confluent_admin(broker)
    place = confluent_kafka.TopicPartition(topic, 0)
    spec = admin.OffsetSpec
    offsets = {}
    for name, asked in (
        ("earliest", spec.earliest()),
        ("latest", spec.latest()),
        ("greatest", spec.max_timestamp()),
    ):
        offsets[name] = client.list_offsets({place: asked})[place].result(30).offset
    assert offsets["earliest"] == 0
    assert offsets["latest"] == 6
    assert 0 <= offsets["greatest"] < 6


# ---- kafka-python ----


@pytest.fixture
def kafka_python_admin(broker: BrokerProcess):
    client = kafka.admin.KafkaAdminClient(bootstrap_servers=broker.address)
    yield client
    client.close()


def test_kafka_python_elects_and_moves(
    kafka_python_admin: Any, broker: BrokerProcess, topic: str
) -> None:
    client = kafka_python_admin
    client.create_topics({topic: {"num_partitions": 2, "replication_factor": len(broker.nodes)}})
    client.wait_for_topics([topic])
    elected = client.elect_leaders(0, {topic: [0, 1]})  # ELECTION_NOT_NEEDED is no error to it
    assert [one.partition_id for one in elected.replica_election_results[0].partition_result] == [
        0,
        1,
    ]
    unclean = client.elect_leaders(1, [topic]).replica_election_results
    assert {one.error_code for one in unclean[0].partition_result} == {84}
    here, there = kafka.TopicPartition(topic, 0), kafka.TopicPartition(topic, 1)
    everywhere = client.describe_topics([topic])[0]["partitions"][0]["replica_nodes"]
    altered = client.alter_partition_reassignments({here: everywhere, there: None})
    assert altered == {here: None, there: kafka.errors.NoReassignmentInProgressError}
    altered = client.alter_partition_reassignments({here: [*everywhere, max(broker.nodes) + 1]})
    assert altered[here].errno == 39  # INVALID_REPLICA_ASSIGNMENT
    assert client.list_partition_reassignments() == {}
    assert client.list_partition_reassignments([here]) == {}


def test_kafka_python_topics(kafka_python_admin: Any, broker: BrokerProcess, topic: str) -> None:
    client = kafka_python_admin
    client.create_topics({topic: {"num_partitions": 3, "configs": {"retention.ms": "5"}}})
    client.wait_for_topics([topic])
    with pytest.raises(kafka.errors.TopicAlreadyExistsError):
        client.create_topics([topic])
    assert topic in client.list_topics()
    (described,) = client.describe_topics([topic])
    assert len(described["partitions"]) == 3
    assert described["topic_id"] is not None
    client.create_partitions({topic: 4})
    pages = client.describe_topic_partitions([topic], response_partition_limit=3)
    assert topic in str(pages)
    client.delete_topics([topic])
    broker.settle()
    assert topic not in client.list_topics()


def test_kafka_python_configs(kafka_python_admin: Any, broker: BrokerProcess, topic: str) -> None:
    client = kafka_python_admin
    client.create_topics([topic])
    resource_type = kafka.admin.ConfigResourceType

    def config(**options: Any) -> dict[str, Any]:
        asked = kafka.admin.ConfigResource(resource_type.TOPIC, topic)
        return client.describe_configs([asked], **options)["topic"][topic]

    broker.settle()
    at_first = config()
    assert "retention.ms" not in at_first
    for incremental in (True, False):
        value = "11" if incremental else "12"
        change = kafka.admin.ConfigResource(resource_type.TOPIC, topic, {"retention.ms": value})
        answer = client.alter_configs([change], incremental=incremental)
        assert answer["topic"][topic] == "OK"
        broker.settle()
        assert config()["retention.ms"]["value"] == value
    everything = config(config_filter="all", include_synonyms=True)
    assert everything["retention.ms"]["synonyms"][0]["source"] == "DYNAMIC_TOPIC_CONFIG"
    assert everything["retention.ms"]["config_type"] == "LONG"
    reset = kafka.admin.ConfigResource(resource_type.TOPIC, topic, {"retention.ms": None})
    client.reset_configs([reset])
    broker.settle()
    assert config().keys() <= at_first.keys()
    broker_resource = kafka.admin.ConfigResource(resource_type.BROKER, str(broker.node_id))
    described = client.describe_configs([broker_resource], config_filter="all")
    assert described["broker"][str(broker.node_id)]["node.id"]["value"] == str(broker.node_id)


def test_kafka_python_records_cluster_dirs_and_producers(
    kafka_python_admin: Any, broker: BrokerProcess, topic: str
) -> None:
    client = kafka_python_admin
    producer = Confluent.producer(broker.address, **{"enable.idempotence": True})
    for number in range(8):
        producer.produce(topic, b"%d" % number * 100)
    assert producer.flush(30) == 0
    place = kafka.TopicPartition(topic, 0)
    assert client.delete_records({place: 3})[place]["low_watermark"] == 3
    cluster = client.describe_cluster()
    assert cluster["controller_id"] == broker.controller_id
    answers = {answer["broker"]: answer for answer in client.describe_log_dirs([topic])}
    assert answers.keys() == broker.nodes.keys()
    (log_dir,) = answers[broker.node_id]["log_dirs"]
    assert log_dir["log_dir"] == str(broker.data_dir)
    (described,) = log_dir["topics"]
    assert described["name"] == topic
    assert described["partitions"][0]["partition_size"] > 800
    assert log_dir["total_bytes"] >= log_dir["usable_bytes"] > 0
    state = client.describe_producers([place])[place]
    (producer_state,) = state.active_producers
    assert producer_state.producer_epoch == 0
    assert producer_state.last_sequence == 7


# ---- aiokafka ----


def test_aiokafka_admin(broker: BrokerProcess, topic: str) -> None:
    async def administer() -> None:
        client = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await client.start()
        try:
            new = aiokafka.admin.NewTopic(topic, 2, 1, topic_configs={"retention.ms": "5"})
            for code in (0, 36):
                response = await client.create_topics([new])
                assert response.topic_errors[0][1] == code
            broker.settle()
            assert topic in await client.list_topics()
            (described,) = await client.describe_topics([topic])
            assert len(described["partitions"]) == 2
            partitions = {topic: aiokafka.admin.NewPartitions(3)}
            await client.create_partitions(partitions)
            broker.settle()
            (described,) = await client.describe_topics([topic])
            assert len(described["partitions"]) == 3
            resource = AiokafkaResource(AiokafkaResourceType.TOPIC, topic, {"retention.ms": "6"})
            (altered,) = await client.alter_configs([resource])
            assert altered.resources[0][0] == 0
            broker.settle()
            (answer,) = await client.describe_configs([resource])
            entry = answer.resources[0][4][0]
            assert entry[:2] == ("retention.ms", "6")
            cluster = await client.describe_cluster()
            assert cluster["controller_id"] == broker.controller_id
            await asyncio_write(broker, topic)
            place = aiokafka.TopicPartition(topic, 0)
            records = {place: aiokafka.admin.RecordsToDelete(2)}
            assert await client.delete_records(records) == {place: 2}
            deleted = await client.delete_topics([topic])
            assert deleted.topic_error_codes[0][1] == 0
            broker.settle()
            assert topic not in await client.list_topics()
        finally:
            await client.close()

    async def asyncio_write(broker: BrokerProcess, topic: str) -> None:
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
            for number in range(5):
                await producer.send_and_wait(topic, b"%d" % number, partition=0)

    run_asyncio(administer())


# ---- kcat ----


def test_kcat_lists(broker: BrokerProcess, topic: str) -> None:
    write(broker, topic, 1)
    done = Kcat.run("-L", "-b", broker.address, "-t", topic)
    assert done.returncode == 0
    assert f'topic "{topic}" with 1 partitions'.encode() in done.stdout
    for number, address in broker.nodes.items():
        assert f"broker {number} at {address}".encode() in done.stdout


# ---- whatever the client ----


@pytest.mark.parametrize(
    ("partitions", "replicas", "config", "code"),
    [
        (0, 1, {}, 37),
        (-2, 1, {}, 37),
        (10_001, 1, {}, 37),
        (1, 0, {}, 38),
        (1, 4, {}, 38),  # more than there are brokers
        (1, 1, {"retention.ms": "x"}, 40),
        (1, 1, {"no.such.key": "1"}, 40),
        (1, 1, {"cleanup.policy": "squeeze"}, 40),
    ],
)
def test_bad_topics_are_refused(
    broker: BrokerProcess,
    topic: str,
    partitions: int,
    replicas: int,
    config: dict[str, str],
    code: int,
) -> None:
    creatable = CreateTopicsRequest.CreatableTopic
    new = creatable(
        name=topic,
        num_partitions=partitions,
        replication_factor=replicas,
        assignments=[],
        configs=[creatable.CreatableTopicConfig(name=key, value=config[key]) for key in config],
    )
    with RawConnection(broker) as connection:
        request = CreateTopicsRequest(topics=[new], timeout_ms=10_000, validate_only=False)
        answer = connection.call(request, CreateTopicsResponse, 5).topics[0]
        assert answer.error_code == code
        assert answer.error_message
        metadata = connection.call(MetadataRequest(topics=None), MetadataResponse, 1)
    assert topic not in {one.name for one in metadata.topics}


def test_many_clients_create_one_topic_at_once(broker: BrokerProcess, topic: str) -> None:
    """One of them has made it, the others hear that it exists, and all find the same one."""

    def create(partitions: int) -> int | None:
        client = confluent_admin(broker)
        try:
            client.create_topics([admin.NewTopic(topic, partitions, 1)])[topic].result(30)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
            return None
        return partitions

    with ThreadPoolExecutor(8) as pool:
        made = [one for one in pool.map(create, range(1, 9)) if one is not None]
    assert len(made) == 1
    found = confluent_admin(broker).list_topics(topic, timeout=30)
    assert len(found.topics[topic].partitions) == made[0]


def test_many_clients_use_one_new_topic_at_once(broker: BrokerProcess, topic: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write, broker, topic, 5) for _ in range(8)]:
            done.result(30)
    assert len(Confluent().read(broker.address, topic, 0, 40)) == 40


def test_names_that_differ_in_dots_only_collide(broker: BrokerProcess, topic: str) -> None:
    client = confluent_admin(broker)
    name = f"{topic}.with.dots"
    client.create_topics([admin.NewTopic(name, 1, 1)])[name].result(30)
    other = name.replace(".", "_")
    assert error_of(client.create_topics([admin.NewTopic(other, 1, 1)])[other]) == (
        KafkaError.TOPIC_EXCEPTION
    )


def test_a_thousand_topics(broker: BrokerProcess, topic: str) -> None:
    """Created, listed, written to and read by one client each time."""
    names = [f"{topic}-{number:04d}" for number in range(1000)]
    client = confluent_admin(broker)
    for future in client.create_topics([admin.NewTopic(name, 1, 1) for name in names]).values():
        future.result(60)
    assert set(names) <= set(client.list_topics(timeout=30).topics)
    producer = Confluent.producer(broker.address)
    failed: list[Any] = []
    for name in names:
        producer.produce(
            name, name.encode(), on_delivery=lambda error, _: error and failed.append(error)
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert failed == []
    consumer = Confluent.consumer(broker.address)
    consumer.assign([confluent_kafka.TopicPartition(name, 0, 0) for name in names])
    found = {}
    while len(found) < len(names):
        batch = consumer.consume(1000, 30)
        assert batch, f"only {len(found)} of the topics were read"
        for message in batch:
            assert message.error() is None
            found[message.topic()] = message.value()
    consumer.close()
    assert found == {name: name.encode() for name in names}
    for future in client.delete_topics(names, operation_timeout=60).values():
        future.result(60)
    assert not set(names) & set(client.list_topics(timeout=30).topics)


def test_no_creation_on_first_use_where_it_is_off(start_broker: Any) -> None:
    broker = start_broker(settings={"auto.create.topics.enable": "false"})
    errors = []
    producer = Confluent.producer(broker.address, **{"message.timeout.ms": 3000})
    producer.produce("t", b"v", on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(30)
    assert errors[0] in {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._MSG_TIMED_OUT,
    }
    assert "t" not in confluent_admin(broker).list_topics(timeout=30).topics


def test_a_request_may_decline_creation(broker: BrokerProcess, topic: str) -> None:
    topics = MetadataRequest.MetadataRequestTopic
    with RawConnection(broker) as connection:
        for allowed, code in ((False, 3), (True, 0), (False, 0)):
            request = MetadataRequest(
                topics=[topics(name=topic)], allow_auto_topic_creation=allowed
            )
            answer = connection.call(request, MetadataResponse, 5)
            assert answer.topics[0].error_code == code
    assert len(answer.topics[0].partitions) == 1
