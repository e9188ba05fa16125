"""Segments and their indexes: rolling, Kafka's formats, damage, bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
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
from trioq.clock import ManualClock
from trioq.storage.memory_disk import MemoryDisk
from trioq.storage.offset_index import OffsetIndex
from trioq.storage.segment import Segment
from trioq.storage.time_index import TimeIndex
from trioq.types import TopicPartition

SIZE = len(batch(b"x" * 50))


def bases(log):
    return [segment.base_offset for segment in log.segments.items]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5000)), max_size=50), st.data())
def test_offset_index_finds_the_greatest_entry_at_or_below(steps, data):
    index = OffsetIndex()
    entries = []
    offset = position = 0
    for offset_step, position_step in steps:
        offset += offset_step
        position += position_step
        index.append(offset, position)
        entries.append((offset, position))
    target = data.draw(st.integers(0, offset + 2))
    below = [entry for entry in entries if entry[0] <= target]
    assert index.floor(target) == (below[-1] if below else (-1, -1))
    place = data.draw(st.integers(0, position + 2))
    assert index.floor_position(place) == max(
        (entry[1] for entry in entries if entry[1] <= place), default=0
    )
    assert OffsetIndex(bytes(index.data) + b"torn").entries == len(entries)
    index.truncate(target)
    assert index.entries == len([entry for entry in entries if entry[0] < target])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1000)), max_size=30), st.data())
def test_time_index_holds_ascending_timestamps_only(batches, data):
    index = TimeIndex()
    for number, (timestamp, _) in enumerate(batches):
        index.maybe_append(timestamp, number)
    stamps = [index.entry(number)[0] for number in range(index.entries)]
    assert stamps == sorted(set(stamps))
    assert index.last()[0] == max((timestamp for timestamp, _ in batches), default=-1)
    assert index.is_ordered()
    target = data.draw(st.integers(0, 101))
    found = index.floor(target)
    assert found[0] == max((one for one in stamps if one <= target), default=-1)


def test_roll_by_size_time_and_full_index():
    log = new_log(Config(segment_bytes=3 * SIZE))
    for _ in range(7):
        put(log, b"x" * 50)
    assert bases(log) == [0, 3, 6]
    log = new_log(Config(segment_ms=1000))
    for timestamp in (0, 1000, 1001, 2001, 2002):
        put(log, b"x", timestamp=NOW_MS + timestamp)
    assert bases(log) == [0, 2, 4]
    log = new_log(Config(segment_index_bytes=16, index_interval_bytes=0))
    for _ in range(8):
        put(log, b"x")
    assert bases(log) == [0, 3, 6]


def test_group_is_split_between_segments():
    log = new_log(Config(segment_bytes=3 * SIZE))
    for _ in range(8):
        append(log, batch(b"x" * 50))
    assert log.write_group()
    assert bases(log) == [0, 3, 6]
    assert [header.base_offset for header in headers(read_all(log))] == list(range(8))


def test_jitter_shortens_the_age_limit():
    log = new_log(Config(segment_ms=1000, segment_jitter_ms=500))
    put(log, b"x")
    assert 0 <= log.segments.items[0].roll_jitter_ms <= 500


def test_offset_delta_that_an_index_cannot_hold_rolls():
    segment = Segment("/d", 0)
    segment.begin(0, 0)
    segment.add(100, 0, NOW_MS, 4096)
    assert not segment.is_full(100, 2**31 - 1, 1 << 30, 10 << 20)
    assert segment.is_full(100, 2**31, 1 << 30, 10 << 20)


def test_index_files_have_kafkas_format():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config(index_interval_bytes=2 * SIZE))
    for number in range(8):
        put(log, b"x" * 50, timestamp=NOW_MS + number)
    dirs.close()
    path = "/data/orders-0/00000000000000000000"
    assert list(struct.iter_unpack(">ii", disk.read_file(f"{path}.index"))) == [
        (3, 3 * SIZE),
        (6, 6 * SIZE),
    ]
    assert list(struct.iter_unpack(">qi", disk.read_file(f"{path}.timeindex"))) == [
        (NOW_MS + 3, 3),
        (NOW_MS + 6, 6),
        (NOW_MS + 7, 7),
    ]


def damage(data, how):
    if how == "empty":
        return b""
    if how == "zeros":
        return bytes(len(data))
    if how == "odd":
        return data[:-3]
    if how == "short":
        return data[: len(data) // 24 * 12]
    return b"\x00\x00\x00\x01" + data[4:]


@pytest.mark.parametrize("how", ["missing", "empty", "zeros", "odd", "wrong", "short"])
@pytest.mark.parametrize("suffix", ["index", "timeindex"])
def test_damaged_index_is_rebuilt(suffix, how):
    disk = MemoryDisk()
    config = Config(segment_bytes=20 * SIZE, index_interval_bytes=SIZE)
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, config)
    for number in range(45):
        put(log, b"x" * 50, timestamp=NOW_MS + number)
    dirs.close()
    for base in (0, 20, 40):
        path = f"/data/orders-0/{base:020d}.{suffix}"
        if how == "missing":
            disk.unlink(path)
        else:
            disk.write_file(path, damage(disk.read_file(path), how))
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, config)
    for offset in range(45):
        region = log.read(offset, 1, end_offset=45, min_one_batch=True)
        assert [header.base_offset for header in headers(region_bytes(region))] == [offset]
    if how != "short":  # a time index cut at an entry is as sound as a shorter log's
        for offset in range(45):
            assert log.offset_for_timestamp(NOW_MS + offset, 45)[:2] == (offset, NOW_MS + offset)
    put(log, b"more")
    assert log.log_end_offset == 46


def test_open_files_are_bounded_and_lent_ones_stay():
    dirs = open_dirs(MemoryDisk(), max_open_files=3)
    files = dirs.dirs[0].files
    all_logs = [dirs.log(TopicPartition("orders", n), TOPIC_ID, Config()) for n in range(10)]
    for log in all_logs:
        put(log, b"x")
    assert len(files) == 3
    regions = [log.read(0, 100, end_offset=1, min_one_batch=True) for log in all_logs]
    for log in all_logs:
        put(log, b"y")
    for region in regions:
        assert len(headers(region_bytes(region))) == 1
    for log in all_logs[:4]:
        put(log, b"z")
    assert len(files) == 3


def test_memory_of_sealed_indexes_is_bounded():
    dirs = open_dirs(MemoryDisk())
    indexes = dirs.dirs[0].indexes
    indexes.max_bytes = 200
    log = dirs.log(TP, TOPIC_ID, Config(segment_bytes=5 * SIZE, index_interval_bytes=0))
    for _ in range(60):
        put(log, b"x" * 50)
    for offset in range(60):
        region_bytes(log.read(offset, 1, end_offset=60, min_one_batch=True))
    loaded = [segment for segment in log.segments.items if segment.offsets is not None]
    assert len(loaded) <= 5  # four in the bound, and the active one


def test_removed_segments_are_renamed_then_unlinked_and_readers_go_on():
    disk = MemoryDisk()
    clock = ManualClock(NOW_MS)
    dirs = open_dirs(disk, clock=clock)
    log = dirs.log(TP, TOPIC_ID, Config(segment_bytes=2 * SIZE, file_delete_delay_ms=1000))
    for _ in range(7):
        put(log, b"x" * 50)
    region = log.read(0, 1 << 20, end_offset=7, min_one_batch=True)
    log.set_high_watermark(7)
    assert log.delete_records(5) == 5
    assert bases(log) == [4, 6]
    names = disk.listdir("/data/orders-0")
    assert "00000000000000000000.log.deleted" in names
    assert len(headers(region_bytes(region))) == 2
    assert dirs.dirs[0].take_due_deletions(NOW_MS + 999) == []
    due = dirs.dirs[0].take_due_deletions(NOW_MS + 1000)
    assert {one.path.rpartition("/")[2] for one in due} >= {
        "00000000000000000000.log.deleted",
        "00000000000000000002.timeindex.deleted",
    }
    dirs.close()
    disk.kill()
    dirs = open_dirs(disk)
    assert dirs.log(TP, TOPIC_ID, Config()).log_start_offset == 5
    assert not [name for name in disk.listdir("/data/orders-0") if name.endswith(".deleted")]


def test_retention_by_size_and_time_stays_below_the_high_watermark():
    log = new_log(Config(segment_bytes=2 * SIZE, retention_bytes=3 * SIZE))
    for _ in range(9):
        put(log, b"x" * 50)
    assert log.delete_retired_segments(NOW_MS) == 0
    log.set_high_watermark(5)
    assert log.delete_retired_segments(NOW_MS) == 2
    log.set_high_watermark(9)
    assert log.delete_retired_segments(NOW_MS) == 1
    assert (log.log_start_offset, log.size_bytes) == (6, 3 * SIZE)

    log = new_log(Config(segment_bytes=2 * SIZE, retention_ms=1000))
    for number in range(5):
        put(log, b"x" * 50, timestamp=NOW_MS + 100 * number)
    log.set_high_watermark(5)
    assert log.delete_retired_segments(NOW_MS + 1101) == 1
    assert log.log_start_offset == 2
    assert log.delete_retired_segments(NOW_MS + 5000) == 2
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (5, 5, 0)
    assert log.delete_retired_segments(NOW_MS + 50_000) == 0
    put(log, b"y")
    assert read_all(log)

    log = new_log(Config(cleanup_policy=("compact",), segment_bytes=2 * SIZE, retention_ms=1))
    for _ in range(5):
        put(log, b"x" * 50, timestamp=0)
    log.set_high_watermark(5)
    assert log.delete_retired_segments(NOW_MS) == 0
