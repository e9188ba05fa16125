"""A cluster under load, what is done to it, and the verdict: nothing that was promised is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.cluster.checker import Report
from tests.cluster.harness import POLL_S, Cluster
from tests.cluster.history import History
from tests.cluster.recorder import Recorder
from tests.cluster.replicas import compare_replicas
from trioq.types import TopicPartition

PARTITIONS = 3
FAILOVER_S = 60.0
"""So long a test waits for what comes a session timeout after a failure, on a busy machine."""

SETTLE_S = 30.0
OTHERS = {"strays_kept_offline"}
"""What a broker complains of for topics that other tests deleted while it was down."""

DAY_MS = 86_400_000


class Shape(NamedTuple):
    """What load there is on what topic: configuration, and arguments of the Recorder."""

    name: str
    config: Mapping[str, str] = {}
    recorder: Mapping[str, Any] = {}


SHAPES = (
    Shape("plain"),
    Shape("short segments", {"segment_bytes": "16384", "index_interval_bytes": "512"}),
    Shape(
        "synced",
        {"flush_policy": "commit", "segment_bytes": "262144"},
        {"padding": 400, "producer_settings": {"compression.type": "lz4", "linger.ms": 20}},
    ),
    Shape("two protocols", {"compression_type": "zstd"}, {"modern_members": 2, "members": 2}),
)


@dataclass
class Scene:
    """What a fault has to work with. Partition 0 of `topic` is the one that is aimed at."""

    cluster: Cluster
    topic: str
    recorder: Recorder
    random: Random

    def note(self, text: str) -> None:
        """Put into the history what is done now."""
        self.recorder.history.note(text)

    def goes_on(self, *, by_s: float = FAILOVER_S) -> None:
        """Wait until every partition takes and acknowledges new records."""
        self.recorder.await_acks(40, by_s)

    def ready_for_more(self) -> None:
        """So many brokers are there again that another fault leaves enough of them: as soon as
        records are taken, not when all replicas are in sync.
        """
        cluster = self.cluster
        is_whole = (
            len(cluster.up()) == len(cluster.brokers)
            and all(server.running for server in cluster.zookeepers)
            and (cluster.network is None or cluster.network.is_whole)
        )
        if not is_whole:
            self.note("mended, for another")
            cluster.mend()
        self.goes_on()

    def leader(self) -> int:
        return self.cluster.leader(self.topic)

    def follower(self) -> int:
        """One of partition 0's, by chance."""
        return self.random.choice(self.cluster.followers(self.topic))

    def kill(self, *numbers: int) -> None:
        self.note(f"kill -9 of {numbers}")
        self.cluster.kill(*numbers)

    def start(self, *numbers: int) -> None:
        self.note(f"start of {numbers or 'all'}")
        self.cluster.start_brokers(*numbers)

    def leader_is_another_than(self, old: int) -> int:
        """Wait until partition 0 is led by another broker; returns it."""
        asked = next(number for number in self.cluster.up() if number != old)

        def found() -> int:
            leader = self.cluster.partition(self.topic, asked=asked).leader
            return leader if leader not in (old, -1) else 0

        return self.cluster.until(
            found, f"another than {old} leads {self.topic}-0", patience_s=FAILOVER_S
        )

    def isr_is(self, *members: int, asked: int | None = None) -> None:
        """Wait until partition 0 has exactly this ISR."""
        expected = frozenset(members)
        self.cluster.until(
            lambda: self.cluster.partition(self.topic, asked=asked).isr == expected,
            f"the ISR of {self.topic}-0 is {sorted(expected)}",
            patience_s=FAILOVER_S,
        )


@contextlib.contextmanager
def under_load(
    cluster: Cluster,
    topic: str,
    directory: Path,
    *,
    seed: int = 0,
    errors: Collection[str] = (),
    shape: Shape | None = None,
) -> Iterator[Scene]:
    """A scene on a new topic; at the end of the block all is mended, and the history is judged.

    `errors` are the events that brokers may log as errors meanwhile. Raises Anomalies,
    NoProgressError, and AssertionError when replicas differ in the end.
    """
    shape = shape or Shape("plain")
    config = {"message_timestamp_after_max_ms": str(2 * DAY_MS), **shape.config}
    cluster.create(topic, PARTITIONS, **config)
    history = History(directory / f"{topic}.history")
    before = cluster.problems()
    with Recorder(
        cluster.bootstrap, topic, PARTITIONS, history=history, seed=seed, **shape.recorder
    ) as recorder:
        scene = Scene(cluster, topic, recorder, Random(seed))
        scene.goes_on()
        yield scene
        scene.note("mended")
        cluster.mend()
        cluster.until_whole(topic, PARTITIONS)
        scene.goes_on()
        recorder.await_reads(40, FAILOVER_S)
        scene.note("whole")
        report = recorder.finish(120)
    report.insist()
    assert_judged(report)
    assert_same_replicas(cluster, topic, recorder.ends())
    problems = [
        line
        for line in cluster.problems()
        if line not in before and line["event"] not in OTHERS.union(errors)
    ]
    assert not problems, "\n".join(map(str, problems))


def assert_judged(report: Report) -> None:
    """There was something to judge: a checker that saw nothing finds nothing."""
    assert report.counts["drained"] == PARTITIONS, report
    assert report.counts["sends"] > 100, report
    assert report.counts["read"] > 100, report


def assert_same_replicas(cluster: Cluster, topic: str, ends: dict[int, int]) -> None:
    """Every replica holds the same bytes up to what was acknowledged.

    Nothing is being written any more, but a follower may still be fetching.
    """
    known = {TopicPartition(topic, number): end for number, end in ends.items()}
    dirs = {number: broker.data_dir for number, broker in cluster.brokers.items()}
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = compare_replicas(dirs, ends=known)
        problems = [one for one in found.problems if one.startswith(topic)]
        if not problems:
            assert known.keys() <= found.compared.keys()
            return
        assert time.monotonic() < deadline, "\n".join(problems)
        time.sleep(POLL_S)
