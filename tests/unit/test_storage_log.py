"""Log over a MemoryDisk: append, write, read, restart."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

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
    region_bytes,
)
from trioq.errors import (
    DuplicateSequenceNumber,
    MessageTooLarge,
    OffsetOutOfRange,
    OutOfOrderSequenceNumber,
)
from trioq.storage import log_read
from trioq.storage.batch_scan import BatchScan
from trioq.storage.disk import OsDisk
from trioq.storage.log import Log
from trioq.storage.log_append import AppendLog
from trioq.storage.memory_disk import MemoryDisk, MemoryFile
from trioq.storage.offset_index import OffsetIndex
from trioq.storage.segments import BULK_GROUPS


def test_staged_batches_have_offsets_but_are_not_written():
    log = new_log()
    first = append(log, batch(b"a", b"b"))
    second = append(log, batch(b"c"))
    assert (first.base_offset, first.last_offset, first.duplicate) == (0, 1, False)
    assert (second.base_offset, second.last_offset) == (2, 2)
    assert (log.log_end_offset, log.written_end_offset) == (3, 0)
    assert log.is_borrowing
    assert log.read(0, 100, end_offset=3, min_one_batch=True) is None
    assert log.write_group()
    assert log.written_end_offset == log.durable_end_offset == 3
    assert not log.is_borrowing
    assert [header.base_offset for header in headers(read_all(log))] == [0, 2]


def test_written_bytes_are_the_batch_with_offset_and_epoch_stamped():
    log = new_log()
    put(log, b"a")
    data = batch(b"hello")
    append(log, data, epoch=3)
    log.write_group()
    stored = read_all(log, 1)
    assert stored == bytes(data)
    assert headers(stored)[0].leader_epoch == 3
    assert headers(stored)[0].base_offset == 1


def test_never_written_log_has_no_directory():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config())
    assert "orders-0" not in disk.listdir("/data")
    assert log.size_bytes == 0
    dirs.close()
    assert "orders-0" not in disk.listdir("/data")


def test_reads_start_at_the_batch_that_holds_the_offset_and_end_at_a_batch_edge():
    log = new_log()
    for number in range(10):
        put(log, b"x" * 10, b"y" * number)
    one = len(batch(b"x" * 10, b""))
    region = log.read(3, one + 20, end_offset=20, min_one_batch=False)
    assert [header.base_offset for header in headers(region_bytes(region))] == [2]
    assert log.read(3, one - 1, end_offset=20, min_one_batch=False) is None
    region = log.read(3, 1, end_offset=20, min_one_batch=True)
    assert [header.base_offset for header in headers(region_bytes(region))] == [2]
    region = log.read(0, 1 << 20, end_offset=7, min_one_batch=False)
    assert [header.base_offset for header in headers(region_bytes(region))] == [0, 2, 4]


def test_reads_outside_the_log_are_refused():
    log = new_log()
    put(log, b"a", b"b")
    assert log.read(2, 100, end_offset=2, min_one_batch=True) is None
    with pytest.raises(OffsetOutOfRange):
        log.read(3, 100, end_offset=3, min_one_batch=True)
    log.set_high_watermark(2)
    assert log.delete_records(1) == 1
    with pytest.raises(OffsetOutOfRange):
        log.read(0, 100, end_offset=2, min_one_batch=True)


def test_a_batch_larger_than_a_segment_is_refused():
    log = new_log(Config(segment_bytes=500))
    with pytest.raises(MessageTooLarge):
        append(log, batch(b"x" * 600))
    assert log.log_end_offset == 0


def test_duplicates_and_gaps_are_judged_with_what_is_staged():
    log = new_log()
    append(log, batch(b"a", b"b", producer=(9, 0, 0)))
    again = append(log, batch(b"a", b"b", producer=(9, 0, 0)))
    assert (again.base_offset, again.last_offset, again.duplicate) == (0, 1, True)
    with pytest.raises(OutOfOrderSequenceNumber):
        append(log, batch(b"d", producer=(9, 0, 3)))
    assert append(log, batch(b"c", producer=(9, 0, 2))).base_offset == 2
    log.write_group()
    assert [header.base_offset for header in headers(read_all(log))] == [0, 2]


@pytest.mark.parametrize("clean", [True, False])
def test_everything_is_there_after_a_restart(clean: bool):
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    config = Config(segment_bytes=2000)
    log = dirs.log(TP, TOPIC_ID, config)
    for number in range(60):
        put(log, b"%d" % number * 5, b"x", producer=(5, 0, 2 * number), epoch=number // 20)
    log.set_high_watermark(120)
    before = read_all(log)
    if clean:
        dirs.close()
    disk.kill()
    dirs = open_dirs(disk)
    assert dirs.recover() == (0 if clean else 1)
    log = dirs.log(TP, TOPIC_ID, config)
    assert (log.log_start_offset, log.log_end_offset, log.synced_end_offset) == (0, 120, 120)
    assert read_all(log) == before
    assert log.epoch_end_offset(1) == (1, 80)
    assert append(log, batch(b"x", b"y", producer=(5, 0, 118))).duplicate
    with pytest.raises(OutOfOrderSequenceNumber):
        append(log, batch(b"x", b"y", producer=(5, 0, 122)))
    put(log, b"x", b"y", producer=(5, 0, 120))
    assert log.log_end_offset == 122
    if clean:
        assert log.high_watermark == 120


def test_offsets_by_time():
    log = new_log(Config(segment_bytes=1500))
    for number in range(50):
        put(log, b"a" * 20, b"b" * 20, timestamp=NOW_MS + 10 * number)
    assert log.offset_for_timestamp(0, 100)[:2] == (0, NOW_MS)
    for number in range(50):
        target = NOW_MS + 10 * number + 1
        assert log.offset_for_timestamp(target, 100)[:2] == (2 * number + 1, target)
    assert log.offset_for_timestamp(NOW_MS + 1000, 100) is None
    assert log.offset_for_timestamp(NOW_MS + 100, 20) is None
    assert log.max_timestamp(100)[:2] == (99, NOW_MS + 491)
    assert log.max_timestamp(50)[:2] == (49, NOW_MS + 241)


@pytest.mark.parametrize("restart", ["clean", "crash", "truncate"])
def test_a_whole_window_of_retries_is_known_after_a_restart_and_a_roll(restart: str):
    disk = MemoryDisk()
    config = Config(segment_bytes=1000)
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, config)
    for number in range(30):
        put(log, b"x" * 50, b"y", producer=(5, 0, 2 * number))
        put(log, b"z" * 50, producer=(6, 0, number))
    log.roll()
    if restart == "truncate":
        put(log, b"cut")
        log.truncate_to(90)
    else:
        if restart == "clean":
            dirs.close()
        else:
            log.flush()
            dirs.checkpoint()
        disk.kill()
        dirs = open_dirs(disk)
        dirs.recover()
        log = dirs.log(TP, TOPIC_ID, config)
    for number in range(25, 30):
        again = append(log, batch(b"x" * 50, b"y", producer=(5, 0, 2 * number)))
        assert (again.duplicate, again.base_offset) == (True, 3 * number)
    with pytest.raises(DuplicateSequenceNumber):
        append(log, batch(b"x" * 50, b"y", producer=(5, 0, 48)))
    assert append(log, batch(b"new", producer=(6, 0, 30))).base_offset == 90


def test_an_assigned_epoch_counts_before_its_first_batch_and_is_written_with_it():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config())
    assert log.latest_epoch == -1
    assert log.epoch_end_offset(0) == (-1, -1)
    log.assign_epoch(2, 0)
    assert (log.latest_epoch, log.epoch_start_offset(2)) == (2, 0)
    assert log.epoch_end_offset(2) == (2, 0)
    assert log.epoch_end_offset(1) == (1, 0)
    put(log, b"a", b"b", epoch=2)
    log.assign_epoch(5, log.log_end_offset)
    log.assign_epoch(4, log.log_end_offset)
    assert (log.latest_epoch, log.epoch_start_offset(5), log.epoch_start_offset(3)) == (5, 2, None)
    assert [log.epoch_end_offset(epoch) for epoch in (1, 2, 3, 5, 6, -1)] == [
        (1, 0),
        (2, 2),
        (2, 2),
        (5, 2),
        (-1, -1),
        (-1, -1),
    ]
    dirs.close()
    log = open_dirs(disk).log(TP, TOPIC_ID, Config())
    assert log.latest_epoch == 2
    assert log.epoch_end_offset(2) == (2, 2)
    log.assign_epoch(6, 2)
    put(log, b"c", epoch=6)
    assert [log.epoch_end_offset(epoch) for epoch in (2, 6)] == [(2, 2), (6, 3)]


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_lost_epochs_are_read_from_the_batches(content: bytes | None):
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config(segment_bytes=200))
    for epoch in (1, 1, 4, 4, 7):
        put(log, b"x", epoch=epoch)
    dirs.close()
    path = "/data/orders-0/leader-epoch-checkpoint"
    if content is None:
        disk.unlink(path)
    else:
        disk.write_file(path, content)
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config())
    assert log.epochs.entries() == [(1, 0), (4, 2), (7, 4)]
    dirs.close()
    assert disk.read_file(path) == b"0\n3\n1 0\n4 2\n7 4\n"


def test_restart_at_begins_again_empty():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config(segment_bytes=200, flush_policy="commit"))
    for _ in range(5):
        put(log, b"x")
    dirs.checkpoint()
    log.restart_at(50)
    assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (50, 50, 50)
    put(log, b"y")
    log.flush()
    dirs.checkpoint()
    disk.kill()
    dirs = open_dirs(disk)
    dirs.recover()
    log = dirs.log(TP, TOPIC_ID, Config())
    assert (log.log_start_offset, log.log_end_offset) == (50, 51)
    assert [header.base_offset for header in headers(read_all(log))] == [50]


def test_commit_promises_what_is_synced_and_follows_a_changed_policy():
    log = new_log(Config(flush_policy="commit"))
    put(log, b"a")
    assert (log.written_end_offset, log.durable_end_offset) == (1, 0)
    with pytest.raises(AssertionError, match="high watermark"):
        log.set_high_watermark(1)
    log.log_dir.writer.run_round()
    assert log.durable_end_offset == 1
    log.apply_config(Config(flush_policy="os"))
    put(log, b"b")
    assert log.durable_end_offset == 2
    log.set_high_watermark(2)
    log.apply_config(Config(flush_policy="commit"))
    assert log.durable_end_offset == 1
    log.log_dir.writer.run_round()
    assert log.durable_end_offset == 2


def test_full_disk_is_judged_by_the_write_not_by_the_reservation():
    disk = MemoryDisk()
    log = new_log(Config(flush_policy="commit"), disk)
    disk.inject("preallocate", errno.ENOSPC)
    put(log, b"fits")
    assert not log.failed
    assert log.written_end_offset == 1


def test_large_writes_reserve_ahead_no_more_than_the_segment_holds(monkeypatch):
    reserved: list[tuple[int, int]] = []
    monkeypatch.setattr(
        MemoryFile,
        "preallocate",
        lambda _file, position, length: reserved.append((position, position + length)),
    )
    log = new_log(Config(segment_bytes=64 << 20))
    put(log, b"small")
    assert not reserved
    for _ in range(100):
        put(log, bytes(100_000))
        size = log.segments.items[-1].size
        end = reserved[-1][1]
        assert size <= end <= size + min(size, BULK_GROUPS * 100_100)
    assert all(end_before == start for (_, end_before), (start, _) in pairwise(reserved))
    assert len(reserved) < 30
    put(log, b"small")
    assert reserved[-1][1] == end


def test_reserved_blocks_go_back_when_a_segment_is_full(tmp_path):
    log = open_dirs(OsDisk(), (str(tmp_path),)).log(TP, TOPIC_ID, Config())
    for _ in range(3):
        put(log, bytes(300_000))
    put(log, bytes(300_000))
    full, active = log.segments.items
    allocated = Path(full.log_path).stat().st_blocks * 512
    assert full.size <= allocated < full.size + 64 * 1024
    log.close()
    assert Path(active.log_path).stat().st_blocks * 512 < active.size + 64 * 1024


@given(st.lists(st.integers(0, 30), unique=True), st.integers(-1, 31))
def test_the_entries_around_an_offset(offsets, target):
    index = OffsetIndex()
    for offset in sorted(offsets):
        index.append(offset, offset * 100)
    below = [offset * 100 for offset in sorted(offsets) if offset <= target]
    above = [offset * 100 for offset in sorted(offsets) if offset > target]
    assert index.around(target) == ((below or [0])[-1], (above or [-1])[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1, 100, 3000, 5000, 20_000]), min_size=1, max_size=25))
def test_a_cold_place_has_every_header_that_a_read_looks_at(sizes):
    log = new_log()
    for size in sizes:
        put(log, bytes(size))
    segment = log.segments.items[0]
    file = log.segments.file(segment)
    batches = list(BatchScan(file, 0, segment.size, check_crc=False))
    log._edges = None
    assert log.cold_place(0, 1000) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_read.posix, "resident", lambda *_: False)
        for target, header in batches:
            place = log.cold_place(header.base_offset, 1000)
            assert place.file is segment.shared
            start = place.ranges[0][0]
            looked_at = [at for at, _ in batches if start <= at <= target]
            assert looked_at
            for at in looked_at:
                assert any(
                    first <= at and at + 61 <= first + length for first, length in place.ranges
                )
        for offset in (-1, log.written_end_offset):
            assert log.cold_place(offset, 1000) is None


class GeneralLog(Log):
    """One that writes nothing the short way."""

    __slots__ = ()

    def _write_ordinary(self, *_):
        return False


def written(log):
    """All that writing moves."""
    return (
        [
            (one.base_offset, one.size, one.bytes_since_index, one.first_timestamp,
             one.max_timestamp, one.max_timestamp_offset, one.offsets.data, one.times.data)
            for one in log.segments.items
        ],
        (log.log_end_offset, log.written_end_offset, log.log_dir.unwritten_bytes),
        [one.base_offset for one in log._unsynced],
        log.epochs.encode(),
        {offset: (one.base_offset, size) for offset, (one, size) in log._edges._places.items()},
        read_all(log),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([1, 100, 3000, 70_000]),
                st.sampled_from([-1, 0, 0, 0, 500, 5000]),
                st.sampled_from([0, 0, 0, 1]),
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(
        [
            Config(),
            Config(segment_bytes=100_000),
            Config(segment_index_bytes=24, index_interval_bytes=100),
            Config(segment_ms=1000),
            Config(flush_policy="commit"),
        ]
    ),
)
def test_what_is_written_the_short_way_is_as_if_it_had_not_been(groups, config):
    logs = []
    for kind in (Log, GeneralLog):
        log = new_log(config)
        logs.append(log if kind is Log else GeneralLog(TP, TOPIC_ID, config, log.log_dir,
                                                       log.segments))  # fmt: skip
    epoch = 0
    for group in groups:
        for size, age_ms, raised in group:
            epoch += raised
            for log in logs:
                timestamp = -1 if age_ms < 0 else NOW_MS + age_ms
                append(log, batch(bytes(size), timestamp=timestamp), epoch=epoch)
        for log in logs:
            assert log.write_group()
        assert written(logs[0]) == written(logs[1])


def test_ordinary_groups_are_written_the_short_way(monkeypatch):
    log = new_log()
    put(log, b"the first makes the segment")
    monkeypatch.setattr(AppendLog, "_write_staged", None)
    for _ in range(3):
        append(log, batch(b"a"))
        append(log, batch(b"b", b"c"))
        assert log.write_group()
    assert log.written_end_offset == 10
    log.log_dir.writer.is_alert = True
    append(log, batch(b"a"))
    with pytest.raises(TypeError):
        log.write_group()


def test_a_short_write_that_fails_takes_the_directory_offline():
    disk = MemoryDisk()
    log = new_log(disk=disk)
    put(log, b"a")
    append(log, batch(b"b"))
    disk.inject("pwritev", errno.ENOSPC)
    assert log.write_group()
    assert log.failed
    assert log.log_end_offset == log.written_end_offset == 1
    assert log.log_dir.unwritten_bytes == 0
