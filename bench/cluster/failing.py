"""How long partitions take no writes when their leader dies, and when it stops in order."""

from __future__ import annotations

import math
import os
import signal
import time
from typing import Self

from bench.cluster.processes import Cluster, create_topic, running_cluster, settle
from bench.cluster.watching import Watcher
from bench.path.ask import Asker

Figures = dict[str, float]

SESSION_TIMEOUT_S = 4.0
PARTITIONS = 200
STEADY_S = 2.0
PATIENCE_S = 60.0
VICTIM, CONTROLLER = 3, 1
ASSIGNMENTS = [(VICTIM, 1, 2) if number % 2 else (VICTIM, 2, 1) for number in range(PARTITIONS)]
SETTINGS = {"zookeeper.session.timeout.ms": str(int(SESSION_TIMEOUT_S * 1000))}


def killed_leader() -> Figures:
    """From kill -9 of the leader of 200 partitions to each one's next acknowledgement."""
    with running_cluster(SETTINGS) as cluster, _watched(cluster) as watcher:
        killed_s = time.monotonic()
        os.kill(cluster.brokers[VICTIM].pid, signal.SIGKILL)
        watcher.wait_until_all(killed_s + 0.05, PATIENCE_S)
        # What was on its way when it died may be acknowledged up to now.
        times = watcher.first_after(killed_s + 0.05)
    return {
        "p50_s": percentile(times, 50) + 0.05,
        "p99_s": percentile(times, 99) + 0.05,
        "after_session_p99_s": percentile(times, 99) + 0.05 - SESSION_TIMEOUT_S,
    }


def controlled_shutdown() -> Figures:
    """The longest time without an acknowledgement while the leader stops in order."""
    with running_cluster(SETTINGS) as cluster, _watched(cluster) as watcher:
        started_s = time.monotonic()
        before = watcher.longest_gaps(started_s - STEADY_S / 2)
        os.kill(cluster.brokers[VICTIM].pid, signal.SIGTERM)
        time.sleep(STEADY_S)
        watcher.wait_until_all(time.monotonic(), PATIENCE_S)
        gaps = watcher.longest_gaps(started_s)
    return {
        "longest_ms": max(gaps) * 1000,
        "p50_ms": percentile(gaps, 50) * 1000,
        "steady_longest_ms": max(before) * 1000,
    }


def percentile(values: list[float], percent: float) -> float:
    """The least value that so many percent do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _watched(cluster: Cluster) -> Watcher:
    """A watcher whose writes have gone on for a while, of a topic led by VICTIM."""
    with Asker(cluster.brokers[CONTROLLER]) as asker:
        create_topic(asker, "watched", ASSIGNMENTS)
    settle(STEADY_S)
    return SteadyWatcher(cluster.brokers, "watched", PARTITIONS)


class SteadyWatcher(Watcher):
    """Begins when all partitions have been written for a while."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.wait_until_all(0.0, PATIENCE_S)
        time.sleep(STEADY_S)
        return self
