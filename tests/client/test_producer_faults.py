"""The producer against brokers that fail: nothing is lost, doubled or left behind."""

from __future__ import annotations

from time import monotonic

import anyio
import pytest

import trioq
from tests.client.fake_cluster import DROP, DROP_WRITTEN, SILENCE, FakeCluster
from trioq import logs
from trioq.errors import (
    ClusterAuthorizationFailed,
    DeliveryTimeout,
    InvalidRecord,
    MessageTooLarge,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailed,
    UnsupportedByBroker,
)
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.init_producer_id import InitProducerIdRequest
from trioq.wire.messages.produce import ProduceRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster():
    with FakeCluster(nodes=2) as fake:
        yield fake


def connect(cluster, **settings):
    return trioq.connect(
        cluster.bootstrap,
        **{
            "retry_backoff_ms": 5,
            "retry_backoff_max_ms": 20,
            "request_timeout_ms": 5000,
            **settings,
        },
    )


def produced(cluster):
    return [request for _, request in cluster.requests if isinstance(request, ProduceRequest)]


async def retried(producer):
    """Return when a batch had to be sent again."""
    before = producer.statistics().retries
    while producer.statistics().retries == before:
        await anyio.sleep(0.005)


async def overdue(producer, delivery):
    """Await a delivery whose time is over."""
    while not delivery.is_done:
        producer._settlement.expire(monotonic() + 1_000_000)
        await anyio.sleep(0.005)
    return await delivery


@pytest.mark.parametrize(
    "fault",
    [DROP, DROP_WRITTEN, 7, 13, 19, 20, 56, 3, 5, 6],
    ids=lambda fault: str(fault).replace(" ", "-"),
)
async def test_a_fault_is_retried_and_writes_once(cluster, fault):
    cluster.faults = [None, fault]
    async with connect(cluster) as client, client.producer() as producer:
        offsets = [(await producer.send("t", b"%d" % number)).offset for number in range(4)]
        assert producer.statistics().retries == 1
        assert producer.statistics().epoch_bumps == 0
    assert offsets == [0, 1, 2, 3]
    assert cluster.log().values == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("fault", [DROP, DROP_WRITTEN, 7, 6, 19])
async def test_order_is_kept_with_several_batches_in_flight(cluster, fault):
    expected = [b"%d" % number for number in range(400)]
    cluster.faults = [None, fault, None, fault, None, None, fault]
    async with connect(cluster) as client:
        async with client.producer(batch_bytes=200, linger_ms=0) as producer:
            await (await producer.send_many("t", expected))
            assert producer.statistics().retries >= 2
    assert cluster.log().values == expected


@pytest.mark.parametrize("fault", [DROP, 6, 19])
async def test_order_is_kept_without_idempotence(cluster, fault):
    expected = [b"%d" % number for number in range(400)]
    cluster.faults = [None, fault, None, None, fault]
    async with connect(cluster) as client:
        async with client.producer(batch_bytes=200, acks=1) as producer:
            await (await producer.send_many("t", expected))
    assert cluster.log().values == expected
    assert {batch[0].producer_id for batch in cluster.log().batches} == {-1}
    assert not any(isinstance(request, InitProducerIdRequest) for _, request in cluster.requests)


async def test_an_answer_that_never_comes_is_asked_for_again(cluster):
    cluster.faults = [None, SILENCE]
    async with connect(cluster, request_timeout_ms=300) as client:
        async with client.producer() as producer:
            await producer.send("t", b"0")
            assert (await producer.send("t", b"1")).offset == 1
    assert cluster.log().values == [b"0", b"1"]


async def test_a_leader_that_moves_is_followed(cluster):
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        cluster.log().leader, cluster.log().epoch = 2, 1
        assert (await producer.send("t", b"1")).offset == 1
    assert cluster.log().values == [b"0", b"1"]


async def test_a_new_leader_in_the_answer_is_followed_at_once(cluster):
    cluster.names_new_leader = True
    async with connect(cluster, retry_backoff_ms=60_000, retry_backoff_max_ms=60_000) as client:
        async with client.producer() as producer:
            await producer.send("t", b"0")
            cluster.log().leader, cluster.log().epoch = 2, 1
            with anyio.fail_after(40):
                assert (await producer.send("t", b"1")).offset == 1
    assert cluster.log().values == [b"0", b"1"]


async def test_a_partition_without_a_leader_is_waited_for(cluster):
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        cluster.log().leader, cluster.log().epoch = -1, 1
        delivery = producer.send_nowait("t", b"1")
        while not any(
            partition.leader_id < 0
            for partition in client.cluster.metadata.state.topics["t"].partitions
        ):
            await anyio.sleep(0.005)
        cluster.log().leader, cluster.log().epoch = 2, 2
        assert (await delivery).offset == 1


async def test_the_broker_dies_and_comes_back_elsewhere(cluster):
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        cluster.log().leader, cluster.log().epoch = 2, 1
        cluster.nodes[1].close()
        assert (await producer.send("t", b"1")).offset == 1
    assert cluster.log().values == [b"0", b"1"]


async def test_batches_that_are_too_large_are_split(cluster):
    expected = [b"%04d" % number + b"x" * 100 for number in range(300)]
    cluster.max_batch_bytes = 4000
    async with connect(cluster) as client, client.producer() as producer:
        deliveries = [producer.send_nowait("t", value) for value in expected]
        assert [(await delivery).offset for delivery in deliveries] == list(range(300))
        assert producer.statistics().splits >= 8
        assert producer.statistics().epoch_bumps == 0
        assert all(delivery.is_done for delivery in deliveries)
        with pytest.raises(MessageTooLarge, match="t-0"):
            await producer.send("t", b"x" * 5000)
        await producer.send("t", b"last")
        assert producer.statistics().buffered_bytes == 0
    assert cluster.log().values == [*expected, b"last"]


async def test_splitting_keeps_the_order_of_what_is_in_flight(cluster):
    expected = [b"%04d" % number + b"x" * 100 for number in range(300)]
    cluster.max_batch_bytes = 200
    async with connect(cluster) as client:
        async with client.producer(batch_bytes=3000, compression="zstd") as producer:
            await (await producer.send_many("t", expected))
            assert producer.statistics().splits > 10
    assert cluster.log().values == expected


@pytest.mark.parametrize("code", [29, 87])
async def test_what_cannot_be_retried_is_the_callers(cluster, code):
    error = {29: TopicAuthorizationFailed, 87: InvalidRecord}[code]
    cluster.faults = [None, code]
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        with pytest.raises(error, match="t-0"):
            await producer.send("t", b"refused")
        assert (await producer.send("t", b"1")).offset == 1
        statistics = producer.statistics()
        assert (statistics.records_written, statistics.records_failed) == (2, 1)
        assert statistics.epoch_bumps == 0
    assert cluster.log().values == [b"0", b"1"]


async def test_a_refused_batch_among_others_leaves_no_gap(cluster):
    cluster.faults = [None, None, 87]
    async with connect(cluster) as client:
        async with client.producer(batch_bytes=200) as producer:
            deliveries = [producer.send_nowait("t", b"%03d" % n) for n in range(200)]
            refused = 0
            for delivery in deliveries:
                try:
                    await delivery
                except InvalidRecord:
                    refused += 1
            assert 0 < refused < 50
    expected = [b"%03d" % n for n in range(200)]
    written = cluster.log().values
    assert len(written) == 200 - refused
    assert written == [value for value in expected if value in set(written)]


@pytest.mark.parametrize("code", [59, 47, 45])
async def test_a_broker_that_forgot_the_producer_gets_a_new_epoch(cluster, code):
    cluster.faults = [None, code]
    async with connect(cluster) as client, client.producer() as producer:
        for number in range(4):
            await producer.send("t", b"%d" % number)
        assert producer.statistics().epoch_bumps == 1
    assert cluster.log().values == [b"0", b"1", b"2", b"3"]
    epochs = [(batch.producer_epoch, batch.base_sequence) for batch, _ in cluster.log().batches]
    assert epochs == [(0, 0), (1, 0), (1, 1), (1, 2)]


async def test_epochs_that_are_used_up_are_followed_by_another_producer(cluster):
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        idempotence = producer._idempotence
        idempotence.identity = idempotence.identity._replace(epoch=32767)
        cluster.log().producers.clear()
        await producer.send("t", b"1")
        cluster.faults = [59]
        await producer.send("t", b"2")
    ids = [(batch.producer_id, batch.producer_epoch) for batch, _ in cluster.log().batches]
    assert ids == [(1000, 0), (1000, 32767), (1001, 0)]


async def test_a_repetition_that_is_older_than_the_window_counts_as_written(cluster):
    cluster.faults = [None, 46]
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        assert (await producer.send("t", b"1")).offset == -1


async def test_sequences_without_idempotence_are_an_error(cluster):
    cluster.faults = [45]
    async with connect(cluster) as client, client.producer(acks=1) as producer:
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.send("t", b"0")


async def test_what_is_never_acknowledged_times_out(cluster):
    cluster.faults = [19] * 100_000
    async with connect(cluster) as client, client.producer() as producer:
        delivery = producer.send_nowait("t", b"0")
        await retried(producer)
        delivery.batch.deadline_s = 0.0
        with pytest.raises(DeliveryTimeout, match=r"t-0.*120000 ms.*last: NOT_ENOUGH_REPLICAS"):
            await delivery
        cluster.faults.clear()
        assert (await producer.send("t", b"1")).offset == 0
    assert cluster.log().values == [b"1"]


async def test_time_out_after_an_unknown_outcome_starts_an_epoch(cluster):
    cluster.faults = [None, DROP_WRITTEN, *[19] * 100_000]
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        delivery = producer.send_nowait("t", b"perhaps")
        await retried(producer)
        with pytest.raises(DeliveryTimeout):
            await overdue(producer, delivery)
        cluster.faults.clear()
        await producer.send("t", b"2")
        assert producer.statistics().epoch_bumps == 1
    assert cluster.log().values == [b"0", b"perhaps", b"2"]


async def test_no_broker_answers_any_more(cluster):
    async with connect(cluster) as client, client.producer() as producer:
        await producer.send("t", b"0")
        cluster.close()
        delivery = producer.send_nowait("t", b"1")
        failed = client.statistics().connections_failed
        while client.statistics().connections_failed < failed + 3:
            await anyio.sleep(0.005)
        with pytest.raises(DeliveryTimeout, match="refused|broke"):
            await overdue(producer, delivery)


async def test_a_failure_that_nobody_waits_for_comes_out_of_flush(cluster):
    cluster.faults = [87]
    async with connect(cluster) as client, client.producer() as producer:
        with logs.captured() as lines:
            producer.send_nowait("t", b"0")
            with pytest.raises(InvalidRecord):
                await producer.flush()
        warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
        assert warnings == ["records not written"]
        await producer.flush()


async def test_a_failure_that_nobody_waits_for_comes_out_of_the_block(cluster):
    cluster.faults = [87]
    with logs.captured(), pytest.raises(InvalidRecord):
        async with connect(cluster) as client, client.producer() as producer:
            producer.send_nowait("t", b"0")


async def test_no_producer_id_is_given(cluster):
    cluster.init_producer_id_errors = [15, 31]
    async with connect(cluster) as client, client.producer() as producer:
        with pytest.raises(ClusterAuthorizationFailed):
            await producer.send("t", b"0")
        with pytest.raises(ClusterAuthorizationFailed):
            await producer.send_many("t", [b"0"])
    assert not produced(cluster)


async def test_a_broker_without_zstd(cluster):
    cluster.api_versions = lambda version: ApiVersionsResponse(
        api_keys=[
            ApiVersionsResponseKey(api_key=0, min_version=0, max_version=6),
            ApiVersionsResponseKey(api_key=3, min_version=0, max_version=5),
            ApiVersionsResponseKey(api_key=22, min_version=0, max_version=1),
        ]
    )
    async with connect(cluster) as client:
        async with client.producer() as producer:
            await producer.send("t", b"old, but good")
        async with client.producer(compression="zstd") as producer:
            with pytest.raises(UnsupportedByBroker, match=r"Produce.*version 7.*0 to 6"):
                await producer.send("t", b"0")


async def test_one_partition_in_trouble_does_not_hold_up_others():
    with FakeCluster(nodes=1, partitions=2) as cluster:
        cluster.faults = [lambda _c, _n, _t, partition: 19 if partition == 0 else None] * 1000
        async with connect(cluster) as client, client.producer() as producer:
            stuck = producer.send_nowait("t", b"stuck", partition=0)
            for number in range(5):
                assert (await producer.send("t", b"%d" % number, partition=1)).offset == number
            assert not stuck.is_done
            cluster.faults.clear()
            assert (await stuck).offset == 0


async def test_a_request_has_one_batch_of_each_partition_and_keeps_its_size():
    with FakeCluster(nodes=1, partitions=8) as cluster:
        async with connect(cluster) as client:
            async with client.producer(max_request_bytes=3000, batch_bytes=1000) as producer:
                for number in range(8):
                    for _ in range(4):
                        producer.send_nowait("t", b"x" * 400, partition=number)
                await producer.flush()
        sizes = []
        for request in produced(cluster):
            partitions = [p for topic in request.topic_data for p in topic.partition_data]
            assert len({p.index for p in partitions}) == len(partitions)
            sizes.append(sum(len(p.records) for p in partitions))
        assert max(sizes) <= 3000
        assert len(sizes) < 16


async def test_metadata_errors_are_waited_out(cluster):
    cluster.metadata_errors = [5, 5, 3]
    async with connect(cluster) as client, client.producer() as producer:
        assert (await producer.send("t", b"0")).offset == 0


async def test_an_answer_that_makes_no_sense_is_a_broken_connection(cluster):
    async with connect(cluster) as client:
        async with client.producer() as producer:
            await producer.send("t", b"0")
            original = cluster.answer

            def nonsense(node, key, request, version):
                answer = original(node, key, request, version)
                if key == 0:
                    answer.responses[0].name = "other"
                return answer

            cluster.answer = nonsense
            delivery = producer.send_nowait("t", b"1")
            await retried(producer)
            with pytest.raises(DeliveryTimeout, match="unanswered"):
                await overdue(producer, delivery)
