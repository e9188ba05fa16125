"""InProcessBroker: its life, its ends, its inside; with real clients from every kind of test."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import aiokafka
import confluent_kafka
import pytest
import trio

from tests.testing.clients import produce
from trioq.client.client import connect
from trioq.errors import (
    BrokerBug,
    ConfigError,
    InvalidRecord,
    NotLeaderOrFollower,
    StartupError,
    TopicAuthorizationFailed,
)
from trioq.testing import InProcessBroker, NotInTime
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

VALUES = [b"%d" % number for number in range(50)]


@pytest.fixture(scope="module")
def shared():
    with InProcessBroker() as broker:
        yield broker


def values(broker, topic):
    return [record.value for record in broker.records(topic)]


# ---- from every kind of test


def test_a_sync_client(shared):
    topic = shared.create_topic()
    assert produce(shared.address, topic, VALUES) == [None] * 50
    assert values(shared, topic) == VALUES
    assert shared.end_offsets(topic) == {0: 50}


def test_an_asyncio_client(shared):
    async def main():
        topic = shared.create_topic()
        async with aiokafka.AIOKafkaProducer(bootstrap_servers=shared.address) as producer:
            for value in VALUES:
                await producer.send(topic, value)
            records = await shared.async_wait_for_records(topic, len(VALUES))
        assert [record.value for record in records] == VALUES

    asyncio.run(main())


@pytest.mark.trio
async def test_a_trio_test():
    with InProcessBroker() as broker:
        topic = broker.create_topic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, produce, broker.address, topic, VALUES)
            records = await broker.async_wait_for_records(topic, len(VALUES))
        assert [record.value for record in records] == VALUES


def test_waiting_is_limited_and_says_what_is_there(shared):
    topic = shared.create_topic(partitions=3)
    produce(shared.address, topic, VALUES[:2])
    with pytest.raises(NotInTime, match=f"{topic} has 2 records of 3"):
        shared.wait_for_records(topic, 3, timeout_s=0.05)
    with pytest.raises(NotInTime, match="missing has 0 records of 1"):
        shared.wait_for_records("missing", timeout_s=0)
    assert shared.records("missing") == []


def test_waiting_for_a_topic_that_comes_later(shared):
    topic = "comes-later"
    other = threading.Timer(0.05, produce, (shared.address, topic, VALUES[:1]))
    other.start()
    assert [record.value for record in shared.wait_for_records(topic)] == VALUES[:1]
    other.join()


def test_several_at_once():
    with InProcessBroker() as one, InProcessBroker() as other:
        produce(one.address, "t", [b"one"])
        produce(other.address, "t", [b"other"])
        assert values(one, "t") == [b"one"]
        assert values(other, "t") == [b"other"]


# ---- ends and starts


def was_clean(broker):
    return broker.call(lambda context: context.log_dirs.dirs[0].was_clean)


def test_restart_keeps_data_and_port():
    with InProcessBroker() as broker:
        produce(broker.address, "t", VALUES)
        address = broker.address
        assert broker.restart().address == address
        assert was_clean(broker)
        assert values(broker, "t") == VALUES


def test_a_crash_leaves_what_a_kill_would(tmp_path):
    with InProcessBroker(data_dir=tmp_path / "data") as broker:
        topic = broker.create_topic(partitions=2)
        produce(broker.address, topic, VALUES)
        files = {path: path.stat().st_mtime_ns for path in broker.data_dir.rglob("*.log")}
        before = sorted(broker.data_dir.glob("*"))
        broker.crash()
        assert {path: path.stat().st_mtime_ns for path in broker.data_dir.rglob("*.log")} == files
        after = {path for path in broker.data_dir.glob("*") if "metastore" not in path.name}
        assert after == {path for path in before if "metastore" not in path.name}
        broker.start()
        assert not was_clean(broker)
        assert sorted(values(broker, topic), key=int) == VALUES
        broker.restart()
        assert was_clean(broker)
    assert (tmp_path / "data").is_dir()


def requests_of(broker):
    """How many requests wait for their answer."""
    return sum(len(one.ring) for one in broker.broker.server.reactor.connections)


def test_a_crash_drops_sockets_without_an_answer():
    with InProcessBroker() as broker:
        topic = broker.create_topic()
        with socket.create_connection((broker.host, broker.port)) as connection:
            # Fetch 4 that waits for a byte for a minute
            name = topic.encode()
            body = struct.pack(">iiiibi", -1, 60_000, 1, 1 << 20, 0, 1)
            body += struct.pack(">h", len(name)) + name + struct.pack(">iiqi", 1, 0, 0, 1 << 20)
            frame = struct.pack(">hhih", 1, 4, 1, -1) + body
            connection.sendall(struct.pack(">i", len(frame)) + frame)
            while not broker.call(lambda _context: requests_of(broker)):
                pass
            broker.crash()
            connection.settimeout(20)
            assert connection.recv(1) == b""
        broker.start()


def test_acknowledged_records_survive_many_crashes():
    with InProcessBroker() as broker:
        topic = broker.create_topic()
        for number in range(4):
            assert produce(broker.address, topic, [b"%d" % number]) == [None]
            broker.crash()
            broker.start()
        assert values(broker, topic) == [b"0", b"1", b"2", b"3"]


def test_nothing_is_acknowledged_that_a_crash_in_the_middle_loses():
    with InProcessBroker() as broker:
        topic = broker.create_topic(partitions=3)
        acknowledged = set()
        for first in range(0, 80_000, 20_000):
            writer = Writer(broker.address, topic, first)
            with writer:
                while writer.is_busy and len(writer.acknowledged) < 300:
                    writer.turn.wait(0.001)
                broker.crash()
            acknowledged |= writer.acknowledged
            broker.start()
            assert acknowledged <= set(values(broker, topic))
        assert len(acknowledged) >= 1000


class Writer:
    """Writes numbers without retries, in a thread, until the broker is gone."""

    def __init__(self, address, topic, first):
        self.acknowledged = set()
        self.turn = threading.Event()
        self._topic = topic
        self._first = first
        self._thread = threading.Thread(target=self._run)
        self._is_over = False
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": address, "log_level": 0, "linger.ms": 0, "acks": 1, "retries": 0}
        )

    @property
    def is_busy(self):
        return self._thread.is_alive()

    def _run(self):
        for number in range(self._first, self._first + 20_000):
            self._producer.produce(self._topic, b"%d" % number, on_delivery=self._delivered)
            self._producer.poll(0)
            if self._is_over:
                break
        self._producer.flush(0.2)

    def _delivered(self, error, message):
        if error is None:
            self.acknowledged.add(message.value())

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join()
        self._producer.purge()
        self._producer.flush(1)


def test_settings_are_the_brokers():
    with InProcessBroker(settings={"num.partitions": "5", "log.segment.bytes": "2000"}) as broker:
        assert broker.call(lambda context: context.config.num_partitions) == 5
        assert broker.call(lambda context: context.config.group_initial_rebalance_delay_ms) == 0
        broker.settings["num.partitions"] = "6"
        broker.restart()
        assert broker.call(lambda context: context.config.num_partitions) == 6


# ---- pause


def test_paused_nothing_is_answered():
    with InProcessBroker() as broker:
        topic = broker.create_topic()
        done = threading.Event()

        def write():
            produce(broker.address, topic, VALUES)
            done.set()

        with broker.paused():
            writer = threading.Thread(target=write)
            writer.start()
            broker.pause()  # again: nothing happens
            assert not done.wait(0.1)
            with pytest.raises(RuntimeError, match="paused"):
                broker.call(lambda _context: None)
        assert done.wait(30)
        writer.join()
        broker.resume()
        assert values(broker, topic) == VALUES


@pytest.mark.parametrize("end", ["stop", "crash", "close", "restart"])
def test_a_paused_broker_can_be_ended(end):
    with InProcessBroker() as broker:
        broker.pause()
        getattr(broker, end)()
        assert broker.is_running == (end == "restart")


# ---- mistakes and bugs


def test_start_twice_and_use_without_start():
    broker = InProcessBroker()
    try:
        for call in (broker.pause, lambda: broker.call(print), lambda: broker.broker):
            with pytest.raises(RuntimeError, match="does not run"):
                call()
        broker.resume()
        broker.stop()
        broker.crash()
        with broker, pytest.raises(RuntimeError, match="started already"):
            broker.start()
    finally:
        broker.close()


def test_a_refusal_to_start_is_raised(tmp_path):
    with InProcessBroker(data_dir=tmp_path) as broker:
        with pytest.raises(StartupError, match="in use by another broker"):
            InProcessBroker(data_dir=tmp_path).__enter__()
        with pytest.raises(StartupError, match="another process listens there"):
            InProcessBroker(port=broker.port).__enter__()
    with pytest.raises(ConfigError, match="num.partitions=many"):
        InProcessBroker(settings={"num.partitions": "many"}).__enter__()


def break_it(broker):
    def fail():
        raise BrokerBug("a log is not what it should be")

    broker.call(lambda context: context.end_of_pass.append(fail))
    with socket.create_connection((broker.host, broker.port)) as connection:
        connection.settimeout(20)
        connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        assert connection.recv(100) == b""


def test_a_bug_is_raised_at_the_end_of_the_block():
    with (
        pytest.raises(BrokerBug, match="ended by itself.*a log is not what it should be"),
        InProcessBroker() as broker,
    ):
        break_it(broker)


def test_a_bug_is_raised_by_the_next_call():
    broker = InProcessBroker().start()
    break_it(broker)
    while broker.is_running:
        pass
    for _ in range(2):
        with pytest.raises(BrokerBug, match="a log is not"):
            broker.call(lambda context: context.image)
    with pytest.raises(BrokerBug, match="a log is not"):
        broker.close()
    broker.close()
    assert not broker.data_dir.exists()


def test_what_a_call_raises_is_raised_here(shared):
    with pytest.raises(ZeroDivisionError):
        shared.call(lambda _context: 1 // 0)
    assert shared.call(lambda context: context.config.node_id) == 1


def test_the_image_shows_topics(shared):
    topic = shared.create_topic(partitions=4, config={"retention.ms": "1000"})
    found = shared.image.topics[topic]
    assert len(found.partitions) == 4
    assert shared.broker.context.image.topics[topic] == found


# ---- refused requests


def test_a_refused_request_is_not_done(shared):
    topic = shared.create_topic()
    shared.refuse("Produce", InvalidRecord)
    errors = produce(shared.address, topic, [b"refused"], retries=0, acks="1")
    assert [error.name() for error in errors] == ["INVALID_RECORD"]
    assert produce(shared.address, topic, [b"taken"]) == [None]
    assert values(shared, topic) == [b"taken"]


def test_retriable_refusals_are_retried(shared):
    topic = shared.create_topic()
    shared.refuse(ApiKey.PRODUCE, NotLeaderOrFollower, times=3)
    assert produce(shared.address, topic, VALUES, **{"retry.backoff.ms": 1}) == [None] * 50
    assert values(shared, topic) == VALUES


def test_refused_without_acknowledgement(shared):
    topic = shared.create_topic()
    shared.refuse("Produce", InvalidRecord, times=1)
    produce(shared.address, topic, [b"lost"], acks=0)
    shared.refuse("Produce", InvalidRecord, times=0)
    produce(shared.address, topic, [b"taken"])
    assert [record.value for record in shared.wait_for_records(topic)][-1] == b"taken"


def test_refused_metadata_still_names_the_brokers():
    with InProcessBroker() as broker:
        topic = broker.create_topic()
        request = MetadataRequest(topics=[MetadataRequestTopic(name=topic)])

        async def ask():
            async with connect(broker.address) as client:
                broker.refuse("Metadata", TopicAuthorizationFailed)
                nothing = MetadataRequest(topics=[])
                requests = nothing, request, request
                return [await client.cluster.call_any(one, MetadataResponse) for one in requests]

        unasked, refused, answered = trio.run(ask)
        codes = [one.error_code for one in (*unasked.topics, *refused.topics, *answered.topics)]
        assert codes == [TopicAuthorizationFailed.code, 0]
        for response in (unasked, refused, answered):
            assert [one.port for one in response.brokers] == [broker.port]


def test_what_cannot_be_refused(shared):
    with pytest.raises(ValueError, match="no API is called Nothing; there are .*Produce"):
        shared.refuse("Nothing", InvalidRecord)
