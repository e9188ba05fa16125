"""The lag of groups, with real consumers."""

from __future__ import annotations

import threading

import confluent_kafka
import pytest
import trio

from tests.testing.clients import produce
from trioq.errors import NotCoordinator, UnknownServerError
from trioq.testing import InProcessBroker, NotInTime, unique_topic
from trioq.types import TopicPartition

VALUES = [b"%d" % number for number in range(20)]


@pytest.fixture(scope="module")
def shared():
    with InProcessBroker() as broker:
        yield broker


@pytest.fixture
def topic(shared):
    name = shared.create_topic(partitions=2)
    for partition in (0, 1):
        produce(shared.address, name, VALUES, partition=partition)
    return name


def consume(broker, group, topic, count):
    """Read `count` records as the only member of a group, then commit."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    try:
        read = 0
        while read < count:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            read += 1
            consumer.commit(message, asynchronous=False)
    finally:
        consumer.close()


def test_lag_shrinks(shared, topic):
    group = unique_topic("group")
    assert shared.lag(group) == {}
    assert shared.lag(group, topic) == {TopicPartition(topic, p): 20 for p in (0, 1)}
    consume(shared, group, topic, 15)
    assert sum(shared.lag(group, topic).values()) == 25
    assert sum(shared.wait_for_lag(group, topic, at_most=25).values()) == 25
    with pytest.raises(NotInTime, match=f"group {group} has a lag of 25 \\({topic}-0: "):
        shared.wait_for_lag(group, topic, at_most=24, timeout_s=0.05)
    consume(shared, group, topic, 25)
    assert shared.wait_for_lag(group) == {TopicPartition(topic, p): 0 for p in (0, 1)}


def test_nothing_committed(shared, topic):
    with pytest.raises(NotInTime, match="group nobody has committed nothing"):
        shared.wait_for_lag("nobody", timeout_s=0)
    empty = shared.create_topic()
    assert shared.wait_for_lag("nobody", empty) == {TopicPartition(empty, 0): 0}


@pytest.mark.trio
async def test_waiting_in_trio(shared, topic):
    group = unique_topic("group")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, consume, shared, group, topic, 40)
        await shared.async_wait_for_lag(group, topic)


def test_a_coordinator_that_comes_later_is_waited_for(shared, topic):
    shared.refuse("OffsetFetch", NotCoordinator)
    shared.wait_for_lag("later", topic, at_most=40)
    shared.refuse("OffsetFetch", UnknownServerError)
    with pytest.raises(UnknownServerError):
        shared.lag("later")


def test_waiting_while_a_thread_consumes(shared, topic):
    group = unique_topic("group")
    reader = threading.Thread(target=consume, args=(shared, group, topic, 40))
    reader.start()
    shared.wait_for_lag(group, topic)
    reader.join()
