"""Connecting, and what a client is while it is open."""

from __future__ import annotations

import os

import anyio
import pytest

import trioq
from trioq.client.address import HostPort, parse_bootstrap
from trioq.client.cluster_state import Node
from trioq.errors import (
    BootstrapFailed,
    ClientClosed,
    ClientForked,
    ClientUsageError,
    ConnectionFailed,
    InvalidTopicException,
)
from trioq.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse

pytestmark = pytest.mark.anyio


async def test_connects_and_says_what_it_knows(broker):
    async with trioq.connect(broker.address) as client:
        statistics = client.statistics()
        assert statistics.brokers == 1
        assert statistics.cluster_id
        response = await client.cluster.call_any(DescribeClusterRequest(), DescribeClusterResponse)
        assert response.cluster_id == statistics.cluster_id
        assert client.statistics().open_connections == 1
        assert client.statistics().sent_bytes > 0


async def test_a_broker_that_does_not_answer_is_passed_over(broker, closed_port):
    async with trioq.connect([f"127.0.0.1:{closed_port}", broker.address]) as client:
        assert client.statistics().brokers == 1


async def test_unreachable_bootstrap_names_each_address_and_reason(closed_port):
    client = trioq.connect(f"127.0.0.1:{closed_port}")
    with pytest.raises(BootstrapFailed, match=rf"127\.0\.0\.1:{closed_port}.*refused"):
        await client.__aenter__()


async def test_an_address_that_accepts_and_says_nothing_times_out():
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener:
        client = trioq.connect(f"127.0.0.1:{port}", request_timeout_ms=50)
        with pytest.raises(BootstrapFailed, match="did not answer ApiVersions"):
            await client.__aenter__()


async def test_what_the_block_raises_comes_out_as_it_is(broker):
    with pytest.raises(ZeroDivisionError):
        async with trioq.connect(broker.address):
            raise ZeroDivisionError


async def test_cancellation_inside_of_the_block_passes(broker):
    with anyio.move_on_after(0.05) as scope:
        async with trioq.connect(broker.address):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_cancellation_while_connecting_leaves_nothing():
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener:
        with anyio.move_on_after(0.05) as scope:
            async with trioq.connect(f"127.0.0.1:{port}"):
                pass
        assert scope.cancelled_caught


async def test_a_client_is_used_inside_of_its_block_only(broker):
    client = trioq.connect(broker.address)
    with pytest.raises(ClientClosed, match="not open"):
        client.statistics()
    async with client:
        pass
    with pytest.raises(ClientClosed, match="was closed"):
        client.statistics()
    with pytest.raises(ClientClosed, match="entered once"):
        await client.__aenter__()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_forked_child_is_refused(broker, anyio_backend):
    async with trioq.connect(broker.address) as client:
        child = os.fork()
        if child == 0:
            try:
                client.statistics()
            except ClientForked as error:
                os._exit(0 if "open another" in str(error) else 2)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert client.statistics().brokers == 1


async def test_topics_are_found_created_and_refused(broker, topic):
    async with trioq.connect(broker.address, unknown_topic_timeout_ms=1) as client:
        metadata = client.cluster.metadata
        with pytest.raises(trioq.KafkaError, match=f"does not know topic '{topic}'"):
            await metadata.topic(topic)
        info = await metadata.topic(topic, may_create=True)
        assert [partition.leader_id for partition in info.partitions] == [broker.node_id]
        assert topic in await metadata.all_topics()
        with pytest.raises(InvalidTopicException, match="249 letters"):
            await metadata.topic("no/topic", may_create=True)


async def test_a_broker_that_is_gone_is_bootstrapped_again(start_broker):
    broker = start_broker()
    async with trioq.connect(broker.address) as client:
        cluster = client.cluster
        await cluster.call_any(DescribeClusterRequest(), DescribeClusterResponse)
        broker.kill9()
        with pytest.raises(ConnectionFailed):
            await cluster.call(broker.node_id, DescribeClusterRequest(), DescribeClusterResponse)
        with pytest.raises(BootstrapFailed):
            await cluster.metadata.refreshed()
        broker.start()
        cluster.metadata.state.nodes = {7: Node(7, HostPort("127.0.0.1", 1), None)}
        while True:
            try:
                await cluster.metadata.refreshed()
                break
            except ConnectionFailed:
                continue
        assert set(cluster.metadata.state.nodes) == {broker.node_id}
        await cluster.call(broker.node_id, DescribeClusterRequest(), DescribeClusterResponse)


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("a:1", [("a", 1)]),
        ("a:1, b:2,a:1", [("a", 1), ("b", 2)]),
        (["a:1", "[::1]:2"], [("a", 1), ("::1", 2)]),
    ],
)
def test_bootstrap_addresses(given, parsed):
    assert parse_bootstrap(given) == tuple(HostPort(*pair) for pair in parsed)


@pytest.mark.parametrize("given", ["", [], "a", "a:0", ":1", "a:b", "a:99999"])
def test_bootstrap_addresses_that_are_none(given):
    with pytest.raises(ClientUsageError):
        parse_bootstrap(given)


def test_settings_are_checked():
    with pytest.raises(ClientUsageError, match="request_timeout_ms=0"):
        trioq.connect("a:1", request_timeout_ms=0)
