"""The producer's machines against a model of a broker, under every order of faults.

What holds: nothing that was acknowledged is missing or elsewhere than said; what is not given up
is written, in its order; without a new epoch nothing is written twice; no memory is left over.
"""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.fake_cluster import FakeLog
from trioq.client.accumulator_state import AccumulatorState
from trioq.client.cluster_state import PartitionInfo
from trioq.client.idempotence_state import (
    MAX_EPOCH,
    IdempotenceState,
    PartitionSequences,
    Repair,
    following,
)
from trioq.client.partition_queue import PartitionQueue
from trioq.client.produce_request import seal
from trioq.client.producer_batch import ProducerIdentity, Split, Written, open_batch
from trioq.client.producer_settings import ProducerSettings
from trioq.client.settlement import Settlement
from trioq.client.unrouted import NewRecord
from trioq.errors import BufferFull, ConnectionFailed, TrioqError
from trioq.wire.messages.produce import ProduceResponsePartition

LEADER = [PartitionInfo(0, 1, 0, (1,), (1,), ())]

FAULTS = st.sampled_from(
    [None, None, None, 6, 7, 19, 20, 87, "lost", "written, lost", "written, 7", "forget", "small"]
)


class Producer:
    """Accumulator, sequences and settlement, driven by hand."""

    def __init__(self, **changes):
        self.settings = ProducerSettings(
            **{"batch_bytes": 250, "linger_ms": 0, "delivery_timeout_ms": 10**9, **changes}
        )
        self.idempotence = IdempotenceState() if self.settings.is_idempotent else None
        if self.idempotence is not None:
            self.idempotence.identified(1, 0)
        self.accumulator = AccumulatorState(
            self.settings,
            {},
            on_ready=lambda: None,
            on_new_topic=lambda _: None,
            on_room=lambda: None,
            draw=lambda _: 0,
        )
        self.accumulator.set_partitions("t", LEADER, 0.0)
        self.settlement = Settlement(
            self.accumulator,
            self.idempotence,
            retry_delay_s=lambda _: 0.0,
            delivery_timeout_ms=10**9,
        )
        self.deliveries = []
        self.in_flight = deque()

    @property
    def queue(self):
        return self.accumulator.topics["t"].queues[0]

    def send(self, value):
        record = NewRecord("t", value, None, (), None, 0)
        delivery = self.accumulator.append(record, 0.0)
        delivery.batch.is_awaited = True
        self.deliveries.append((value, delivery))

    def drain(self):
        queue = self.queue
        batch = self.accumulator.next_due(queue, 1.0)
        if batch is None or len(self.in_flight) >= 5:
            return False
        if self.idempotence is not None and not self.idempotence.prepare(
            queue.sequences, batch, queue.waiting, len(queue.in_flight)
        ):
            if self.idempotence.needs_identity:
                self.idempotence.identified(2, 0)
            return False
        self.accumulator.sent(queue, batch)
        seal(batch, self.settings)
        self.in_flight.append((batch, bytes(batch.data)))
        return True

    def outcome(self, delivery):
        while isinstance(delivery.batch.outcome, Split):
            delivery.batch._moved(delivery, delivery.batch.outcome)
        return delivery.batch.outcome


def exchange(producer, log, fault, broken_after=0):
    """Have the broker take the oldest request in flight, with a fault."""
    batch, data = producer.in_flight.popleft()
    queue = producer.queue
    if fault == "forget":
        log.producers.clear()
    code, base = (fault, -1) if isinstance(fault, int) else (0, -1)
    if fault == "small" and len(data) > 120:
        code = 10
    elif not isinstance(fault, int) and fault != "lost":
        code, base = log.append(memoryview(data))
    if fault == "written, 7":
        code, base = 7, -1
    if fault in {"lost", "written, lost"}:
        # The connection is gone: the broker may still have read some of what is behind.
        failure = ConnectionFailed("lost")
        producer.settlement.lost(queue, batch, failure, 0.0)
        behind = list(producer.in_flight)
        producer.in_flight.clear()
        for number, (other, other_data) in enumerate(behind):
            if fault == "written, lost" and number < broken_after:
                log.append(memoryview(other_data))
            producer.settlement.lost(queue, other, failure, 0.0)
        return
    answer = ProduceResponsePartition(index=0, error_code=code, base_offset=base)
    producer.settlement.answered(queue, batch, answer, 0.0)


def finish(producer, log):
    for _ in range(10_000):
        if producer.queue.is_empty:
            return
        while producer.drain():
            pass
        if producer.in_flight:
            exchange(producer, log, None)
    raise AssertionError("it does not come to an end")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 12)),
            st.tuples(st.just("drain"), st.integers(1, 5)),
            st.tuples(st.just("exchange"), FAULTS, st.integers(0, 4)),
        ),
        max_size=60,
    ),
    st.sampled_from(["all", 1]),
    st.sampled_from([0, MAX_EPOCH - 1]),
)
def test_nothing_is_lost_doubled_or_out_of_order(steps, acks, epoch):
    producer, log = Producer(acks=acks), FakeLog()
    if producer.idempotence is not None:
        producer.idempotence.identity = ProducerIdentity(1, epoch)
    number = 0
    saw_uncertainty = forgot = False
    for step in steps:
        if step[0] == "send":
            for _ in range(step[1]):
                producer.send(b"%06d" % number + b"x" * (number % 40))
                number += 1
        elif step[0] == "drain":
            for _ in range(step[1]):
                producer.drain()
        elif producer.in_flight:
            saw_uncertainty |= step[1] in {"lost", "written, lost", "written, 7", 7, 20, "forget"}
            forgot |= step[1] == "forget"
            exchange(producer, log, *step[1:])
    finish(producer, log)

    written = [value for value in log.values if value is not None]
    kept = []
    for value, delivery in producer.deliveries:
        outcome = producer.outcome(delivery)
        if isinstance(outcome, Written):
            kept.append(value)
            if outcome.base_offset >= 0:
                assert written[outcome.base_offset + delivery.index] == value
        else:
            assert isinstance(outcome, TrioqError)
    if not forgot:  # a broker that forgot the producer may take it up after a gap
        first_seen = list(dict.fromkeys(written))
        assert [value for value in first_seen if value in set(kept)] == kept
    if acks == "all" and producer.idempotence.epoch_bumps == 0 and not saw_uncertainty:
        assert written == kept
    if acks == "all" and producer.idempotence.epoch_bumps == 0:
        assert forgot or len(written) == len(set(written))
    assert producer.accumulator.used_bytes == 0
    assert not producer.accumulator.active
    counts = producer.settlement.counts
    assert counts.records_written + counts.records_failed == number


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(1000, 20_000))
@settings(max_examples=60, deadline=None)
def test_memory_is_bounded_and_given_back(sizes, buffer_bytes):
    producer, log = Producer(buffer_bytes=buffer_bytes, batch_bytes=4000), FakeLog()
    for size in sizes:
        try:
            producer.send(b"x" * size)
        except BufferFull:
            assert producer.accumulator.used_bytes + 4000 + size > buffer_bytes
            assert producer.accumulator.is_starved
            finish(producer, log)
            assert producer.accumulator.used_bytes == 0
            producer.send(b"x" * size)
        # One record may go beyond, in the memory that its batch has not yet asked for.
        assert producer.accumulator.used_bytes <= buffer_bytes + 4000 + size
    finish(producer, log)
    assert producer.accumulator.used_bytes == 0
    assert len(log.values) == len(sizes)


def test_a_batch_is_due_when_it_lingered_or_somebody_waits():
    producer = Producer(linger_ms=1000, batch_bytes=100_000)
    queue = producer.queue
    producer.send(b"1")
    assert producer.accumulator.next_due(queue, 0.9) is None
    assert producer.accumulator.due_at_s(queue) == 1.0
    batch = queue.open
    batch.on_awaited(batch)
    assert producer.accumulator.due_at_s(queue) == 0.0
    assert producer.accumulator.next_due(queue, 0.0) is batch
    assert queue.open is None
    producer.send(b"2")
    assert queue.open is not batch
    producer.accumulator.sent(queue, batch)
    assert producer.accumulator.next_due(queue, 0.5) is None
    producer.accumulator.flushes = 1
    assert producer.accumulator.next_due(queue, 0.5) is not None


def test_batches_go_back_to_their_place():
    queue = PartitionQueue("t", 0)
    batches = {
        order: open_batch(
            "t", 0, order=order, first_bytes=0, max_bytes=1000, now_s=0.0, deadline_s=1.0
        )
        for order in [(1,), (2, 0), (2, 1), (3,)]
    }
    for order in [(3,), (2, 0), (1,), (2, 1)]:
        queue.put_back(batches[order])
    assert [batch.order for batch in queue.waiting] == [(1,), (2, 0), (2, 1), (3,)]
    assert queue.has_earlier(batches[3,])
    assert not queue.has_earlier(batches[1,])


def test_more_partitions_keep_what_is_queued():
    producer = Producer()
    producer.send(b"1")
    queue = producer.queue
    infos = [PartitionInfo(number, 1, 0, (1,), (1,), ()) for number in range(3)]
    producer.accumulator.set_partitions("t", infos, 0.0)
    assert producer.queue is queue
    assert len(producer.accumulator.topics["t"].route.batches) == 3
    producer.accumulator.set_partitions("t", infos[:1], 0.0)
    assert len(producer.accumulator.topics["t"].queues) == 1
    assert not producer.accumulator.forget("t")
    finish(producer, FakeLog())
    assert producer.accumulator.forget("t")
    assert producer.accumulator.forget("t")


def test_sequences_wrap():
    assert following(2**31 - 3, 2) == 2**31 - 1
    assert following(2**31 - 1, 1) == 0
    sequences = PartitionSequences()
    sequences.identity = ProducerIdentity(1, 0)
    sequences.acked_end = 2**31 - 2
    batch = open_batch("t", 0, order=(1,), first_bytes=0, max_bytes=99, now_s=0.0, deadline_s=1.0)
    batch.identity, batch.sequence, batch.count = sequences.identity, 2**31 - 2, 5
    sequences.acked(batch)
    assert sequences.acked_end == 3
    late = open_batch("t", 0, order=(0,), first_bytes=0, max_bytes=99, now_s=0.0, deadline_s=1.0)
    late.identity, late.sequence, late.count = sequences.identity, 2**31 - 9, 5
    sequences.acked(late)
    assert sequences.acked_end == 3
    sequences.need(Repair.NEW_EPOCH)
    sequences.need(Repair.RENUMBER)
    assert sequences.repair is Repair.NEW_EPOCH


def test_memory_of_large_batches_is_used_again_unless_somebody_holds_it():
    producer, log = Producer(batch_bytes=200_000, max_request_bytes=200_000), FakeLog()
    for turn in range(3):
        producer.send(b"%d" % turn * 150_000)
        finish(producer, log)
    assert len(producer.accumulator._buffers) == 1
    kept = producer.accumulator._buffers[0]
    with memoryview(kept):
        producer.accumulator._keep(kept)
    assert len(producer.accumulator._buffers) == 1
    producer.send(b"x" * 100_000)
    assert producer.accumulator._buffers == []
    finish(producer, log)
    assert [len(value) for value in log.values] == [150_000] * 3 + [100_000]
    assert log.values[-1] == b"x" * 100_000
