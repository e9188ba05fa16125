"""Comparing replicas finds what differs below the high watermark, and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.cluster.replicas import compare_replicas
from tests.unit.storage_support import NOW_MS, TOPIC_ID, Config, put
from trioq.clock import ManualClock
from trioq.record.layout import HEADER_BYTES
from trioq.storage.disk import OsDisk
from trioq.storage.log_dirs import LogDirs
from trioq.types import TopicPartition

ORDERS = TopicPartition("orders", 0)


def write(
    path: Path,
    values: list[bytes],
    *,
    high_watermark: int | None = None,
    segment_bytes: int = 1 << 20,
    epochs: dict[int, int] | None = None,
) -> Path:
    """A data directory whose log holds `values`, a batch each, as a stopped broker leaves it."""
    path.mkdir()
    dirs = LogDirs.open(
        (str(path),),
        cluster_id="test-cluster",
        node_id=int(path.name),
        disk=OsDisk(),
        clock=ManualClock(NOW_MS),
        random=Random(0),
    )
    log = dirs.log(ORDERS, TOPIC_ID, Config(segment_bytes=segment_bytes))
    for number, value in enumerate(values):
        put(log, value, epoch=(epochs or {}).get(number, 0))
    log.high_watermark = len(values) if high_watermark is None else high_watermark
    dirs.close()
    return path


VALUES = [b"%03d" % number for number in range(40)]


def test_the_same_records_in_other_segments_are_the_same(tmp_path: Path) -> None:
    found = compare_replicas(
        {
            1: write(tmp_path / "1", VALUES),
            2: write(tmp_path / "2", VALUES, segment_bytes=500),
            3: write(tmp_path / "3", [*VALUES, b"not committed"], high_watermark=40),
        }
    )
    assert found.problems == []
    assert found.compared == {ORDERS: (0, 40)}


def test_another_value_below_the_high_watermark(tmp_path: Path) -> None:
    other = [*VALUES[:20], b"xxx", *VALUES[21:]]
    dirs = {1: write(tmp_path / "1", VALUES), 2: write(tmp_path / "2", other)}
    (problem,) = compare_replicas(dirs).problems
    assert problem.startswith("orders-0 differs at offset 20: broker 1 has 20 to 21 (")


def test_another_leader_epoch_below_the_high_watermark(tmp_path: Path) -> None:
    dirs = {
        1: write(tmp_path / "1", VALUES),
        2: write(tmp_path / "2", VALUES, epochs={39: 1}),
    }
    (problem,) = compare_replicas(dirs).problems
    assert "differs at offset 39" in problem


def test_the_tail_above_the_high_watermark_may_differ(tmp_path: Path) -> None:
    dirs = {
        1: write(tmp_path / "1", [*VALUES, b"one"], high_watermark=40),
        2: write(tmp_path / "2", [*VALUES, b"two"], high_watermark=38),
    }
    assert compare_replicas(dirs).problems == []
    (problem,) = compare_replicas(dirs, ends={ORDERS: 41}).problems
    assert "differs at offset 40" in problem


def test_a_replica_that_is_short(tmp_path: Path) -> None:
    dirs = {1: write(tmp_path / "1", VALUES), 2: write(tmp_path / "2", VALUES[:30])}
    assert compare_replicas(dirs).problems == ["orders-0 on broker 2 ends at 30, below 40"]
    assert compare_replicas(dirs, may_lag=frozenset({2})).problems == []


def test_a_damaged_batch(tmp_path: Path) -> None:
    dirs = {1: write(tmp_path / "1", VALUES), 2: write(tmp_path / "2", VALUES)}
    (path,) = (dirs[2] / "orders-0").glob("*.log")
    data = bytearray(path.read_bytes())
    data[len(data) // len(VALUES) * 20 + HEADER_BYTES] ^= 1
    path.write_bytes(data)
    problems = compare_replicas(dirs).problems
    assert any("CRC does not match" in problem for problem in problems)
    assert any("differs at offset" in problem for problem in problems)


def test_a_partition_that_nobody_has(tmp_path: Path) -> None:
    dirs = {1: write(tmp_path / "1", VALUES)}
    (problem,) = compare_replicas(dirs, ends={TopicPartition("gone", 0): 5}).problems
    assert problem == "gone-0 is on none of the brokers [1]"


@pytest.mark.parametrize("torn", [7, 60])
def test_a_torn_tail_is_no_problem(tmp_path: Path, torn: int) -> None:
    dirs = {1: write(tmp_path / "1", VALUES), 2: write(tmp_path / "2", VALUES)}
    (path,) = (dirs[2] / "orders-0").glob("*.log")
    data = path.read_bytes()
    path.write_bytes(data + data[: len(data) // 40][:torn])
    assert compare_replicas(dirs).problems == []
