"""Groups of real clients whose coordinator is killed, or stops: they go on at the next one."""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

import confluent_kafka
import pytest

from tests.cluster.harness import Cluster
from tests.e2e.group_process import Member, everything, wait_until_shared

PARTITIONS = 4
PATIENCE_S = 60.0
MEMBER_SESSION_MS = 20_000
"""Longer than a failover takes on a busy machine: nobody has to join again."""


class Kind(NamedTuple):
    client: str
    strategy: str


KINDS = [
    Kind("confluent", "cooperative-sticky"),
    Kind("confluent", "consumer"),
    Kind("aiokafka", "range"),
    Kind("trioq", "range"),
    Kind("trioq", "consumer"),
]


class Scene:
    """A group of one kind, that reads a topic of its own; `members` are its processes."""

    def __init__(self, cluster: Cluster, kind: Kind, topic: str, coordinator: int) -> None:
        self.kind = kind
        self.cluster = cluster
        self.topic = f"{topic}-{'-'.join(kind)}"
        self.group = next(
            group
            for number in itertools.count()
            if cluster.coordinator(group := f"{self.topic}-{number}") == coordinator
        )
        cluster.create(self.topic, PARTITIONS)
        self.members: list[Member] = []

    def join(self, count: int) -> None:
        self.members += [
            Member.start(
                self.kind.client,
                self.cluster.bootstrap,
                self.group,
                topics=[self.topic],
                strategy=self.kind.strategy,
                session_timeout_ms=MEMBER_SESSION_MS,
            )
            for _ in range(count)
        ]

    def stop(self) -> None:
        for member in self.members:
            member.stop()
        self.members.clear()

    def kill(self) -> None:
        for member in self.members:
            if member.runs:
                member.kill9()

    def processed(self) -> list[str]:
        return sorted(value for member in self.members for value in member.processed)

    def wait_until_processed(self, values: list[str], each: int) -> None:
        """Until all of them are processed, and `each` offsets of every partition committed."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not set(values) <= set(self.processed()):
            assert time.monotonic() < deadline_s, self.members
            for member in self.members:
                assert member.runs, member
            time.sleep(0.01)
        self.cluster.until(
            lambda: committed(self.cluster, self.group, self.topic) == [each] * PARTITIONS,
            f"{self.group} has committed {each} of each partition",
        )


def write(cluster: Cluster, topic: str, values: list[str]) -> None:
    """With acks=all, in turn to all partitions."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": cluster.bootstrap, "acks": "all", "enable.idempotence": True}
    )
    failures: list[object] = []
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            partition=number % PARTITIONS,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(PATIENCE_S) == 0
    assert not failures


def committed(cluster: Cluster, group: str, topic: str) -> list[int]:
    """The offsets that the group has committed, by partition."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": cluster.bootstrap, "group.id": group, "enable.auto.commit": False}
    )
    asked = [confluent_kafka.TopicPartition(topic, number) for number in range(PARTITIONS)]
    found = consumer.committed(asked, timeout=PATIENCE_S)
    consumer.close()
    return [one.offset for one in found]


@pytest.mark.parametrize("how", ["kill -9", "a stop in order"])
def test_groups_go_on_when_their_coordinator_dies(cluster: Cluster, topic: str, how: str) -> None:
    """Each record is processed once, so no commit was lost; nobody has to join again."""
    old = cluster.coordinator(topic)
    scenes = [Scene(cluster, kind, topic, old) for kind in KINDS]
    before = [f"before-{number}" for number in range(40)]
    after = [f"after-{number}" for number in range(40)]
    try:
        for scene in scenes:
            write(cluster, scene.topic, before)
            scene.join(2)
        for scene in scenes:
            wait_until_shared(scene.members, everything(scene.topic, PARTITIONS))
            scene.wait_until_processed(before, 10)
        assigned = {scene: [one.assignments() for one in scene.members] for scene in scenes}
        if how == "kill -9":
            cluster.kill(old)
        else:
            assert cluster.brokers[old].terminate() == 0
        for scene in scenes:
            write(cluster, scene.topic, after)
        for scene in scenes:
            scene.wait_until_processed([*before, *after], 20)
            assert cluster.coordinator(scene.group) != old
            assert assigned[scene] == [one.assignments() for one in scene.members], scene.kind
            assert scene.processed() == sorted([*before, *after]), scene.kind
        for scene in scenes:
            scene.stop()
        for scene in scenes:
            scene.join(1)
        for scene in scenes:
            write(cluster, scene.topic, ["last"])
        for scene in scenes:
            (late,) = scene.members
            late.wait_for_records(1)
            assert late.processed == ["last"], scene.kind
    finally:
        for scene in scenes:
            scene.kill()
