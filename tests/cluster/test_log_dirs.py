"""A log directory that fails, where a replica that lags is waited for as long as ten minutes."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import running
from tests.cluster.scene import FAILOVER_S, PARTITIONS, under_load
from tests.cluster.test_cluster_command import described

BENT = 3
ERRORS = {"log_dir_offline", "replica_fetch_failed", "partition_offline"}


def test_replicas_of_a_failed_directory_are_succeeded_and_left_at_once(tmp_path: Path, topic: str):
    """What it led others lead, what it followed goes on without it, and it is not elected."""
    settings = {"replica.lag.time.max.ms": "600000"}
    with (
        running(tmp_path / "cluster", settings=settings, bent={BENT}) as cluster,
        under_load(cluster, topic, tmp_path, errors=ERRORS) as scene,
    ):
        cluster.until(
            lambda: any(cluster.leader(topic, n) == BENT for n in range(PARTITIONS)),
            f"{BENT} leads something",
            patience_s=FAILOVER_S,
        )
        scene.note(f"every write to the disk of {BENT} fails")
        cluster.brokers[BENT].arm({"operation": "pwritev", "path": "*.log", "do": "EIO"})
        for number in range(PARTITIONS):
            cluster.until(
                lambda number=number: cluster.partition(topic, number, asked=1).isr == {1, 2},
                f"{BENT} has left the ISR of {topic}-{number}",
                patience_s=20,
            )
        scene.goes_on()
        assert all(cluster.leader(topic, number) in {1, 2} for number in range(PARTITIONS))
        view = described(cluster)
        assert {one["id"]: one["failed"] for one in view["brokers"]} == {1: 0, 2: 0, BENT: 3}
        assert [one["failed"] for one in view["failed"]] == [[BENT]] * PARTITIONS
        scene.note(f"the disk of {BENT} is mended")
        scene.kill(BENT)
        cluster.brokers[BENT].heal()
        scene.start(BENT)
        cluster.until_whole(topic, PARTITIONS)
        assert described(cluster)["failed"] == []
