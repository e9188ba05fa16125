"""A follower's log is the leader's, byte for byte, with all that is derived from it."""

from __future__ import annotations

import struct
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    append,
    batch,
    headers,
    new_log,
    open_dirs,
    put,
    read_all,
)
from trioq._native.replica_run import check_run
from trioq.errors import CorruptMessage, KafkaStorageError
from trioq.record.control import build_end_transaction
from trioq.storage.log import Log
from trioq.storage.memory_disk import MemoryDisk

FAR = 1 << 60


def replicate(
    leader: Log, follower: Log, *, max_bytes: int = 1 << 20, leader_epoch: int = 99
) -> None:
    """Copy what the follower lacks, in pieces as a fetch would bring them."""
    while True:
        at = follower.log_end_offset
        region = leader.read(
            at, max_bytes, end_offset=leader.written_end_offset, min_one_batch=True
        )
        if region is None:
            return
        import os

        data = os.pread(region.file.fileno(), region.length, region.position)
        region.file.release()
        fault = follower.append_replica(
            memoryview(bytearray(data)), leader_epoch=leader_epoch, gaps_below=0
        )
        assert fault is None


def files_of(disk: MemoryDisk, suffixes: tuple[str, ...]) -> dict[str, bytes]:
    return {
        name: disk.read_file(f"/data/{TP}/{name}")
        for name in disk.listdir(f"/data/{TP}")
        if name.endswith(suffixes)
    }


def producers_of(log: Log) -> list[object]:
    return [
        (key, entry.epoch, entry.last_sequence, entry.window, entry.txn_first_offset)
        for key, entry in sorted(log.producers._entries.items())
    ]


@st.composite
def histories(draw):
    """What a leader appends: sizes, producers, transactions, epochs."""
    steps = []
    epoch = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 40))):
        epoch += draw(st.sampled_from((0, 0, 0, 0, 1, 5)))
        steps.append(
            (
                epoch,
                draw(st.integers(1, 4)),
                draw(st.sampled_from((3, 30, 300, 1200))),
                draw(st.sampled_from((-1, -1, 5, 6))),
                draw(st.sampled_from((0, 0, 10, -20))),
                draw(st.sampled_from(("plain", "plain", "transactional", "end"))),
            )
        )
    return steps


def play(log: Log, steps) -> None:
    sequences: dict[int, int] = {}
    open_transactions: set[int] = set()
    for number, (epoch, count, size, producer_id, skew, kind) in enumerate(steps):
        timestamp = NOW_MS + number * 7 + skew
        if producer_id >= 0 and kind == "end":
            data = build_end_transaction(
                committed=number % 2 == 0,
                coordinator_epoch=1,
                producer_id=producer_id,
                producer_epoch=0,
                timestamp_ms=timestamp,
            )
            header = headers(bytes(data))[0]
            base = log._stage(memoryview(data), header, epoch)
            from trioq.storage.log_producers import end_marker

            log.producers.stage(header, base, header.max_timestamp, end_marker(bytes(data)))
            open_transactions.discard(producer_id)
        else:
            values = [bytes([65 + number % 26]) * size] * count
            options: dict[str, object] = {}
            if producer_id >= 0:
                first = sequences.get(producer_id, 0)
                sequences[producer_id] = first + count
                options["producer"] = (producer_id, 0, first)
                if kind == "transactional" or producer_id in open_transactions:
                    options["is_transactional"] = True
                    open_transactions.add(producer_id)
            append(log, batch(*values, timestamp=timestamp, **options), epoch=epoch)
        if number % 3 == 2:
            assert log.write_group()
    assert log.write_group()


@settings(max_examples=25, deadline=None)
@given(histories(), st.sampled_from((1, 900, 5000, 1 << 20)))
def test_files_and_state_are_those_of_the_leader(steps, max_bytes: int) -> None:
    config = Config(segment_bytes=6000, index_interval_bytes=256)
    disks = MemoryDisk(), MemoryDisk()
    leader, follower = (new_log(config, disk) for disk in disks)
    play(leader, steps)
    replicate(leader, follower, max_bytes=max_bytes)
    assert follower.log_end_offset == leader.log_end_offset == follower.written_end_offset
    assert follower.epochs.entries() == leader.epochs.entries()
    assert producers_of(follower) == producers_of(leader)
    assert list(follower.producers._ongoing.items()) == list(leader.producers._ongoing.items())
    assert [s.base_offset for s in follower.segments.items] == [
        s.base_offset for s in leader.segments.items
    ]
    for ours, theirs in zip(follower.segments.items, leader.segments.items, strict=True):
        assert ours.offsets is not None
        assert theirs.offsets is not None
        assert ours.offsets.data == theirs.offsets.data
        assert ours.times is not None
        assert theirs.times is not None
        assert ours.times.data == theirs.times.data
        for name in ("size", "max_timestamp", "max_timestamp_offset", "first_timestamp",
                     "bytes_since_index"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name
    leader.close()
    follower.close()
    suffixes = (".log", ".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint")
    assert files_of(disks[1], suffixes) == files_of(disks[0], suffixes)


def test_a_producer_state_that_was_not_loaded_is_not_counted_twice() -> None:
    leader, disk = new_log(), MemoryDisk()
    for number in range(4):
        put(leader, b"x", producer=(5, 0, number))
    dirs = open_dirs(disk)
    follower = dirs.log(TP, TOPIC_ID, Config())
    data = read_all(leader)
    edge = headers(data)[1].position + headers(data)[1].size_bytes
    follower.append_replica(memoryview(data)[:edge], leader_epoch=0, gaps_below=0)
    follower._producers = None
    follower.append_replica(memoryview(data)[edge:], leader_epoch=0, gaps_below=0)
    assert producers_of(follower) == producers_of(leader)


def leader_bytes(*epochs: int) -> bytearray:
    leader = new_log()
    for epoch in epochs:
        put(leader, b"one", b"two", epoch=epoch)
    return bytearray(read_all(leader))


def corrupted(data: bytearray, number: int, at: int, value: bytes) -> bytearray:
    position = headers(bytes(data))[number].position
    data[position + at : position + at + len(value)] = value
    return data


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, struct.pack(">q", 3), "base offset is 3"),
        (0, struct.pack(">q", 5), "base offset is 5"),
        (0, struct.pack(">q", 1 << 62), "base offset is"),
        (0, struct.pack(">q", -1), "base offset is -1"),
        (8, struct.pack(">i", 10), "length is impossible"),
        (8, struct.pack(">i", -5), "length is impossible"),
        (12, struct.pack(">i", 0), "leader epoch is 0, below 1"),
        (12, struct.pack(">i", -1), "leader epoch is -1, below 1"),
        (12, struct.pack(">i", 8), "leader epoch is 8, the leader's is 7"),
        (16, b"\1", "magic is 1"),
        (23, struct.pack(">i", -1), "record count"),
        (57, struct.pack(">i", 100), "record count"),
        (80, b"\xff", "CRC does not match"),
    ],
)
def test_only_sound_batches_that_come_next_are_taken(at: int, value: bytes, says: str) -> None:
    data = corrupted(leader_bytes(1, 1, 1, 2), 2, at, value)
    follower = new_log()
    fault = follower.append_replica(memoryview(data), leader_epoch=7, gaps_below=0)
    assert fault is not None
    assert says in fault
    sound = leader_bytes(1, 1, 1, 2)
    third = headers(bytes(sound))[2].position
    # What came before the fault is sound, and is there.
    assert read_all(follower) == bytes(sound[:third])
    follower.append_replica(memoryview(sound)[third:], leader_epoch=7, gaps_below=0)
    assert read_all(follower) == bytes(sound)


def test_a_batch_that_is_cut_off_waits_for_its_rest() -> None:
    data = leader_bytes(0, 0, 0)
    third = headers(bytes(data))[2].position
    for cut in (third, third + 5, third + 61, len(data) - 1):
        follower = new_log()
        follower.append_replica(memoryview(data)[:cut], leader_epoch=0, gaps_below=0)
        assert follower.log_end_offset == 4
        follower.append_replica(memoryview(data)[third:], leader_epoch=0, gaps_below=0)
        assert read_all(follower) == bytes(data)


def test_gaps_are_taken_where_compaction_may_have_left_them(capsys) -> None:
    data = leader_bytes(0, 0, 0)
    first, _, third = headers(bytes(data))
    gapped = memoryview(bytes(data[: first.size_bytes] + data[third.position :]))
    for policy in (("compact",), ("delete",)):
        follower = new_log(Config(cleanup_policy=policy))
        fault = follower.append_replica(gapped, leader_epoch=0, gaps_below=4)
        assert fault is not None
        assert "where offset 2 is expected" in fault
        follower.append_replica(gapped[first.size_bytes :], leader_epoch=0, gaps_below=5)
        assert follower.log_end_offset == 6
        assert read_all(follower) == bytes(gapped)


def test_bytes_may_be_anything(request) -> None:
    """Random bytes and random damage never crash, and never append what is not sound."""
    random = Random(7)
    whole = bytes(leader_bytes(0, 1, 1, 2, 2, 3))
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        cut = random.randrange(len(data) + 1)
        run = check_run(
            memoryview(data)[:cut], end_offset=0, latest_epoch=-1, leader_epoch=3, gaps_below=0
        )
        assert 0 <= run.size_bytes <= cut
        assert len(headers(bytes(data[: run.size_bytes]))) == run.batches
        run.release()


def test_positions_outside_the_run_are_refused() -> None:
    data = leader_bytes(0, 0)
    run = check_run(data, end_offset=0, latest_epoch=-1, leader_epoch=0, gaps_below=0)
    for position in (-1, len(data), len(data) - 60, 1 << 40):
        with pytest.raises((ValueError, CorruptMessage)):
            run.header(position)
    run.release()
    with pytest.raises(ValueError):
        run.header(0)


def test_a_stalled_disk_gets_a_copy_through_its_thread() -> None:
    leader, follower = new_log(), new_log()
    for number in range(6):
        put(leader, b"x" * 100, producer=(5, 0, number), epoch=number // 2)
    data = bytearray(read_all(leader))
    sent = bytes(data)
    follower.log_dir.writer.is_threaded = True
    follower.append_replica(memoryview(data), leader_epoch=9, gaps_below=0)
    assert follower.has_staged
    assert (follower.written_end_offset, follower.log_end_offset) == (0, 6)
    data[:] = bytes(len(data))  # the receive buffer is used again
    assert follower.log_dir.writer.run_round()
    assert not follower.has_staged
    assert read_all(follower) == sent
    assert follower.epochs.entries() == leader.epochs.entries()
    assert producers_of(follower) == producers_of(leader)
    assert not follower.producers._staged


def test_a_failing_disk_takes_the_log_offline_at_what_was_written() -> None:
    disk = MemoryDisk()
    follower = new_log(disk=disk)
    data = leader_bytes(0, 0)
    half = headers(bytes(data))[1].position
    follower.append_replica(memoryview(data)[:half], leader_epoch=0, gaps_below=0)
    original = type(follower.log_dir.writer).write

    def failing(*_args: object) -> None:
        raise OSError(5, "broken")

    type(follower.log_dir.writer).write = failing  # type: ignore[method-assign]
    try:
        with pytest.raises(KafkaStorageError):
            follower.append_replica(memoryview(data)[half:], leader_epoch=0, gaps_below=0)
    finally:
        type(follower.log_dir.writer).write = original  # type: ignore[method-assign]
    assert follower.failed
    assert follower.log_end_offset == 2
    with pytest.raises(KafkaStorageError):
        follower.append_replica(memoryview(data)[half:], leader_epoch=0, gaps_below=0)


def test_with_flush_policy_commit_only_what_is_synced_is_durable() -> None:
    follower = new_log(replace(Config(), flush_policy="commit"))
    follower.append_replica(memoryview(leader_bytes(0, 0)), leader_epoch=0, gaps_below=0)
    assert (follower.log_end_offset, follower.durable_end_offset) == (4, 0)
    follower.log_dir.writer.run_round()
    assert follower.durable_end_offset == 4
