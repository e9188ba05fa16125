"""The client against a broker that is not ours: librdkafka's mock cluster, three brokers of it."""

from __future__ import annotations

import collections
from functools import partial

import anyio
import confluent_kafka
import pytest

import trioq

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def mock_cluster():
    keeper = confluent_kafka.Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "unused"})
    brokers = keeper.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    keeper.flush(10)


async def test_records_go_to_every_leader_and_come_back(mock_cluster, topic):
    keys = [b"key-%d" % number for number in range(500)]
    async with trioq.connect(mock_cluster) as client:
        async with client.producer() as producer:
            await (await producer.send_many(topic, keys, keys=keys))
            written = [await producer.send(topic, key, key=key) for key in keys[:20]]
        state = client.cluster.metadata.state
        partitions = len(state.topics[topic].partitions)
        assert len(state.nodes) == 3
        assert all(metadata.offset >= 0 for metadata in written)
        found = collections.Counter()
        async with client.consumer(auto_offset_reset="earliest") as consumer:
            # Without a group: the mock closes connections that send JoinGroup in version 6.
            consumer.assign([(topic, partition) for partition in range(partitions)])
            with anyio.fail_after(60):
                async for record in consumer:
                    assert record.key == record.value
                    found[record.value] += 1
                    if found.total() == 520:
                        break
    assert found == collections.Counter(keys) + collections.Counter(keys[:20])


async def test_every_leader_is_sent_to(mock_cluster, topic):
    topics = [f"{topic}-{number}" for number in range(8)]  # the mock draws leaders at random
    async with trioq.connect(mock_cluster) as client, client.producer() as producer:
        async with anyio.create_task_group() as tasks:
            for name in topics:
                for partition in range(4):
                    send = partial(producer.send, name, b"v", partition=partition)
                    tasks.start_soon(send)
        state = client.cluster.metadata.state
        leaders = {info.leader_id for name in topics for info in state.topics[name].partitions}
        assert len(leaders) > 1
        assert producer.statistics().records_written == 32


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
async def test_compressed_and_without_idempotence(mock_cluster, topic, compression):
    async with trioq.connect(mock_cluster) as client:
        async with client.producer(acks=1, compression=compression) as producer:
            await (await producer.send_many(topic, [b"v" * 100] * 1000))
            assert producer.statistics().records_written == 1000
