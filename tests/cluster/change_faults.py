"""Faults that change the cluster while something dies; `python -m tests.cluster` runs them.

The same contract as in faults.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.cluster.faults import Fault, collector
from tests.cluster.scene import FAILOVER_S, Scene
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsRequestPartition,
    AlterPartitionReassignmentsRequestTopic,
)
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsRequestTopic,
)
from trioq.wire.messages.elect_leaders import ElectLeadersRequest, ElectLeadersRequestTopic

CHANGE_FAULTS: dict[str, Fault] = {}
fault = collector(CHANGE_FAULTS)

EARLIEST, LATEST = -2, -1
INVALID_PARTITIONS, PREFERRED_LEADER_NOT_AVAILABLE, ELECTION_NOT_NEEDED = 37, 80, 84
NO_REASSIGNMENT_IN_PROGRESS, OFFSET_NOT_AVAILABLE = 85, 78
PASSES_SOON = frozenset({3, 5, 6, 7, 8, 9, 13, 19, 20, 41, 72})
"""Error codes of a partition or controller that is being elected, or whose replicas are away."""


# ---- replicas and leaders that move


@fault()
def leader_moves_and_the_controller_dies(scene: Scene) -> None:
    """The partition goes to the others and comes back; whoever is controller finishes it."""
    old, others = scene.leader(), sorted(scene.cluster.followers(scene.topic))
    controller = scene.cluster.controller()
    move(scene, others)
    scene.kill(controller)
    if controller == old:
        scene.goes_on()  # else too few may be in sync
    scene.start(controller)
    is_on(scene, others)
    scene.goes_on()
    move(scene, [old, *others])
    is_on(scene, [old, *others])
    scene.goes_on()


@fault()
def replica_moves_and_the_leader_dies(scene: Scene) -> None:
    """Who is being added knows nothing yet and is not elected."""
    leader, (stays, goes) = scene.leader(), scene.cluster.followers(scene.topic)
    move(scene, [leader, stays])
    is_on(scene, [leader, stays])
    move(scene, [leader, stays, goes])
    scene.kill(leader)
    scene.goes_on()
    scene.start(leader)
    is_on(scene, [leader, stays, goes])
    scene.goes_on()


@fault()
def move_that_is_cancelled(scene: Scene) -> None:
    """One replica after another is exchanged, and half of it is taken back."""
    replicas = scene.cluster.partition(scene.topic).replicas
    for _ in range(4):
        chosen = scene.random.sample(replicas, 2)
        move(scene, chosen)
        time.sleep(scene.random.random() * 0.3)
        move(scene, None)
        scene.goes_on()
        move(scene, replicas)
        is_on(scene, replicas)


@fault()
def leaders_are_elected_in_turn(scene: Scene) -> None:
    """Orderly handovers, one after another: nothing is lost, doubled or out of order."""
    for _ in range(6):
        order = scene.random.sample(sorted(scene.cluster.brokers), 3)
        move(scene, order)
        is_on(scene, order)
        elect(scene)
        leads(scene, order[0])
        scene.goes_on()


@fault()
def preferred_leader_bounces(scene: Scene) -> None:
    """It is killed as soon as it leads again."""
    first = scene.cluster.partition(scene.topic).replicas[0]
    for _ in range(3):
        elect(scene)
        leads(scene, first)
        scene.kill(first)
        scene.start(first)
        scene.goes_on()


def move(scene: Scene, replicas: Sequence[int] | None) -> None:
    """Ask for partition 0 to be on these; None takes back what was asked for."""
    scene.note(f"partition 0 is to be on {replicas}")
    partition = AlterPartitionReassignmentsRequestPartition(
        partition_index=0, replicas=None if replicas is None else list(replicas)
    )
    message = AlterPartitionReassignmentsRequest(
        topics=[AlterPartitionReassignmentsRequestTopic(name=scene.topic, partitions=[partition])],
        timeout_ms=10_000,
    )

    def asked() -> bool:
        with scene.cluster.client(timeout_s=15) as client:
            answer = client.call(ApiKey.ALTER_PARTITION_REASSIGNMENTS, message)
        codes = {one.error_code for topic in answer.responses for one in topic.partitions}
        assert {answer.error_code, *codes} <= {0, NO_REASSIGNMENT_IN_PROGRESS} | PASSES_SOON, answer
        return answer.error_code == 0 and codes <= {0, NO_REASSIGNMENT_IN_PROGRESS}

    scene.cluster.until(asked, f"the replicas of {scene.topic}-0 are changed")


def is_on(scene: Scene, replicas: Sequence[int]) -> None:
    """Wait until partition 0 has exactly these replicas, all in sync."""

    def moved() -> bool:
        found = scene.cluster.partition(scene.topic)
        return sorted(found.replicas) == sorted(replicas) and found.isr == set(replicas)

    scene.cluster.until(moved, f"{scene.topic}-0 is on {replicas}", patience_s=FAILOVER_S)


def elect(scene: Scene) -> None:
    """Ask that the preferred replica leads partition 0."""
    message = ElectLeadersRequest(
        topic_partitions=[ElectLeadersRequestTopic(topic=scene.topic, partitions=[0])],
        timeout_ms=10_000,
    )

    def asked() -> bool:
        with scene.cluster.client(timeout_s=15) as client:
            answer = client.call(ApiKey.ELECT_LEADERS, message)
        codes = {
            one.error_code
            for topic in answer.replica_election_results
            for one in topic.partition_result
        }
        allowed = {0, ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE} | PASSES_SOON
        assert {answer.error_code, *codes} <= allowed, answer
        return answer.error_code == 0 and codes <= {0, ELECTION_NOT_NEEDED}

    scene.cluster.until(asked, f"the leader of {scene.topic}-0 is elected")


def leads(scene: Scene, number: int) -> None:
    scene.cluster.until(
        lambda: scene.cluster.partition(scene.topic).leader == number,
        f"{number} leads {scene.topic}-0",
        patience_s=FAILOVER_S,
    )


# ---- topics that change


@fault("strays_kept_offline")
def topic_is_made_anew_meanwhile(scene: Scene) -> None:
    """A broker comes back with the log of a topic that was deleted, and gets the new one's."""
    cluster, name = scene.cluster, f"{scene.topic}-again"
    cluster.create(name)
    away = scene.follower()
    put(scene, name, [b"old"] * 30)
    scene.kill(away)
    cluster.until(lambda: away not in cluster.view().brokers, f"{away} is missed")

    def deleted() -> bool:
        with cluster.client(timeout_s=15) as client:
            code = client.delete(name)
        assert code in {0} | PASSES_SOON, code
        return code in (0, 3)

    cluster.until(deleted, f"{name} is deleted")
    cluster.create(name, replicas=2)
    put(scene, name, [b"new"] * 10)
    scene.start(away)
    put(scene, name, [b"new"] * 10)
    with cluster.client(cluster.leader(name)) as client:
        found = client.fetch_all(name)
    assert {value for _, _, value in found.records} == {b"new"}, found
    scene.goes_on()


@fault()
def deleted_records_stay_deleted(scene: Scene) -> None:
    """Whoever leads after whatever: what was answered as deleted does not come back."""
    cluster, name = scene.cluster, f"{scene.topic}-trimmed"
    cluster.create(name, segment_bytes="1024")
    for start in range(0, 200, 20):
        put(scene, name, [b"%d" % (start + one) for one in range(20)])
    trimmed = 0
    for step in ("leader", "leader", "all"):
        trimmed += 45
        trim(scene, name, trimmed)
        victims = list(cluster.brokers) if step == "all" else [cluster.leader(name)]
        scene.kill(*victims)
        if step == "all":
            scene.start()
        assert start_of(scene, name) == trimmed
        scene.start()
        cluster.until_whole(name)
        assert start_of(scene, name) == trimmed
    with cluster.client(cluster.leader(name)) as client:
        found = client.fetch_all(name, trimmed)
    values = [value for _, _, value in found.records]
    assert values == [b"%d" % one for one in range(trimmed, 200)], values
    scene.goes_on()


def trim(scene: Scene, topic: str, offset: int) -> None:
    def done() -> bool:
        with scene.cluster.client(scene.cluster.leader(topic), timeout_s=15) as client:
            code, start = client.delete_records(topic, offset)
        assert code in {0} | PASSES_SOON, code
        return code == 0 and start >= offset

    scene.cluster.until(done, f"{topic} begins at {offset}")


def start_of(scene: Scene, topic: str) -> int:
    """The partition's first offset, as its leader says; 0 is no answer."""

    def told() -> int:
        with scene.cluster.client(scene.cluster.leader(topic)) as client:
            code, offset = client.offset(topic, EARLIEST)
        assert code in {0, OFFSET_NOT_AVAILABLE} | PASSES_SOON, code
        return offset if code == 0 else 0

    return scene.cluster.until(told, f"somebody says where {topic} begins")


def put(scene: Scene, topic: str, values: list[bytes]) -> None:
    """Store these once for all; until then try, and see first whether an attempt is there."""

    def size() -> int:
        with scene.cluster.client(scene.cluster.leader(topic)) as client:
            code, end = client.offset(topic, LATEST)
        assert code in {0, OFFSET_NOT_AVAILABLE} | PASSES_SOON, code
        return end + 1 if code == 0 else 0

    before = scene.cluster.until(size, f"somebody says where {topic} ends")

    def stored() -> bool:
        if size() >= before + len(values):
            return True
        with scene.cluster.client(scene.cluster.leader(topic), timeout_s=15) as client:
            code = client.produce(topic, values).error_code
        assert code in {0} | PASSES_SOON, code
        return code == 0

    scene.cluster.until(stored, f"{topic} takes records")


@fault()
def topic_grows_and_the_controller_dies(scene: Scene) -> None:
    """Each partition is there in the end, led, with all its replicas."""
    cluster, name, count = scene.cluster, f"{scene.topic}-grows", 24
    cluster.create(name)
    controller = cluster.controller()
    message = CreatePartitionsRequest(
        topics=[CreatePartitionsRequestTopic(name=name, count=count, assignments=None)],
        timeout_ms=10_000,
    )

    def grown() -> bool:
        with cluster.client(timeout_s=15) as client:
            (answer,) = client.call(ApiKey.CREATE_PARTITIONS, message).results
        assert answer.error_code in {0, INVALID_PARTITIONS} | PASSES_SOON, answer
        return answer.error_code in (0, INVALID_PARTITIONS)

    with cluster.client(next(one for one in cluster.brokers if one != controller)) as client:
        client.send(ApiKey.CREATE_PARTITIONS, message)
        time.sleep(scene.random.random() * 0.03)
        scene.kill(controller)
    scene.goes_on()
    scene.start(controller)  # three replicas want three brokers
    cluster.until(grown, f"{name} has {count} partitions")
    cluster.until_whole(name, count)
    scene.goes_on()
