"""A coordinator that sleeps, or that ZooKeeper cannot hear: what it knows no longer counts."""

from __future__ import annotations

import pytest

from tests.cluster.harness import Cluster
from tests.faults.client import Client
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.find_coordinator import FindCoordinatorRequest
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
)

NOT_COORDINATOR = 16
COORDINATOR_NOT_AVAILABLE = 15
RETRIABLE = {14, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR}


def commit_message(group: str, topic: str, offset: int) -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    return OffsetCommitRequest(
        group_id=group, topics=[OffsetCommitRequestTopic(name=topic, partitions=[partition])]
    )


def code_of(answer) -> int:
    return answer.topics[0].partitions[0].error_code


def commit(cluster: Cluster, group: str, topic: str, offset: int) -> int:
    """Commit at the coordinator of the moment, again until that is done; returns who did it."""

    def done() -> int:
        coordinator = cluster.coordinator(group)
        with cluster.client(coordinator) as client:
            code = code_of(client.call(ApiKey.OFFSET_COMMIT, commit_message(group, topic, offset)))
        assert code == 0 or code in RETRIABLE, code
        return 0 if code else coordinator

    return cluster.until(done, f"{offset} is committed")


def fetch_message(group: str, topic: str) -> OffsetFetchRequest:
    asked = OffsetFetchRequestTopic(name=topic, partition_indexes=[0])
    return OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=[asked])])


def committed(client: Client, group: str, topic: str) -> tuple[int, int]:
    """The error and the offset."""
    return offset_in(client.call(ApiKey.OFFSET_FETCH, fetch_message(group, topic)))


def offset_in(answer) -> tuple[int, int]:
    (found,) = answer.groups
    if found.error_code:
        return found.error_code, -1
    return 0, found.topics[0].partitions[0].committed_offset


def fetched(cluster: Cluster, group: str, topic: str) -> int:
    """What is committed, at the coordinator of the moment."""
    answers: list[int] = []

    def found() -> bool:
        with cluster.client(cluster.coordinator(group)) as client:
            code, offset = committed(client, group, topic)
        answers.append(offset)
        return code == 0

    cluster.until(found, "the offset is told")
    return answers[-1]


def test_safety_12_a_coordinator_that_slept_serves_nothing_that_waited_for_it(
    cluster: Cluster, topic: str
) -> None:
    cluster.create(topic)
    asleep = cluster.coordinator(topic)
    commit(cluster, topic, topic, 1)
    with cluster.client(asleep) as client:
        sleeper = cluster.brokers[asleep]
        sleeper.pause()
        asks = client.send(ApiKey.OFFSET_FETCH, fetch_message(topic, topic))
        waits = client.send(ApiKey.OFFSET_COMMIT, commit_message(topic, topic, 2))
        cluster.until(lambda: cluster.coordinator(topic) != asleep, "another coordinates")
        assert commit(cluster, topic, topic, 9) != asleep
        sleeper.resume()
        try:
            assert offset_in(client.receive(ApiKey.OFFSET_FETCH, asks))[0] in RETRIABLE
            assert code_of(client.receive(ApiKey.OFFSET_COMMIT, waits)) in RETRIABLE
        except ConnectionError:
            pass  # nothing is answered where the connection is closed
        cluster.until_known()
    assert fetched(cluster, topic, topic) == 9
    assert commit(cluster, topic, topic, 10)


def test_safety_12_a_coordinator_that_zookeeper_cannot_hear_stops_by_itself(
    cluster: Cluster, topic: str
) -> None:
    """Clients and the other brokers reach it all the time."""
    network = cluster.network
    if network is None:
        pytest.skip("no network namespaces")
    cluster.create(topic)
    alone = cluster.coordinator(topic)
    commit(cluster, topic, topic, 1)
    with cluster.client(alone) as client:
        network.isolate(cluster.hosts[alone], *cluster.zookeeper_hosts)

        def refuses() -> bool:
            code, offset = committed(client, topic, topic)
            assert (code, offset) == (0, 1) or code in RETRIABLE
            return code != 0

        cluster.until(refuses, "it answers no longer")
        answer = client.call(ApiKey.OFFSET_COMMIT, commit_message(topic, topic, 2))
        assert code_of(answer) in RETRIABLE

        other_id = next(one for one in cluster.up() if one != alone)

        def moved() -> bool:
            new = coordinator_by(cluster, other_id, topic)
            if new in {-1, alone}:
                return False
            with cluster.client(new) as other:
                code, offset = committed(other, topic, topic)
                if code:
                    return False
                assert offset == 1
                message = commit_message(topic, topic, 9)
                return code_of(other.call(ApiKey.OFFSET_COMMIT, message)) == 0

        cluster.until(moved, "another coordinates")
        answer = client.call(ApiKey.OFFSET_COMMIT, commit_message(topic, topic, 3))
        assert code_of(answer) in RETRIABLE
        network.heal()
        cluster.until_known()
    assert fetched(cluster, topic, topic) == 9


def coordinator_by(cluster: Cluster, asked: int, group: str) -> int:
    """Whom that broker names; -1 while it knows nobody."""
    with cluster.client(asked) as client:
        message = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        (answer,) = client.call(ApiKey.FIND_COORDINATOR, message).coordinators
    return -1 if answer.error_code else answer.node_id


def test_while_zookeeper_is_away_groups_wait_and_lose_nothing(cluster: Cluster, topic: str) -> None:
    cluster.create(topic)
    commit(cluster, topic, topic, 1)
    coordinator = cluster.coordinator(topic)
    for server in cluster.zookeepers:
        server.kill()
    with cluster.client(coordinator) as client:

        def refuses() -> bool:
            code = code_of(client.call(ApiKey.OFFSET_COMMIT, commit_message(topic, topic, 2)))
            assert code == 0 or code in RETRIABLE
            return code != 0

        cluster.until(refuses, "nothing is acknowledged")
    for server in cluster.zookeepers:
        server.launch()
    for server in cluster.zookeepers:
        server.wait()
    cluster.until_known()
    assert fetched(cluster, topic, topic) in {1, 2}
    commit(cluster, topic, topic, 5)
    assert fetched(cluster, topic, topic) == 5


@pytest.mark.parametrize("count", [3])
def test_every_coordinator_dies_in_turn_and_commits_go_on(
    cluster: Cluster, topic: str, count: int
) -> None:
    cluster.create(topic)
    offset = 0
    for _ in range(count):
        offset += 1
        done_by = commit(cluster, topic, topic, offset)
        cluster.kill(done_by)
        assert fetched(cluster, topic, topic) == offset
        offset += 1
        commit(cluster, topic, topic, offset)
        cluster.start_brokers(done_by)
        assert fetched(cluster, topic, topic) == offset
