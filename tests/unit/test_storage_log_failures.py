"""A disk that fails: its directory goes offline, nothing unwritten is promised, others go on."""

from __future__ import annotations

import errno
import uuid
from random import Random

import pytest

from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    append,
    batch,
    headers,
    open_dirs,
    put,
    read_all,
)
from trioq import logs
from trioq.clock import ManualClock
from trioq.errors import KafkaStorageError, RequestTimedOut
from trioq.storage.identity import encode_partition_metadata
from trioq.storage.log_dir import BACKLOG_PATIENCE_S, DiskBacklog
from trioq.storage.log_writer import (
    QUICK_WRITES_TO_RETURN,
    RECENT_WRITES,
    SLOW_OF_RECENT,
    SLOW_WRITE_S,
    STALLED_WRITE_S,
)
from trioq.storage.memory_disk import MemoryDisk, PowerCut
from trioq.types import TopicPartition


@pytest.fixture
def disk():
    return MemoryDisk()


def open_log(disk, **options):
    dirs = open_dirs(disk)
    return dirs, dirs.log(TP, TOPIC_ID, Config(**options))


@pytest.mark.parametrize("error_number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_failed_or_short_write_truncates_back_and_fails_all_that_was_queued(disk, error_number):
    """SAFETY rule 5."""
    dirs, log = open_log(disk)
    put(log, b"kept", producer=(1, 0, 0))
    told = []
    log.on_progress = lambda one: told.append((one.failed, one.log_end_offset))
    disk.inject("pwritev", error_number, path_contains=".log", written_bytes=30)
    append(log, batch(b"lost", producer=(1, 0, 1)))
    append(log, batch(b"lost too", producer=(1, 0, 2)))
    with logs.captured() as lines:
        assert dirs.end_pass()
    assert told == [(True, 1)]
    assert (log.log_end_offset, log.written_end_offset) == (1, 1)
    assert not log.is_borrowing
    assert disk.file_size("/data/orders-0/00000000000000000000.log") == len(batch(b"kept"))
    assert [line["event"] for line in lines] == ["log_dir_offline"]
    for refused in (
        lambda: append(log, batch(b"more")),
        lambda: log.read(0, 100, end_offset=1, min_one_batch=True),
        lambda: log.truncate_to(0),
        lambda: dirs.log(TopicPartition("other", 0), TOPIC_ID, Config()),
    ):
        with pytest.raises(KafkaStorageError):
            refused()
    dirs.close()
    disk.kill()
    dirs, log = open_log(disk)
    assert not dirs.dirs[0].was_clean
    assert [header.base_offset for header in headers(read_all(log))] == [0]
    assert append(log, batch(b"again", producer=(1, 0, 1))).base_offset == 1


def reopened_with_unreadable_producers(disk):
    """A log that was closed in order, whose producers nobody has asked for; they cannot be read."""
    dirs, log = open_log(disk)
    put(log, b"x" * 400, producer=(1, 0, 0))
    dirs.close()
    dirs, log = open_log(disk, segment_bytes=600)
    disk.inject("read_file", errno.EIO, path_contains=".snapshot")
    return dirs, log


def test_producers_that_cannot_be_read_when_a_segment_is_full_take_the_directory_offline(disk):
    dirs, log = reopened_with_unreadable_producers(disk)
    append(log, batch(b"y" * 400))
    assert dirs.end_pass()
    assert log.failed
    assert (log.log_end_offset, log.is_borrowing) == (1, False)


def test_producers_that_cannot_be_read_at_the_end_take_the_directory_offline(disk):
    dirs, log = reopened_with_unreadable_producers(disk)
    put(log, b"y")
    dirs.close()
    assert not open_dirs(disk).dirs[0].was_clean


def test_failed_sync_is_never_retried(disk):
    """SAFETY rule 2."""
    dirs, log = open_log(disk, flush_policy="commit")
    fault = disk.inject("fdatasync", errno.EIO, times=1)
    put(log, b"x")
    assert (log.written_end_offset, log.durable_end_offset) == (1, 0)
    assert log.log_dir.writer.run_round()
    assert log.failed
    assert log.durable_end_offset == 0
    assert not log.log_dir.writer.run_round()
    dirs.close()
    assert fault.hits == 1
    assert not disk.exists("/data/.kafka_cleanshutdown")


def test_other_directories_go_on(disk):
    dirs = open_dirs(disk, ("/a", "/b"))
    logs_of = {}
    for number in range(4):
        topic_partition = TopicPartition("orders", number)
        logs_of[number] = dirs.log(topic_partition, TOPIC_ID, Config())
        put(logs_of[number], b"x")
    assert [len(one.logs) for one in dirs.dirs] == [2, 2]
    disk.inject("pwritev", errno.EIO, path_contains="/a/")
    for one in logs_of.values():
        append(one, batch(b"y"))
    dirs.end_pass()
    assert [one.failed for one in logs_of.values()] == [True, False, True, False]
    assert logs_of[1].written_end_offset == 2
    assert dirs.log(TopicPartition("new", 0), TOPIC_ID, Config()).log_dir.path == "/b"
    with pytest.raises(KafkaStorageError):
        put(dirs.log(TopicPartition("orders", 0), TOPIC_ID, Config()), b"z")
    disk.heal()
    dirs.close()
    assert not disk.exists("/a/.kafka_cleanshutdown")
    assert disk.exists("/b/.kafka_cleanshutdown")


def test_failed_read_takes_the_directory_offline(disk):
    dirs, log = open_log(disk)
    put(log, b"x")
    dirs.close()
    disk.kill()
    _, log = open_log(disk)
    disk.inject("open", errno.EIO, path_contains=".log")
    with pytest.raises(KafkaStorageError):
        log.read(0, 100, end_offset=1, min_one_batch=True)
    assert log.failed


def test_out_of_descriptors_closes_idle_files_and_goes_on(disk):
    dirs = open_dirs(disk)
    first = dirs.log(TP, TOPIC_ID, Config())
    put(first, b"x")
    disk.inject("open", errno.EMFILE, times=1)
    second = dirs.log(TopicPartition("orders", 1), TOPIC_ID, Config())
    put(second, b"y")
    assert not second.failed
    assert first.segments.items[0].shared is None
    assert len(headers(read_all(first))) == 1


def stall(log):
    writer = log.log_dir.writer
    writer._watch.is_stalled = writer.is_threaded = True
    return writer


def test_threaded_groups_keep_order_and_promise_nothing_before_they_are_written(disk):
    dirs, log = open_log(disk, segment_bytes=200)
    put(log, b"0")
    writer = stall(log)
    progress = []
    log.on_progress = lambda one: progress.append(one.written_end_offset)
    for number in range(1, 4):
        append(log, batch(b"%d" % number))
        assert not dirs.end_pass()
    assert (log.written_end_offset, log.log_end_offset) == (1, 4)
    assert log.is_borrowing
    while writer.run_round():
        pass
    assert progress[-1] == 4
    assert dirs.end_pass()
    assert [header.base_offset for header in headers(read_all(log))] == [0, 1, 2, 3]


def test_writes_go_to_the_thread_while_the_disk_says_that_they_are_slow(disk):
    """How long it took in the disk's own words, not on a clock that runs while others do."""
    dirs, log = open_log(disk)
    writer = log.log_dir.writer
    disk.write_seconds = SLOW_WRITE_S
    for _ in range(2 * RECENT_WRITES):
        put(log, b"quick enough")
    assert not writer.is_threaded
    disk.write_seconds = 2 * SLOW_WRITE_S
    for _ in range(SLOW_OF_RECENT):
        put(log, b"slow")
    assert writer.is_threaded
    disk.write_seconds = 0.0
    for number in range(QUICK_WRITES_TO_RETURN):
        assert writer.is_threaded, number
        append(log, batch(b"quick"))
        assert not dirs.end_pass()
        writer.run_round()
    assert not writer.is_threaded
    disk.write_seconds = 2 * STALLED_WRITE_S
    put(log, b"one that is very slow")
    assert writer.is_threaded


def test_failed_write_in_the_thread_fails_what_waits_behind_it(disk):
    _, log = open_log(disk)
    put(log, b"0")
    writer = stall(log)
    append(log, batch(b"1"))
    log.write_group()
    append(log, batch(b"2"))
    log.write_group()
    disk.inject("pwritev", errno.ENOSPC, written_bytes=7)
    writer.run_round()
    assert log.failed
    assert log.log_end_offset == 1
    assert log.log_dir.unwritten_bytes == 0
    assert disk.file_size("/data/orders-0/00000000000000000000.log") == len(batch(b"0"))


def test_full_queue_refuses_appends_until_it_is_shorter(disk):
    clock = ManualClock(NOW_MS)
    dirs = open_dirs(disk, clock=clock, max_unwritten_bytes=100)
    log = dirs.log(TP, TOPIC_ID, Config())
    writer = stall(log)
    append(log, batch(b"x" * 200))
    dirs.end_pass()
    assert dirs.is_backed_up
    calls = []
    with pytest.raises(DiskBacklog) as refused:
        append(log, batch(b"y"))
    refused.value.log_dir.call_when_room(lambda: calls.append("room"))
    clock.advance(BACKLOG_PATIENCE_S)
    with pytest.raises(RequestTimedOut):
        append(log, batch(b"y"))
    assert calls == []
    writer.run_round()
    assert calls == ["room"]
    assert not dirs.is_backed_up
    assert append(log, batch(b"y")).base_offset == 1


def test_truncation_while_a_group_is_in_the_thread_voids_it(disk):
    _, log = open_log(disk)
    put(log, b"0")
    put(log, b"1")
    writer = stall(log)
    append(log, batch(b"void"))
    log.write_group()
    one = writer.take_round()
    log.truncate_to(1)
    one.execute()
    writer.complete(one)
    assert (log.log_end_offset, log.written_end_offset) == (1, 1)
    append(log, batch(b"new"))
    log.write_group()
    writer.run_round()
    assert [header.base_offset for header in headers(read_all(log))] == [0, 1]
    assert log.log_dir.unwritten_bytes == 0


def test_sync_that_began_before_a_truncation_says_nothing_about_what_came_after(disk):
    _, log = open_log(disk, flush_policy="commit")
    put(log, b"0")
    put(log, b"1")
    writer = log.log_dir.writer
    one = writer.take_round()
    log.truncate_to(1)
    put(log, b"other")
    one.execute()
    writer.complete(one)
    assert log.synced_end_offset < 2
    writer.run_round()
    assert log.synced_end_offset == 2


def test_log_deleted_while_it_is_synced_harms_no_other(disk):
    dirs, log = open_log(disk, flush_policy="commit")
    put(log, b"0")
    other = dirs.log(TopicPartition("other", 0), uuid.UUID(int=8), log.config)
    put(other, b"0")
    writer = log.log_dir.writer
    one = writer.take_round()
    assert len(one.syncs) == 2
    dirs.delete(TP, TOPIC_ID)
    again = dirs.log(TP, uuid.UUID(int=9), other.config)
    put(again, b"new")
    one.execute()
    writer.complete(one)
    assert other.log_dir.error is None
    assert other.synced_end_offset == 1
    while writer.run_round():
        pass
    assert again.synced_end_offset == 1
    kept = disk.read_file("/data/orders-0/partition.metadata")
    assert kept == encode_partition_metadata(uuid.UUID(int=9))


def test_directory_that_vanishes_under_a_live_log_takes_the_log_dir_offline(disk):
    _, log = open_log(disk, flush_policy="commit")
    put(log, b"0")
    writer = log.log_dir.writer
    one = writer.take_round()
    disk.rename("/data/orders-0", "/data/taken-away")
    one.execute()
    writer.complete(one)
    assert isinstance(log.log_dir.error, FileNotFoundError)
    assert log.failed


@pytest.mark.parametrize(
    "name", ["roll.sealed", "close.checkpointed", "truncate.cut", "cut.copied"]
)
def test_power_cut_between_the_steps(disk, name):

    dirs, log = open_log(disk, flush_policy="commit", segment_bytes=400)
    for number in range(4):
        put(log, b"%d" % number)
    while log.log_dir.writer.run_round():
        pass
    region = log.read(0, 1 << 20, end_offset=4, min_one_batch=True)
    disk.arm(name)
    with pytest.raises(PowerCut):
        if name.startswith(("truncate", "cut")):
            log.truncate_to(2)
        else:
            log.roll()
            dirs.close()
    region.file.release()
    disk.crash(Random(3))
    dirs, log = open_log(disk, flush_policy="commit", segment_bytes=400)
    expected = 2 if name == "truncate.cut" else 4
    assert [header.base_offset for header in headers(read_all(log))] == list(range(expected))
    assert log.synced_end_offset == expected
