"""Consumers of clusters that fail as told."""

from __future__ import annotations

import anyio
import pytest

import trioq
from tests.client.fake_fetching import OLD_VERSIONS, FetchableCluster
from trioq.client.partition_state import PositionPhase
from trioq.errors import CommitFailed, CorruptMessage, InvalidRecord, TopicAuthorizationFailed
from trioq.record.control import build_end_transaction
from trioq.types import TopicPartition
from trioq.wire.api_keys import ApiKey

pytestmark = pytest.mark.anyio

PLACE = TopicPartition("t", 0)
QUICK = {"fetch_max_wait_ms": 10, "auto_offset_reset": "earliest", "heartbeat_interval_ms": 20}


def connected(cluster, **options):
    return trioq.connect(cluster.bootstrap, retry_backoff_ms=10, retry_backoff_max_ms=50, **options)


async def values(consumer, count):
    found = []
    with anyio.fail_after(30):
        while len(found) < count:
            found.append((await anext(consumer)).value)
    return found


async def until(condition):
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.005)


async def test_a_corrupt_batch_is_told_and_can_be_passed():
    with FetchableCluster() as cluster:
        cluster.store(b"0", b"1")
        cluster.store(b"2")
        cluster.store(b"3")
        corrupt = bytearray(cluster.stored[1])
        corrupt[-1] ^= 1
        cluster.stored[1] = bytes(corrupt)
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 2) == [b"0", b"1"]
            for _ in range(2):
                with pytest.raises(CorruptMessage, match="t-0.*2"):
                    await values(consumer, 1)
            consumer.seek(PLACE, 3)
            assert await values(consumer, 1) == [b"3"]


async def test_a_batch_that_was_damaged_on_its_way_is_fetched_again():
    def damage(answer, _asked):
        data = bytearray(answer.records)
        data[-1] ^= 1
        answer.records = memoryview(data)

    with FetchableCluster() as cluster:
        cluster.store(b"0")
        cluster.fetch_faults = [damage]
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 1) == [b"0"]


async def test_compressed_records_that_are_corrupt():
    """The CRC is right, but what is inside is nonsense: the producer did it."""
    with FetchableCluster() as cluster:
        cluster.store(b"0")
        cluster.store(b"1", attributes=1, compress=lambda _: b"no gzip")
        cluster.store(b"2")
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 1) == [b"0"]
            for _ in range(2):
                with pytest.raises(InvalidRecord):
                    await values(consumer, 1)
            assert await anext_batch_fails(consumer)
            consumer.seek(PLACE, 2)
            assert await values(consumer, 1) == [b"2"]


async def anext_batch_fails(consumer):
    try:
        await anext(consumer.batches())
    except InvalidRecord:
        return True
    return False


async def test_a_leader_that_moved_is_found():
    with FetchableCluster(nodes=2) as cluster:
        cluster.store(b"0")
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 1) == [b"0"]
            cluster.log().leader, cluster.log().epoch = 2, 1
            cluster.store(b"1", epoch=1)
            assert await values(consumer, 1) == [b"1"]
            assert (2, ApiKey.FETCH) in {(node, key) for node, key, _ in cluster.asked}
            assert ApiKey.OFFSET_FOR_LEADER_EPOCH in {key for _, key, _ in cluster.asked}


async def test_a_leader_that_died_is_replaced():
    with FetchableCluster(nodes=2) as cluster:
        cluster.store(b"0")
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 1) == [b"0"]
            cluster.nodes[1].close()
            cluster.log().leader, cluster.log().epoch = 2, 1
            cluster.store(b"1", epoch=1)
            assert await values(consumer, 1) == [b"1"]


async def test_what_a_new_leader_has_lost_is_read_as_it_is_there():
    with FetchableCluster(nodes=2) as cluster:
        cluster.store(b"0")
        cluster.store(b"lost")
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 2) == [b"0", b"lost"]
            cluster.epoch_end = 1
            del cluster.stored[1]
            cluster.store(b"instead", epoch=1)
            cluster.log().leader, cluster.log().epoch = 2, 1
            assert await values(consumer, 1) == [b"instead"]


async def test_the_nearest_replica_is_read_from():
    def prefer(answer, _asked):
        answer.preferred_read_replica, answer.records = 2, None

    with FetchableCluster(nodes=2) as cluster:
        cluster.replicas = (2,)
        cluster.store(b"0")
        cluster.fetch_faults = [prefer]
        async with (
            connected(cluster, rack="here") as client,
            client.consumer("t", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"0"]
            fetches = [node for node, key, _ in cluster.asked if key is ApiKey.FETCH]
            assert fetches[:2] == [1, 2]
            request = next(one for _, one in cluster.fetches() if one.rack_id)
            assert request.rack_id == "here"


async def test_no_permission_is_told():
    def refuse(answer, _asked):
        answer.error_code, answer.records = 29, None

    with FetchableCluster() as cluster:
        cluster.fetch_faults = [refuse]
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            for _ in range(2):
                with pytest.raises(TopicAuthorizationFailed, match="fetching t-0"):
                    await values(consumer, 1)


async def test_records_of_aborted_transactions_are_left_out():
    transactional = {"attributes": 0x10, "producer_epoch": 0, "base_sequence": 0}
    with FetchableCluster() as cluster:
        cluster.store(b"aborted", producer_id=7, **transactional)
        cluster.store(b"committed", producer_id=8, **transactional)
        for producer_id, committed in ((7, False), (8, True)):
            marker = build_end_transaction(
                committed=committed,
                coordinator_epoch=0,
                producer_id=producer_id,
                producer_epoch=0,
                timestamp_ms=0,
                base_offset=cluster.next_offset,
                leader_epoch=0,
            )
            cluster.stored.append(bytes(marker))
        cluster.aborted = [(7, 0)]
        for isolation, expected in (
            ("read_committed", [b"committed"]),
            ("read_uncommitted", [b"aborted", b"committed"]),
        ):
            async with (
                connected(cluster) as client,
                client.consumer("t", isolation=isolation, **QUICK) as consumer,
            ):
                assert await values(consumer, len(expected)) == expected
                await anyio.sleep(0)
                with anyio.move_on_after(0.05):
                    await anext(consumer)
                assert await consumer.position(PLACE) == 4, "behind the markers"


async def test_a_coordinator_that_moves_is_found():
    with FetchableCluster(nodes=2) as cluster:
        cluster.store(b"0", b"1")
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", commit="manual", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"0"]
            cluster.coordinator = 2
            beats = [ApiKey.HEARTBEAT, ApiKey.OFFSET_COMMIT]
            await until(lambda: (2, beats[0]) in {(one[0], one[1]) for one in cluster.asked})
            await consumer.commit()
            assert (cluster.committed, cluster.generation) == (1, 1)
            assert await values(consumer, 1) == [b"1"]


@pytest.mark.parametrize("code", [22, 25])
async def test_a_member_that_was_forgotten_joins_again(code):
    lost = []

    async def on_lost(partitions):
        lost.append(partitions)

    with FetchableCluster() as cluster:
        cluster.store(b"0", b"1")
        options = {"group": "g", "commit": "manual", "on_lost": on_lost, **QUICK}
        async with connected(cluster) as client, client.consumer("t", **options) as consumer:
            assert await values(consumer, 1) == [b"0"]
            cluster.errors[ApiKey.OFFSET_COMMIT] = [code]
            with pytest.raises(CommitFailed, match="'g' has rebalanced"):
                await consumer.commit()
            await until(lambda: cluster.generation == 2)
            assert lost == [{PLACE}]
            assert await values(consumer, 1) == [b"0"]


async def test_passing_trouble_with_a_group_is_waited_out():
    with FetchableCluster() as cluster:
        cluster.store(b"0")
        cluster.errors = {
            ApiKey.JOIN_GROUP: [14, 15, 27],
            ApiKey.SYNC_GROUP: [27, 14],
            ApiKey.OFFSET_FETCH: [88, 14],
            ApiKey.LIST_OFFSETS: [6],
            ApiKey.HEARTBEAT: [14, 15],
            ApiKey.OFFSET_COMMIT: [14, 7],
        }
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"0"]
            await consumer.commit()
            assert cluster.committed == 1
            await until(lambda: not any(cluster.errors.values()))


async def test_a_group_that_is_forbidden_is_told():
    with FetchableCluster() as cluster:
        cluster.errors[ApiKey.JOIN_GROUP] = [30] * 9
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", **QUICK) as consumer,
        ):
            for _ in range(2):
                with pytest.raises(trioq.KafkaError, match="GROUP_AUTHORIZATION_FAILED"):
                    await values(consumer, 1)


async def test_a_connection_that_breaks_is_made_anew():
    with FetchableCluster() as cluster:
        cluster.store(b"0")
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", commit="manual", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"0"]
            cluster.nodes[1].drop_connections()
            cluster.store(b"1")
            assert await values(consumer, 1) == [b"1"]
            await consumer.commit()
            assert (cluster.committed, cluster.generation) == (2, 1)


async def test_an_old_broker_will_do():
    with FetchableCluster(versions=OLD_VERSIONS) as cluster:
        cluster.store(b"0", b"1")
        cluster.committed = 1
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"1"]
        assert cluster.committed == 2
        assert {version for _, key, version in cluster.asked if key is ApiKey.FETCH} == {4}


async def test_positions_without_validation_by_a_broker_that_has_none():
    with FetchableCluster(nodes=2) as cluster:
        cluster.api_versions = without(cluster, ApiKey.OFFSET_FOR_LEADER_EPOCH)
        cluster.store(b"0")
        async with connected(cluster) as client, client.consumer("t", **QUICK) as consumer:
            assert await values(consumer, 1) == [b"0"]
            cluster.log().leader, cluster.log().epoch = 2, 1
            cluster.store(b"1", epoch=1)
            assert await values(consumer, 1) == [b"1"]
            state = consumer._open().state.partitions[PLACE]
            assert state.phase is PositionPhase.FETCHING


def without(cluster, key):
    def served(version):
        cluster.api_versions = None
        answer = cluster._api_versions(version)
        answer.api_keys = [one for one in answer.api_keys if one.api_key != key]
        cluster.api_versions = served
        return answer

    return served


async def test_a_group_without_any_coordinator_for_a_while():
    with FetchableCluster() as cluster:
        cluster.store(b"0", b"1")
        async with (
            connected(cluster) as client,
            client.consumer("t", group="g", commit="manual", **QUICK) as consumer,
        ):
            assert await values(consumer, 1) == [b"0"]
            cluster.errors[ApiKey.HEARTBEAT] = [16]
            cluster.errors[ApiKey.FIND_COORDINATOR] = [15, 15, 14]
            cluster.errors[ApiKey.OFFSET_COMMIT] = [16]
            await consumer.commit()
            await until(lambda: not any(cluster.errors.values()))
            assert (cluster.committed, cluster.generation) == (1, 1)
            assert await values(consumer, 1) == [b"1"]
