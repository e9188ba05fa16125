"""The life of a broker process: start, restart, drain, locks, listeners."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.producer import ProduceResponse

from tests.e2e.broker_process import TRIOQ, BrokerProcess
from tests.e2e.clients import CODECS, Aiokafka, Confluent, KafkaPython
from tests.e2e.message import Message, received, sample
from tests.e2e.raw import RawConnection, batch, produce_request
from tests.faults.faulty_broker import wait_until
from trioq.errors import NotLeaderOrFollower

Start = Callable[..., BrokerProcess]
NOT_LEADER_OR_FOLLOWER = 6


def topic_ids(broker: BrokerProcess) -> dict[str, str]:
    with RawConnection(broker) as connection:
        answer = connection.call(MetadataRequest(topics=None), MetadataResponse, 12)
    return {topic.name: str(topic.topic_id) for topic in answer.topics}


def topic_config(broker: BrokerProcess, topic: str) -> dict[str, str]:
    admin = AdminClient({"bootstrap.servers": broker.address})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result()
    own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    return {name: entry.value for name, entry in entries.items() if entry.source == own}


def test_restart_keeps_topics_configs_ids_and_records(start_broker: Start) -> None:
    broker = start_broker()
    admin = AdminClient({"bootstrap.servers": broker.address})
    config = {"retention.ms": "12345678", "max.message.bytes": "2000000"}
    futures = admin.create_topics([NewTopic(codec, 3, 1, config=config) for codec in CODECS])
    for future in futures.values():
        future.result()
    written = {codec: sample(codec, 50) for codec in CODECS}
    for codec, messages in written.items():
        Confluent().write(broker.address, codec, messages, codec=codec, partition=2)
    ids = topic_ids(broker)
    for kill in (False, True, False):
        if kill:
            broker.kill9()
            broker.start()
        else:
            broker.restart()
        assert topic_ids(broker) == ids
        for codec, messages in written.items():
            assert topic_config(broker, codec) == config
            assert KafkaPython().read(
                broker.address, codec, 0, len(messages), partition=2
            ) == received(messages)
            consumer = Confluent.consumer(broker.address)
            place = confluent_kafka.TopicPartition(codec, 2)
            assert consumer.get_watermark_offsets(place, timeout=30) == (0, len(messages))
            consumer.close()


def test_a_deleted_topic_stays_deleted_and_its_name_can_be_used_again(
    start_broker: Start,
) -> None:
    broker = start_broker()
    admin = AdminClient({"bootstrap.servers": broker.address})
    Confluent().write(broker.address, "again", [Message(b"old")])
    old_id = topic_ids(broker)["again"]
    admin.delete_topics(["again"])["again"].result()
    broker.settle()
    assert "again" not in topic_ids(broker)
    broker.restart()
    assert "again" not in topic_ids(broker)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic("again", 1, 1)])["again"].result()
    broker.settle()
    assert topic_ids(broker)["again"] != old_id
    Confluent().write(broker.address, "again", [Message(b"new")])
    found = Confluent().read(broker.address, "again", 0, 1)
    assert [message.value for message in found] == [b"new"]


def test_sequences_are_remembered_over_a_restart(start_broker: Start) -> None:
    broker = start_broker()
    Confluent().write(broker.address, "t", [Message(b"first")])

    def send(sequence: int) -> tuple[int, int]:
        data = batch([Message(b"v")], producer_id=7, producer_epoch=0, base_sequence=sequence)
        with RawConnection(broker) as connection:
            response = connection.call(produce_request("t", data), ProduceResponse, 9)
        answer = response.responses[0].partition_responses[0]
        return answer.error_code, answer.base_offset

    def judged(sequence: int) -> int:
        """The error, once it is not that the leader has to wait for what clients had sent."""
        found: list[int] = []

        def is_judged() -> bool:
            found.append(send(sequence)[0])
            return found[-1] != NotLeaderOrFollower.code

        wait_until(is_judged, "a gap is judged")
        return found[-1]

    assert [send(0), send(1)] == [(0, 1), (0, 2)]
    for kill in (False, True):
        if kill:
            broker.kill9()
            broker.start()
        else:
            broker.restart()
        assert send(1) == (0, 2), "a duplicate gets its original offset"
        assert judged(5) == 45
    assert send(2) == (0, 3)


def test_a_live_producer_and_consumer_survive_a_restart(start_broker: Start) -> None:
    """The clients notice nothing but a pause: no error, no loss, no duplicate."""
    broker = start_broker()
    producer = Confluent.producer(broker.address, **{"enable.idempotence": True})
    errors = []

    def send(number: int) -> None:
        producer.produce(
            "t", b"%d" % number, on_delivery=lambda error, _: error and errors.append(error)
        )

    send(0)
    assert producer.flush(30) == 0
    consumer = Confluent.consumer(broker.address)
    consumer.assign([confluent_kafka.TopicPartition("t", 0, 0)])
    found: list[bytes] = []

    def consume(count: int) -> None:
        deadline = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < deadline
            for message in consumer.consume(count - len(found), 0.2):
                if message.error() is None:
                    found.append(message.value())

    consume(1)
    for start in (1, 101):
        broker.restart()
        for number in range(start, start + 100):
            send(number)
        assert producer.flush(30) == 0
        consume(start + 100)
    consumer.close()
    assert errors == []
    assert found == [b"%d" % number for number in range(201)]


def test_sigterm_under_load_drains_and_exits_0(start_broker: Start) -> None:
    broker = start_broker()
    acknowledged: list[int] = []

    def delivered(error: object, message: confluent_kafka.Message) -> None:
        if error is None:
            acknowledged.append(int(message.value()))

    producer = Confluent.producer(
        broker.address, **{"enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 60_000}
    )
    sent = 0

    def send() -> None:
        nonlocal sent
        if len(producer) > 1_000:
            producer.poll(0.01)
            return
        producer.produce("t", b"%d" % sent, on_delivery=delivered)
        producer.poll(0)
        sent += 1

    while len(acknowledged) < 2_000:
        send()
    broker.signal(signal.SIGTERM)
    while broker.running:
        send()
    assert broker.wait() == 0
    broker.start()
    assert producer.flush(60) == 0
    assert acknowledged == list(range(sent))
    found = Aiokafka().read(broker.address, "t", 0, sent)
    assert [int(message.value or b"") for message in found] == list(range(sent))


def test_sigterm_answers_who_waits(start_broker: Start) -> None:
    """A parked fetch gets its (empty) answer before the connection ends."""
    from kafka.protocol.consumer import FetchResponse

    from tests.e2e.test_fetch import fetch_request, only_partition

    broker = start_broker()
    Confluent().write(broker.address, "t", [Message(b"v")])
    with RawConnection(broker) as connection:
        connection.send_request(fetch_request("t", 1), 11)
        connection_is_served(broker)
        started_s = time.monotonic()
        assert broker.terminate() == 0
        answer = connection.read_response(FetchResponse, 11)
        # In a cluster another leads the partition by then.
        allowed = {0} if len(broker.nodes) == 1 else {0, NOT_LEADER_OR_FOLLOWER}
        assert only_partition(answer).error_code in allowed
        assert connection.is_closed_by_peer()
    assert time.monotonic() - started_s < 10 * len(broker.nodes)


def connection_is_served(broker: BrokerProcess) -> None:
    with RawConnection(broker) as connection:
        connection.call(MetadataRequest(topics=[]), MetadataResponse, 1)


def test_an_idle_broker_stops_at_once(start_broker: Start) -> None:
    broker = start_broker()
    started_s = time.monotonic()
    assert broker.terminate() == 0
    assert time.monotonic() - started_s < 5


def test_sigint_is_as_good_as_sigterm(start_broker: Start) -> None:
    broker = start_broker()
    broker.signal(signal.SIGINT)
    assert broker.wait() == 0


def test_a_second_broker_on_the_same_directory_refuses(start_broker: Start) -> None:
    broker = start_broker()
    second = subprocess.run(
        [TRIOQ, "serve", "--data-dir", broker.data_dir, "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert second.stdout == ""
    assert str(broker.pid) in second.stderr
    assert str(broker.data_dir) in second.stderr
    assert "Traceback" not in second.stderr
    connection_is_served(broker)
    broker.kill9()
    # A lock does not outlive its process.
    broker.start()


def test_the_ready_line_and_nothing_else(start_broker: Start) -> None:
    broker = start_broker(settings={"node.id": "42"})
    assert broker.node_id == 42
    assert broker.port > 0
    Confluent().write(broker.address, "t", [Message(b"v")])
    assert broker.terminate() == 0
    assert broker.stdout.decode().splitlines() == broker.ready_lines


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_ipv6(start_broker: Start) -> None:
    broker = start_broker(listen="[::1]:0")
    assert broker.host == "::1"
    messages = sample("ipv6", 10)
    Confluent().write(broker.address, "t", messages)
    assert Confluent().read(broker.address, "t", 0, 10) == received(messages)
    assert KafkaPython().read(broker.address, "t", 0, 10) == received(messages)


def test_each_listener_tells_its_own_address(start_broker: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        second_port = unused.getsockname()[1]
    broker = start_broker(
        listen="IN://127.0.0.1:0",
        arguments=(
            "--listen",
            f"OUT://127.0.0.1:{second_port}",
            "--advertised",
            f"OUT://localhost:{second_port}",
        ),
    )
    with RawConnection(broker) as connection:
        answer = connection.call(MetadataRequest(topics=[]), MetadataResponse, 1)
        assert [(one.host, one.port) for one in answer.brokers] == [("127.0.0.1", broker.port)]
    first_port, broker.port = broker.port, second_port
    with RawConnection(broker) as connection:
        answer = connection.call(MetadataRequest(topics=[]), MetadataResponse, 1)
        assert [(one.host, one.port) for one in answer.brokers] == [("localhost", second_port)]
    broker.port = first_port
    messages = sample("listeners", 5)
    Confluent().write(f"localhost:{second_port}", "t", messages)
    assert Confluent().read(broker.address, "t", 0, 5) == received(messages)


def test_the_dead_do_not_hold_their_port(start_broker: Start) -> None:
    """After kill -9 with open connections the same port can be listened on at once."""
    broker = start_broker()
    port = broker.port
    with RawConnection(broker) as connection:
        connection.call(MetadataRequest(topics=[]), MetadataResponse, 1)
        broker.kill9()
        broker.start()
    assert broker.port == port


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `trioq serve` where it has to refuse."""
    return subprocess.run(
        [TRIOQ, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--set", "num.partition=3"), ["num.partition", "num.partitions"]),
        (("--set", "num.partitions=none"), ["num.partitions", "none", "integer"]),
        (("--set", "flush.policy=always"), ["flush.policy", "always", "commit"]),
        (("--listen", "0.0.0.0:0"), ["--advertised"]),
        (("--listen", "127.0.0.1"), ["127.0.0.1", "HOST:PORT"]),
        (("--metastore", "etcd://x"), ["metastore", "etcd://x", "embedded"]),
    ],
)
def test_a_wrong_setting_is_explained(
    tmp_path: Path, arguments: tuple[str, ...], named: list[str]
) -> None:
    done = serve("--data-dir", str(tmp_path / "data"), *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(text in done.stderr for text in named), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_explained(broker: BrokerProcess, tmp_path: Path) -> None:
    address = broker.nodes[broker.node_id]
    done = serve("--data-dir", str(tmp_path / "data"), "--listen", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_flag_environment_and_file(start_broker: Start, tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text('"num.partitions" = 3\n"node.id" = 5\n"broker.rack" = "file"\n')
    broker = start_broker(
        settings={"node.id": "9"},
        arguments=("--config", str(path)),
        environment={"TRIOQ_NUM_PARTITIONS": "4", "TRIOQ_NODE_ID": "7"},
    )
    assert broker.node_id == 9, "a flag is over the environment"
    Confluent().write(broker.address, "t", [Message(b"v")])
    with RawConnection(broker) as connection:
        answer = connection.call(MetadataRequest(topics=None), MetadataResponse, 1)
    assert len(answer.topics[0].partitions) == 4, "the environment is over the file"
    assert answer.brokers[0].rack == "file"
