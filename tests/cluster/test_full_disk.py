"""A real file system that is full, under one broker of three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cluster.harness import running
from tests.cluster.scene import under_load
from tests.faults.test_full_disk import fill_volume

VOLUME_BYTES = 16 << 20
ERRORS = {"log_dir_offline", "replica_fetch_failed"}


def test_a_full_disk_costs_one_replica(
    mount_tmpfs: Callable[[str, int], Path], tmp_path: Path, topic: str
):
    """What it led is led by others; with space again, and a start, it is a replica as before."""
    volume = mount_tmpfs("small", VOLUME_BYTES)
    with (
        running(tmp_path / "cluster", data_dirs={3: volume / "data"}) as cluster,
        under_load(cluster, topic, tmp_path, errors=ERRORS) as scene,
    ):
        scene.note("the disk of 3 fills up")
        fill_volume(volume)
        scene.goes_on()
        scene.isr_is(1, 2, asked=1)
        scene.goes_on()
        (line,) = cluster.brokers[3].events("log_dir_offline")
        assert "No space left" in line["error"]
        scene.kill(3)
        (volume / "ballast").unlink()
