"""What bench/cluster makes of what it saw."""

from __future__ import annotations

import pytest

from bench.cluster.command import TARGETS, _cases
from bench.cluster.failing import percentile
from bench.cluster.watching import Watcher
from bench.errors import BenchError


def watcher(*times: list[float]) -> Watcher:
    made = Watcher({}, "t", len(times))
    for known, seen in zip(made.acknowledged, times, strict=True):
        known.extend(seen)
    return made


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(one) for one in range(200, 0, -1)]
    assert percentile(values, 50) == 100
    assert percentile(values, 99) == 198
    assert percentile([7.0], 99) == 7


def test_a_gap_may_begin_before_what_is_looked_at() -> None:
    made = watcher([1.0, 2.0, 5.0, 5.5], [4.0, 4.5, 6.0])
    assert made.longest_gaps(4.2) == [3.0, 1.5]
    assert made.first_after(4.2) == [pytest.approx(0.8), pytest.approx(0.3)]


def test_a_partition_that_takes_no_writes_is_a_failure() -> None:
    made = watcher([1.0, 9.0], [1.0])
    with pytest.raises(BenchError, match="1 partitions take no writes"):
        made.wait_until_all(2.0, 0.05)
    made.wait_until_all(0.5, 0.05)


def test_every_target_is_of_a_case() -> None:
    assert {case for case, _ in TARGETS} <= set(_cases(1.0))
