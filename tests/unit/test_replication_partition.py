"""A partition led here: what it accepts, whom it tells, what it shows."""

from __future__ import annotations

import errno

import pytest

from tests.unit.storage_support import NOW_MS, TOPIC_ID, TP, batch, open_dirs, region_bytes
from trioq._native.batch import seal, validate
from trioq.clock import ManualClock
from trioq.config import BrokerConfig, TopicConfig
from trioq.errors import (
    FencedLeaderEpoch,
    InvalidRecord,
    InvalidTimestamp,
    InvalidTxnState,
    KafkaError,
    KafkaStorageError,
    MessageTooLarge,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    OffsetOutOfRange,
    OutOfOrderSequenceNumber,
    UnknownLeaderEpoch,
)
from trioq.metastore.layout import PartitionState
from trioq.record.batch import read_records
from trioq.record.compression import Codec
from trioq.replication.partition import ACKS_ALL, Partition
from trioq.replication.producing import SETTLES_S
from trioq.storage.memory_disk import MemoryDisk

BROKER = BrokerConfig.from_mapping({"node.id": "1"})


class Waiter:
    def __init__(self) -> None:
        self.told: list[tuple[int, type[KafkaError] | None]] = []

    def acknowledged(self, index: int) -> None:
        self.told.append((index, None))

    def refused(self, index: int, error: type[KafkaError]) -> None:
        self.told.append((index, error))


class Listener:
    def __init__(self) -> None:
        self.bytes: list[int] = []

    def progressed(self, partition: Partition, new_bytes: int) -> None:
        self.bytes.append(new_bytes)


def state(leader: int = 1, epoch: int = 0, version: int = 0, isr=(1,)) -> PartitionState:
    return PartitionState(
        leader=leader,
        leader_epoch=epoch,
        isr=isr,
        broker_epochs=tuple(0 for _ in isr),
        replicas=(1,),
        partition_epoch=version,
    )


class World:
    """A partition over a memory disk, led at epoch 0."""

    def __init__(self, **overrides: str) -> None:
        self.disk = MemoryDisk()
        self.dirs = open_dirs(self.disk)
        names = {name.replace("_", "."): value for name, value in overrides.items()}
        config = TopicConfig.of(BROKER, names)
        log = self.dirs.log(TP, TOPIC_ID, config)
        self.partition = Partition(TP, TOPIC_ID, log, config, BROKER)
        self.partition.use_broker_epoch(0)
        self.partition.apply_state(state())

    def append(self, data: bytearray, *, acks: int = 1, waiter=None, index: int = 0):
        view = memoryview(data)
        header = self.partition.check_batch(view)
        appended = self.partition.append_as_leader(view, header, acks=acks, now_ms=NOW_MS)
        if waiter is not None:
            self.partition.await_acks(appended.last_offset + 1, acks, waiter, index)
        return appended

    def read(self, offset: int, *, max_bytes: int = 1 << 20, epoch: int = -1, last_epoch: int = -1):
        return self.partition.read(
            offset,
            max_bytes,
            min_one_batch=True,
            read_committed=False,
            current_leader_epoch=epoch,
            last_fetched_epoch=last_epoch,
        )


def test_acks_wait_for_the_write_and_readers_see_only_what_is_written() -> None:
    world, waiter, listener = World(), Waiter(), Listener()
    world.partition.add_listener(listener)
    data = batch(b"a", b"b")
    appended = world.append(data, acks=ACKS_ALL, waiter=waiter, index=7)
    assert (appended.base_offset, appended.last_offset) == (0, 1)
    assert waiter.told == []
    assert world.read(0).region is None
    world.dirs.end_pass()
    assert waiter.told == [(7, None)]
    assert listener.bytes == [len(data)]
    found = world.read(0)
    assert found.high_watermark == found.last_stable_offset == 2
    assert region_bytes(found.region) == bytes(data)


def test_a_duplicate_waits_for_the_write_of_its_original() -> None:
    world, first, second = World(), Waiter(), Waiter()
    world.append(batch(b"a", producer=(5, 0, 0)), waiter=first)
    again = world.append(batch(b"a", producer=(5, 0, 0)), waiter=second)
    assert (again.base_offset, again.duplicate) == (0, True)
    assert second.told == []
    world.dirs.end_pass()
    assert first.told == second.told == [(0, None)]
    late = Waiter()
    world.append(batch(b"a", producer=(5, 0, 0)), waiter=late)
    assert late.told == [(0, None)]
    assert world.partition.log.log_end_offset == 1


def test_a_failing_disk_refuses_everyone_who_waits() -> None:
    world, waiter, listener = World(), Waiter(), Listener()
    world.partition.add_listener(listener)
    world.append(batch(b"a"), waiter=waiter)
    world.disk.inject("pwritev", errno.ENOSPC)
    world.dirs.end_pass()
    assert waiter.told == [(0, KafkaStorageError)]
    assert listener.bytes == [0]
    with pytest.raises(KafkaStorageError):
        world.append(batch(b"b"))
    with pytest.raises(KafkaStorageError):
        world.read(0)


def test_demotion_answers_waiters_and_fences_clients() -> None:
    world, waiter, listener = World(), Waiter(), Listener()
    world.partition.add_listener(listener)
    world.append(batch(b"a"), waiter=waiter)
    world.partition.apply_state(state(leader=2, epoch=1, version=1))
    assert waiter.told == [(0, NotLeaderOrFollower)]
    assert listener.bytes == [0]
    with pytest.raises(NotLeaderOrFollower):
        world.append(batch(b"b"))
    with pytest.raises(NotLeaderOrFollower):
        world.read(0)


def test_an_older_state_than_the_one_held_is_ignored() -> None:
    world = World()
    world.partition.apply_state(state(epoch=4, version=3))
    world.partition.apply_state(state(leader=2, epoch=1, version=2))
    assert world.partition.is_leader
    assert world.partition.leader_epoch == 4


def test_leader_epochs_of_clients_are_fenced() -> None:
    world = World()
    world.partition.apply_state(state(epoch=4, version=3))
    assert world.read(0, epoch=4).region is None
    with pytest.raises(FencedLeaderEpoch):
        world.read(0, epoch=3)
    with pytest.raises(UnknownLeaderEpoch):
        world.read(0, epoch=5)


def test_a_reader_of_another_history_is_told_where_it_diverges() -> None:
    world = World()
    world.append(batch(b"a", b"b"))
    world.dirs.end_pass()
    world.partition.apply_state(state(epoch=3, version=1))
    world.append(batch(b"c"))
    world.dirs.end_pass()
    assert world.read(3, last_epoch=3).diverging is None
    assert world.read(3, last_epoch=0).diverging == (0, 2)
    assert world.read(2, last_epoch=2).diverging == (0, 2)
    with pytest.raises(OffsetOutOfRange):
        world.read(4)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (batch(b"a") + batch(b"b"), InvalidRecord),
        (batch(b"x" * 2000), MessageTooLarge),
        (batch(b"a", producer=(5, 0, 0), is_transactional=True), InvalidTxnState),
        (batch(b"a", producer=(5, 0, -1)), InvalidRecord),
    ],
    ids=["two batches", "too large", "transactional", "producer without sequence"],
)
def test_what_a_producer_may_not_send(data: bytearray, error: type[KafkaError]) -> None:
    world = World(max_message_bytes="1500")
    with pytest.raises(error):
        world.append(data)
    assert world.partition.log.log_end_offset == 0


def test_append_time_is_stamped_and_told() -> None:
    world = World(message_timestamp_type="LogAppendTime")
    data = batch(b"a", timestamp=5)
    appended = world.append(data)
    assert appended.append_time_ms == NOW_MS
    stamped = validate(data)
    assert (stamped.timestamp_type, stamped.max_timestamp) == (1, NOW_MS)


def test_timestamps_out_of_the_topics_bounds_are_refused() -> None:
    world = World(message_timestamp_before_max_ms="1000", message_timestamp_after_max_ms="1000")
    world.append(batch(b"a", timestamp=NOW_MS - 1000))
    for timestamp in (NOW_MS - 1001, NOW_MS + 1001):
        with pytest.raises(InvalidTimestamp):
            world.append(batch(b"a", timestamp=timestamp))


def test_acks_all_needs_the_in_sync_replicas_of_the_topic() -> None:
    world = World(min_insync_replicas="2")
    with pytest.raises(NotEnoughReplicas):
        world.append(batch(b"a"), acks=ACKS_ALL)
    world.append(batch(b"a"), acks=1)


def test_recompression_keeps_records_and_changes_the_codec() -> None:
    world = World(compression_type="zstd")
    data = batch(b"a" * 400, b"b" * 400, producer=(9, 0, 0))
    header = world.partition.check_batch(memoryview(data))
    assert world.partition.must_prepare(header)
    prepared = world.partition.prepare(bytes(data))
    after = world.partition.check_batch(memoryview(prepared))
    assert after.codec == Codec.ZSTD
    assert not world.partition.must_prepare(after)
    assert (after.producer_id, after.base_sequence, after.record_count) == (9, 0, 2)
    assert [one.value for one in read_records(prepared)] == [b"a" * 400, b"b" * 400]


def test_strict_validation_opens_compressed_batches() -> None:
    world = World(produce_batch_validation="strict")
    good = batch(b"a", codec=Codec.GZIP)
    header = world.partition.check_batch(memoryview(good))
    assert world.partition.must_prepare(header)
    assert world.partition.prepare(bytes(good)) == good
    bad = bytearray(good)
    bad[-5] ^= 0xFF
    seal(bad)
    world.partition.check_batch(memoryview(bad))
    with pytest.raises(InvalidRecord):
        world.partition.prepare(bytes(bad))


def test_records_are_deleted_below_the_high_watermark_only() -> None:
    world = World()
    world.append(batch(b"a", b"b", b"c"))
    world.dirs.end_pass()
    assert world.partition.delete_records(1) == 1
    assert world.partition.delete_records(0) == 1
    for wrong in (4, -2):
        with pytest.raises(OffsetOutOfRange):
            world.partition.delete_records(wrong)
    assert world.partition.delete_records(-1) == 3
    with pytest.raises(OffsetOutOfRange):
        world.read(2)


def test_commit_policy_acknowledges_after_the_sync() -> None:
    world, waiter = World(flush_policy="commit"), Waiter()
    world.append(batch(b"a"), waiter=waiter)
    world.dirs.end_pass()
    assert waiter.told == []
    assert world.partition.log.high_watermark == 0
    (log_dir,) = world.dirs.dirs
    while log_dir.writer.run_round():
        pass
    assert waiter.told == [(0, None)]
    assert world.partition.log.high_watermark == 1


@pytest.mark.parametrize("known", [True, False], ids=["gap", "unknown producer"])
def test_after_a_change_of_leaders_nothing_is_taken_before_what_it_follows(known: bool) -> None:
    """The batch before it was refused when another led; both had been sent at once."""
    world = World()
    if known:
        world.append(batch(b"a", producer=(5, 0, 0)))
        world.dirs.end_pass()
    world.partition.apply_state(state(leader=2, epoch=1, version=1))
    first = 1 if known else 0
    with pytest.raises(NotLeaderOrFollower):
        world.append(batch(b"b", b"c", producer=(5, 0, first)))
    world.partition.apply_state(state(epoch=2, version=2))
    with pytest.raises(NotLeaderOrFollower, match="led here again since a moment ago"):
        world.append(batch(b"d", producer=(5, 0, first + 2)))
    for sequence, values in ((first, (b"b", b"c")), (first + 2, (b"d",))):
        assert not world.append(batch(*values, producer=(5, 0, sequence))).duplicate
    assert world.append(batch(b"b", b"c", producer=(5, 0, first))).duplicate


def test_some_time_after_a_change_of_leaders_a_gap_is_out_of_order() -> None:
    world = World()
    world.append(batch(b"a", producer=(5, 0, 0)))
    world.dirs.end_pass()
    world.partition.apply_state(state(leader=2, epoch=1, version=1))
    world.partition.apply_state(state(epoch=2, version=2))
    clock = world.partition.log.log_dir.clock
    assert isinstance(clock, ManualClock)
    clock.advance(SETTLES_S)
    with pytest.raises(OutOfOrderSequenceNumber):
        world.append(batch(b"d", producer=(5, 0, 3)))
    assert world.append(batch(b"e", producer=(6, 0, 3))).base_offset == 1
