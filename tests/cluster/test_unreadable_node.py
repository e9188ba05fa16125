"""A partition whose node in ZooKeeper cannot be read costs that partition, and no broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster

pytest.importorskip("kazoo")

from kazoo.client import KazooClient

NONSENSE = b"\xff\xfe{"
NODE = "a metastore node cannot be read"


@contextmanager
def zookeeper(cluster: Cluster) -> Iterator[KazooClient]:
    """As the operator's zkCli.sh, in the cluster's chroot."""
    client = KazooClient(hosts=cluster.metastore.removeprefix("zookeeper://"))
    client.start(timeout=30)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def node_of(client: KazooClient, topic: str, number: int) -> str:
    for bucket in client.get_children("/topics/ids"):
        for topic_id in client.get_children(f"/topics/ids/{bucket}"):
            path = f"/topics/ids/{bucket}/{topic_id}"
            if f'"{topic}"'.encode() in client.get(path)[0]:
                return f"{path}/{number}"
    raise AssertionError(topic)


def produce(cluster: Cluster, topic: str, number: int) -> int:
    """The error code of a record that every replica in sync must have."""
    with cluster.client(cluster.leader(topic, number)) as client:
        return client.produce(topic, [b"v"], partition=number).error_code


def strays(path: Path, topic: str) -> list[str]:
    return [one.name for one in path.iterdir() if topic in one.name and "stray" in one.name]


def test_brokers_outlive_it_keep_its_data_and_serve_it_when_it_is_repaired(
    cluster: Cluster, topic: str
) -> None:
    cluster.create(topic, 3)
    assert [produce(cluster, topic, number) for number in range(3)] == [0, 0, 0]
    bad, restarted = 1, cluster.leader(topic, 1)
    with zookeeper(cluster) as client:
        path = node_of(client, topic, bad)
        good = client.get(path)[0]
        client.set(path, NONSENSE)
        cluster.kill(restarted)
        cluster.until(
            lambda: all(cluster.partition(topic, n).leader in cluster.up() for n in (0, 2)),
            "the other partitions have leaders",
        )
        assert [produce(cluster, topic, number) for number in (0, 2)] == [0, 0]
        cluster.start_brokers(restarted)
        broker = cluster.brokers[restarted]
        # It never knew the partition: nobody's, and its data stays where it is.
        assert cluster.partition(topic, bad, asked=restarted).replicas == ()
        assert (broker.data_dir / f"{topic}-{bad}").is_dir()
        assert strays(broker.data_dir, topic) == []
        cluster.until(
            lambda: (
                restarted in cluster.partition(topic, 0).isr
                and restarted in cluster.partition(topic, 2).isr
            ),
            "it follows the others",
        )
        said = [line for line in broker.log_text().splitlines() if NODE in line]
        assert len(said) == 1
        assert path in said[0]
        assert client.get(path)[0] == NONSENSE, "nobody writes over what cannot be read"
        client.set(path, good)
        # The brokers would look by themselves within five minutes.
        for number in cluster.brokers:
            cluster.kill(number)
            cluster.start_brokers(number)
    cluster.until_whole(topic, 3)
    assert produce(cluster, topic, bad) == 0
