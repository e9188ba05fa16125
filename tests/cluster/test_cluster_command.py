"""`trioq cluster` on a real cluster: a broker comes, the cluster is evened out, a broker leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import confluent_kafka

from tests.cluster.harness import Cluster, running
from tests.e2e.broker_process import TRIOQ

PARTITIONS = 9
RECORDS = 3_000
TIMEOUT_S = 120.0


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [TRIOQ, "cluster", "--bootstrap-server", cluster.bootstrap, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def described(cluster: Cluster) -> dict:
    done = command(cluster, "describe", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def held(cluster: Cluster) -> dict[int, int]:
    return {one["id"]: one["replicas"] for one in described(cluster)["brokers"]}


def produce(cluster: Cluster) -> None:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": cluster.bootstrap, "acks": "all", "enable.idempotence": True}
    )
    for number in range(RECORDS):
        producer.produce("orders", f"{number:05}" * 20, partition=number % PARTITIONS)
        producer.poll(0)
    assert producer.flush(60) == 0


def count(cluster: Cluster) -> int:
    """Every record that can be read, each once."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition("orders", n, 0) for n in range(PARTITIONS)])
    values: list[bytes] = []
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        message = consumer.poll(30)
        assert message is not None
        if message.error() is None:
            values.append(message.value())
        else:
            ended.add(message.partition())
    consumer.close()
    assert len(set(values)) == len(values)
    return len(values)


def test_a_cluster_grows_and_shrinks(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.create("orders", PARTITIONS)
        produce(cluster)
        before = described(cluster)
        assert [one["state"] for one in before["brokers"]] == ["up"] * 3
        assert not before["under_replicated"]
        refused = command(cluster, "drain", "3")
        assert refused.returncode == 1
        assert "without broker 3 there are 2 brokers" in refused.stderr
        cluster.add(4)
        cluster.start_brokers(4)
        planned = command(cluster, "rebalance", "--dry-run")
        assert len(planned.stdout.splitlines()) >= 6
        assert held(cluster)[4] == 0
        done = command(cluster, "rebalance", "--throttle", "100M")
        assert done.returncode == 0, done.stderr
        assert sorted(held(cluster).values()) == [6, 7, 7, 7]
        cluster.until_whole("orders", PARTITIONS)
        leaders = [one["leaders"] for one in described(cluster)["brokers"]]
        assert max(leaders) - min(leaders) <= 1
        assert count(cluster) == RECORDS
        drained = command(cluster, "drain", "1", "--throttle", "100M")
        assert drained.returncode == 0, drained.stderr
        assert held(cluster)[1] == 0
        assert cluster.brokers[1].terminate() == 0
        cluster.until_whole("orders", PARTITIONS)
        assert count(cluster) == RECORDS
        told = described(cluster)
        assert [one["id"] for one in told["brokers"]] == [2, 3, 4]
        assert not any(told[name] for name in ("offline", "under_replicated", "reassignments"))
        cluster.kill(2)
        cluster.until(
            lambda: len(described(cluster)["under_replicated"]) == PARTITIONS, "it is seen"
        )
        told = described(cluster)
        assert [one["state"] for one in told["brokers"]] == ["down", "up", "up"]
        assert not told["offline"]
        cluster.start_brokers(2)
        cluster.until_whole("orders", PARTITIONS)
        elected = command(cluster, "elect-leaders", "--topic", "orders")
        assert elected.returncode == 0, elected.stdout
        assert held(cluster) == {2: 9, 3: 9, 4: 9}
        leaders = [one["leaders"] for one in described(cluster)["brokers"]]
        assert max(leaders) - min(leaders) <= 3
