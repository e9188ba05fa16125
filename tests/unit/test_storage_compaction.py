from __future__ import annotations

import dataclasses
import errno
import os

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.compaction_support import (
    HORIZON_BIT,
    batches_of,
    compact_log,
    keyed_batch,
    records_of,
    settled,
    stored,
    survivors,
)
from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    append,
    new_log,
    open_dirs,
    read_all,
    region_bytes,
)
from trioq._native import compact
from trioq._native.batch import peek
from trioq._native.crc32c import crc32c
from trioq.errors import InvalidRecord
from trioq.record.batch import read_records
from trioq.record.compression import Codec
from trioq.storage.compaction_map import CompactionVoid, UncleanableLog
from trioq.storage.compaction_plan import is_due, plan_compaction, roll_overdue
from trioq.storage.compactor import CompactionLimits, run_compactor
from trioq.storage.disk import OsDisk
from trioq.storage.memory_disk import MemoryDisk
from trioq.storage.segment import Segment
from trioq.types import TopicPartition

COMPACT = Config(cleanup_policy=("compact",), segment_bytes=600, index_interval_bytes=100)
DAY_MS = 86_400_000


def write(log, *batches, **options):
    for records in batches:
        append(log, keyed_batch(records, **options))
        assert log.write_group()


def values(log):
    return [(record.offset, record.key, record.value) for record in records_of(log)]


# what stays


def test_the_last_record_of_each_key_stays_where_it_was():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1"), (b"b", b"2")], [(b"a", b"3")], [(b"c", b"4"), (b"b", b"5")])
    settled(log)
    totals = compact_log(log)
    assert values(log) == [(2, b"a", b"3"), (3, b"c", b"4"), (4, b"b", b"5")]
    assert (totals.kept_records, totals.dropped_records, totals.passes) == (3, 2, 1)
    assert log.cleaned_end_offset == 5
    assert (log.log_start_offset, log.log_end_offset) == (0, 5)


def test_a_batch_that_loses_nothing_keeps_its_bytes():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1")], [(b"b", b"2")] * 2, [(b"c", b"3"), (b"d", b"4")])
    before = batches_of(log)
    settled(log)
    compact_log(log)
    after = batches_of(log)
    assert [after[0].data, after[2].data] == [before[0].data, before[2].data]
    assert after[1].header.base_offset == 1
    assert after[1].header.record_count == 1


def test_what_nothing_is_taken_from_is_not_written_again():
    disk = MemoryDisk()
    log = new_log(COMPACT, disk=disk)
    write(log, *[[(b"%d" % i, b"v")] for i in range(6)])
    settled(log)
    segments = tuple(log.segments.items)
    compact_log(log)
    assert tuple(log.segments.items) == segments
    assert "compact.cleaned.begun" not in disk.reached
    assert log.cleaned_end_offset == 6


def test_small_segments_become_one():
    log = new_log(COMPACT)
    for i in range(5):
        write(log, [(b"key", b"%d" % i)])
        settled(log)
    assert len(log.segments.items) == 6
    compact_log(log)
    assert [segment.base_offset for segment in log.segments.items] == [0, 5]
    assert values(log) == [(4, b"key", b"4")]


@pytest.mark.parametrize("codec", list(Codec))
def test_a_batch_is_written_anew_under_its_codec(codec):
    log = new_log(COMPACT)
    write(log, [(b"a", b"x" * 50), (b"b", b"y" * 50), (b"a", b"z" * 50)], codec=codec)
    write(log, [(b"b", b"w" * 50)], codec=codec, timestamp=NOW_MS + 10)
    settled(log)
    compact_log(log)
    first, second = batches_of(log)
    assert first.header.codec == second.header.codec == codec
    assert [(one.offset, one.key, one.timestamp) for one in first.records] == [
        (2, b"a", NOW_MS + 2)
    ]
    assert first.header.max_timestamp == NOW_MS + 2
    assert (first.header.base_offset, first.header.last_offset_delta) == (0, 2)
    assert second.records[0].value == b"w" * 50


def test_headers_and_timestamps_of_records_stay():
    from trioq.record.builder import NewRecord, build_batch

    log = new_log(COMPACT)
    records = [
        NewRecord(NOW_MS + 5, b"a", b"1", (("h", b"x"), ("n", None))),
        NewRecord(NOW_MS - 7, b"b", b"2", (("h", b"y"),)),
        NewRecord(NOW_MS, b"b", None, (("t", b"z"),)),
    ]
    append(log, build_batch(records))
    settled(log)
    compact_log(log)
    kept = records_of(log)
    assert [(one.timestamp, one.key, one.value, one.headers) for one in kept] == [
        (NOW_MS + 5, b"a", b"1", (("h", b"x"), ("n", None))),
        (NOW_MS, b"b", None, (("t", b"z"),)),
    ]


def test_records_without_a_key_go():
    log = new_log(COMPACT)
    write(log, [(None, b"1"), (b"a", b"2"), (b"", b"3"), (None, None)])
    settled(log)
    compact_log(log)
    assert values(log) == [(1, b"a", b"2"), (2, b"", b"3")]


def test_the_active_segment_is_left_alone():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1")], [(b"a", b"2")])
    settled(log)
    write(log, [(b"a", b"3")])
    log.set_high_watermark(log.log_end_offset)
    compact_log(log)
    assert values(log) == [(1, b"a", b"2"), (2, b"a", b"3")]


def test_only_what_is_synced_and_below_the_high_watermark_is_compacted():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1")], [(b"a", b"2")])
    log.roll()
    assert plan_compaction(log, NOW_MS) is None
    log.set_high_watermark(2)
    assert plan_compaction(log, NOW_MS) is None
    log.flush()
    plan = plan_compaction(log, NOW_MS)
    assert plan is not None
    assert plan.end_offset == 2


# tombstones


def test_a_tombstone_gets_a_horizon_and_goes_after_it():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1"), (b"b", b"1")], [(b"a", None)])
    settled(log)
    compact_log(log)
    assert values(log) == [(1, b"b", b"1"), (2, b"a", None)]
    with_tombstone = batches_of(log)[-1]
    assert with_tombstone.header.attributes & HORIZON_BIT
    assert with_tombstone.header.base_timestamp == NOW_MS + DAY_MS
    assert with_tombstone.records[0].timestamp == NOW_MS
    assert with_tombstone.header.max_timestamp == NOW_MS

    def compact_again(now_ms):
        write(log, [(b"c", b"%d" % now_ms)])
        settled(log)
        compact_log(log, now_ms=now_ms)

    compact_again(NOW_MS + DAY_MS - 1)
    horizons = [one.header.base_timestamp for one in batches_of(log) if one.header.attributes & 64]
    assert horizons == [NOW_MS + DAY_MS]
    assert (2, b"a", None) in values(log)
    compact_again(NOW_MS + DAY_MS)
    assert [value[1] for value in values(log)] == [b"b", b"c"]


def test_a_value_after_its_tombstone_stays():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1"), (b"a", None), (b"a", b"2")])
    settled(log)
    compact_log(log)
    assert values(log) == [(2, b"a", b"2")]
    assert not batches_of(log)[0].header.attributes & HORIZON_BIT


# batches that lose everything


def test_the_last_batch_of_a_producer_stays_as_a_header():
    log = new_log(COMPACT)
    write(log, [(b"a", b"1")] * 2, producer=(7, 3, 0))
    write(log, [(b"a", b"2")] * 2, producer=(7, 3, 2))
    write(log, [(b"a", b"3")])
    settled(log)
    compact_log(log)
    empty, last = batches_of(log)
    assert (empty.records, empty.header.record_count) == ([], 0)
    header = empty.header
    assert (header.base_offset, header.last_offset_delta) == (2, 1)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 2)
    assert header.last_sequence == 3
    assert [record.value for record in last.records] == [b"3"]


def test_a_producer_goes_on_after_its_batches_were_compacted():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, COMPACT)
    for sequence in range(10):
        write(log, [(b"key", b"%d" % sequence)], producer=(1, 0, sequence))
    settled(log)
    compact_log(log)
    for path in [name for name in disk.listdir("/data/orders-0") if name.endswith(".snapshot")]:
        disk.unlink(f"/data/orders-0/{path}")  # all there is to know is in the log
    dirs.close(clean=False)
    disk.kill()
    dirs = open_dirs(disk)
    dirs.recover()
    log = dirs.log(TP, TOPIC_ID, COMPACT)
    again = append(log, keyed_batch([(b"key", b"9")], producer=(1, 0, 9)))
    assert (again.duplicate, again.base_offset) == (True, 9)
    assert not append(log, keyed_batch([(b"key", b"10")], producer=(1, 0, 10))).duplicate


def test_the_end_of_a_segment_stays_so_that_there_is_no_gap_between_two():
    log = new_log(COMPACT)
    for i in range(30):
        write(log, [(b"same", b"%d" % i)])
    settled(log)
    compact_log(log)
    edges = [segment.base_offset for segment in log.segments.items]
    ends = {one.header.next_offset for one in batches_of(log)}
    assert set(edges[1:]) <= ends
    assert values(log) == [(29, b"same", b"29")]


# reading a log with holes


def test_reads_in_a_hole_go_to_the_next_batch():
    log = new_log(COMPACT)
    for i in range(30):
        write(log, [(b"k%d" % (i % 3), b"v%d" % i)], timestamp=NOW_MS + 100 * i)
    settled(log)
    compact_log(log)
    kept = batches_of(log)
    for offset in range(30):
        region = log.read(offset, 1, end_offset=30, min_one_batch=True)
        data = region_bytes(region)
        expected = next(one for one in kept if one.header.last_offset >= offset)
        assert data == expected.data
        found = log.offset_for_timestamp(NOW_MS + 100 * offset, 30)
        record = next((r for r in records_of(log) if r.timestamp >= NOW_MS + 100 * offset), None)
        assert (found and found[:2]) == (record and (record.offset, record.timestamp))
    assert log.max_timestamp(30)[:2] == (29, NOW_MS + 2900)
    # An end within a hole gives what lies below it.
    assert (
        region_bytes(log.read(0, 1 << 20, end_offset=20, min_one_batch=True))
        == b"".join(one.data for one in kept if one.header.next_offset <= 20)[
            : len(region_bytes(log.read(0, 1 << 20, end_offset=20, min_one_batch=True)))
        ]
    )


def test_the_greatest_timestamp_is_not_that_of_an_empty_batch():
    log = new_log(COMPACT)
    write(log, [(b"a", b"old")], timestamp=NOW_MS + 500, producer=(1, 0, 0))
    write(log, [(b"a", b"new")], timestamp=NOW_MS)
    settled(log)
    compact_log(log)
    assert batches_of(log)[0].header.record_count == 0
    assert log.max_timestamp(2)[:2] == (1, NOW_MS)
    assert log.offset_for_timestamp(NOW_MS + 1, 2) is None


def test_regions_given_before_keep_their_file():
    disk = MemoryDisk()
    log = new_log(COMPACT, disk=disk)
    write(log, [(b"a", b"1")], [(b"a", b"2")])
    region = log.read(0, 1 << 20, end_offset=2, min_one_batch=True)
    before = os.pread(region.file.fileno(), region.length, region.position)
    settled(log)
    compact_log(log)
    for deletion in log.log_dir.take_due_deletions(NOW_MS + DAY_MS):
        disk.unlink(deletion.path)
    assert region_bytes(region) == before
    assert values(log) == [(1, b"a", b"2")]


@pytest.mark.parametrize("offset", range(31))
def test_truncating_in_a_hole(offset):
    log = new_log(COMPACT)
    for i in range(30):
        write(log, [(b"k%d" % (i % 2), b"v%d" % i)])
    settled(log)
    compact_log(log)
    kept = [one.data for one in batches_of(log) if one.header.next_offset <= offset]
    log.truncate_to(offset)
    assert log.log_end_offset == offset
    assert log.cleaned_end_offset == min(30, offset)
    assert [one.data for one in batches_of(log, ends_in_hole=True)] == kept
    write(log, [(b"new", b"v")])
    assert values(log)[-1] == (offset, b"new", b"v")


# what is due


def test_a_log_is_due_when_enough_of_it_is_new():
    log = new_log(COMPACT)
    write(log, *[[(b"%d" % i, b"v" * 40)] for i in range(30)])
    settled(log)
    plan = plan_compaction(log, NOW_MS)
    assert (plan.dirty_ratio, plan.clean_bytes) == (1.0, 0)
    compact_log(log)
    assert plan_compaction(log, NOW_MS) is None
    write(log, [(b"1", b"w")])
    settled(log)
    plan = plan_compaction(log, NOW_MS)
    assert 0 < plan.dirty_ratio < 0.1
    assert not is_due(plan, 0.5)
    assert is_due(plan, 0.0)


def test_min_compaction_lag_leaves_young_segments_alone():
    config = Config(cleanup_policy=("compact",), min_compaction_lag_ms=1000)
    log = new_log(config)
    write(log, [(b"a", b"1")], timestamp=NOW_MS - 5000)
    settled(log)
    write(log, [(b"a", b"2")], timestamp=NOW_MS - 500)
    settled(log)
    assert plan_compaction(log, NOW_MS).end_offset == 1
    assert plan_compaction(log, NOW_MS + 501).end_offset == 2


def test_max_compaction_lag_forces():
    config = Config(cleanup_policy=("compact",), max_compaction_lag_ms=1000)
    log = new_log(config)
    write(log, [(b"a", b"1")])
    roll_overdue(log, NOW_MS + 1000)
    assert len(log.segments.items) == 1
    roll_overdue(log, NOW_MS + 1001)
    assert len(log.segments.items) == 2
    settled(log)
    assert not plan_compaction(log, NOW_MS + 1000).is_overdue
    plan = plan_compaction(log, NOW_MS + 1001)
    assert plan.is_overdue
    assert is_due(plan, 1.0)


# several passes, and things that go wrong


def test_little_memory_takes_several_passes():
    log = new_log(COMPACT)
    write(log, *[[(b"%d" % (i % 20), b"%d" % i)] for i in range(60)])
    settled(log)
    expected = survivors(records_of(log), 60)
    totals = compact_log(log, max_entries=7)
    assert totals.passes == 9
    assert records_of(log) == expected
    assert log.cleaned_end_offset == 60


def test_a_batch_with_more_keys_than_the_bound_gets_on():
    log = new_log(Config(cleanup_policy=("compact",), segment_bytes=2000))
    write(log, *[[(b"%d" % i, b"v") for i in range(50)]] * 3)
    settled(log)
    assert compact_log(log, max_entries=10).passes == 3
    assert [record.offset for record in records_of(log)] == list(range(100, 150))


def test_a_damaged_segment_is_left_as_it_is():
    log = new_log(COMPACT)
    write(log, *[[(b"a", b"%d" % i)] for i in range(20)])
    settled(log)
    segment = log.segments.items[1]
    file = log.log_dir.disk.open(segment.log_path)
    file.pwritev([b"\xff"], segment.size - 3)
    before = [one.log_path for one in log.segments.items]
    with pytest.raises(UncleanableLog, match="damaged at position"):
        compact_log(log)
    assert [one.log_path for one in log.segments.items] == before
    assert not any(
        name.endswith((".cleaned", ".swap")) for name in log.log_dir.disk.listdir("/data/orders-0")
    )


def test_records_that_cannot_be_read_stay():
    log = new_log(COMPACT)
    good = keyed_batch([(b"a", b"1"), (b"b", b"2")], codec=Codec.ZSTD)
    from trioq._native.batch import seal

    bad = bytearray(good[:61]) + b"not zstd at all"
    seal(bad)
    append(log, bad)
    write(log, [(b"a", b"3")])
    settled(log)
    totals = compact_log(log)
    assert totals.unreadable_batches == 1
    kept = region_bytes(log.read(0, 1, end_offset=3, min_one_batch=True))
    assert kept[61:] == b"not zstd at all"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["pwritev", "fdatasync", "write_file"])
def test_an_error_of_the_disk_leaves_the_log_as_it_was(operation, number):
    disk = MemoryDisk()
    log = new_log(COMPACT, disk=disk)
    write(log, *[[(b"a", b"%d" % i)] for i in range(20)])
    settled(log)
    before = read_all(log)
    disk.inject(operation, number, path_contains=".cleaned")
    with pytest.raises(OSError, match=os.strerror(number)):
        compact_log(log)
    assert read_all(log) == before
    disk.heal()
    compact_log(log)
    assert values(log) == [(19, b"a", b"19")]


def test_a_log_that_is_cut_meanwhile_is_not_compacted():
    log = new_log(COMPACT)
    write(log, *[[(b"a", b"%d" % i)] for i in range(20)])
    settled(log)
    with pytest.raises(CompactionVoid):
        compact_log(log, pace=lambda _: log.truncate_to(10))
    assert [value[0] for value in values(log)] == list(range(10))
    log.set_high_watermark(10)
    compact_log(log)
    assert [value[0] for value in values(log)][-1] == 9


def test_retention_meanwhile_makes_it_void():
    log = new_log(COMPACT)
    write(log, *[[(b"a", b"%d" % i)] for i in range(20)])
    settled(log)
    with pytest.raises(CompactionVoid):
        compact_log(log, pace=lambda _: log.delete_records(12))
    assert [value[0] for value in values(log) if value[0] >= 12] == list(range(12, 20))


# the native part


@given(
    keys=st.lists(st.binary(max_size=40), max_size=60),
    secret=st.binary(min_size=16, max_size=16),
)
def test_the_map_is_a_dict(keys, secret):
    offsets = compact.OffsetMap(len(keys), secret, 0, len(keys))
    if keys:
        data = keyed_batch([(key, b"v") for key in keys])
        assert offsets.add_batches(data, 0, len(data)) == (len(data), compact.NEED_MORE)
    expected = {key: offset for offset, key in enumerate(keys)}
    assert len(offsets) == len(expected)
    for key in [*keys, b"another"]:
        assert offsets.get(key) == expected.get(key, -1)


def test_the_map_stops_before_a_batch_that_may_not_fit():
    data = keyed_batch([(b"a", b"1"), (b"b", b"2")])
    offsets = compact.OffsetMap(1, bytes(16), 0, 10)
    assert offsets.add_batches(data, 0, len(data)) == (0, compact.FULL)
    assert len(offsets) == 0


def test_batches_out_of_place_or_damaged_are_corrupt():
    data = keyed_batch([(b"a", b"1"), (b"b", b"2")])
    for start, end in ((1, 10), (0, 1)):
        offsets = compact.OffsetMap(9, bytes(16), start, end)
        assert offsets.add_batches(data, 0, len(data)) == (0, compact.CORRUPT)
    offsets = compact.OffsetMap(9, bytes(16), 0, 10)
    data[-1] ^= 1
    assert offsets.add_batches(data, 0, len(data)) == (0, compact.CORRUPT)
    data[-1] ^= 1
    assert offsets.add_batches(data, 0, len(data) - 1) == (0, compact.NEED_MORE)
    assert offsets.add_batches(data, 0, len(data)) == (len(data), compact.NEED_MORE)
    assert offsets.add_batches(data, 0, len(data)) == (0, compact.CORRUPT)  # it came already


def test_the_indexes_are_those_of_a_rebuild():
    log = new_log(COMPACT)
    for i in range(60):
        write(log, [(b"%d" % (i % 25), b"v" * (i % 13))], timestamp=NOW_MS + (i * 7919) % 1000)
    settled(log)
    compact_log(log)
    for segment in log.segments.items[:-1]:
        size = segment.size
        rebuilt = Segment(segment.directory, segment.base_offset)
        rebuilt.rebuild(log.segments.file(segment), size, COMPACT.index_interval_bytes)
        rebuilt.seal_times()
        log.log_dir.indexes.offsets_of(segment, 100)
        assert (segment.offsets.data, segment.times.data) == (
            rebuilt.offsets.data,
            rebuilt.times.data,
        )
        assert segment.max_timestamp == rebuilt.max_timestamp
        assert segment.max_timestamp_offset == rebuilt.max_timestamp_offset
        disk = log.log_dir.disk
        offsets_path, times_path = segment.index_paths
        assert disk.read_file(offsets_path) == segment.offsets.data
        assert disk.read_file(times_path) == segment.times.data


def test_keys_are_asked_for():
    data = keyed_batch([(b"a", b"1"), (None, b"2")])
    with pytest.raises(InvalidRecord, match="cannot accept message without key: record 1"):
        compact.check_keys(data[61:], 2)
    compact.check_keys(keyed_batch([(b"", b"1")])[61:], 1)
    with pytest.raises(InvalidRecord, match="record 1 is malformed"):
        compact.check_keys(keyed_batch([(b"a", b"1")])[61:], 2)


@given(data=st.data())
def test_records_that_are_not_what_they_say_do_no_harm(data):
    """Any bytes under a right CRC: the batch stays as it is, or is taken apart rightly."""
    from trioq._native.batch import seal

    count = data.draw(st.integers(1, 6))
    batch = keyed_batch([(b"%d" % i, b"v" * i if i % 3 else None) for i in range(count)])
    for _ in range(data.draw(st.integers(0, 4))):
        position = data.draw(st.integers(61, len(batch) - 1))
        batch[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del batch[data.draw(st.integers(61, len(batch))) :]
    seal(batch)
    offsets = compact.OffsetMap(20, os.urandom(16), 0, count)
    assert offsets.add_batches(batch, 0, len(batch)) == (len(batch), compact.NEED_MORE)
    filtered = compact.BatchFilter(
        offsets,
        map_end_offset=count,
        group_end_offset=count,
        last_offsets={},
        now_ms=NOW_MS,
        delete_horizon_ms=NOW_MS + DAY_MS,
        base_offset=0,
        index_interval_bytes=0,
    )
    assert filtered.add_batches(batch, 0, len(batch)) == (len(batch), compact.NEED_MORE)
    output = filtered.take_output()
    if filtered.unreadable_batches:
        assert output == batch
        return
    header = peek(output)
    assert (header.size_bytes, header.next_offset) == (len(output), count)
    assert header.crc == crc32c(output[21:])
    try:
        read_records(batch)
    except InvalidRecord:
        return  # values and headers are taken along unseen
    (kept,) = stored(output)
    keys = [record.key for record in kept.records]
    assert len(set(keys)) == len(keys)


# the service


def test_the_service_compacts_what_is_due_and_stops_when_told(tmp_path):
    dirs = open_dirs(OsDisk(), (str(tmp_path),))
    config = dataclasses.replace(COMPACT, segment_bytes=20_000)
    log = dirs.log(TP, TOPIC_ID, config)
    other = dirs.log(TopicPartition("other", 0), TOPIC_ID, Config())
    for one in (log, other):
        write(one, *[[(b"%d" % (i % 10), b"v" * 50)] for i in range(1000)])
        settled(one)
    whole = other.size_bytes
    limits = CompactionLimits(backoff_ms=1)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_compactor, log.log_dir, limits, log.log_dir.clock)
            with trio.fail_after(30):
                while log.cleaned_end_offset < 1000:
                    write(log, [(b"new", b"v")])
                    log.read(0, 100, end_offset=1000, min_one_batch=True).file.release()
                    await trio.sleep(0)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert log.log_end_offset > 1000
    assert [one.offset for one in records_of(log) if one.offset < 1000] == list(range(990, 1000))
    assert other.size_bytes == whole
    dirs.close()


def test_a_compaction_under_way_ends_at_once_when_cancelled(tmp_path):
    dirs = open_dirs(OsDisk(), (str(tmp_path),))
    log = dirs.log(TP, TOPIC_ID, COMPACT)
    write(log, *[[(b"%d" % (i % 10), b"v" * 50)] for i in range(500)])
    settled(log)
    before = values(log)
    limits = CompactionLimits(backoff_ms=1, io_bytes_per_second=1)  # days of work

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_compactor, log.log_dir, limits, log.log_dir.clock)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert values(log) == before
    assert not list(tmp_path.rglob("*.cleaned"))
    dirs.close()


def test_a_log_deleted_while_it_is_compacted_takes_nothing_else_along(tmp_path):
    dirs = open_dirs(OsDisk(), (str(tmp_path),))
    log = dirs.log(TP, TOPIC_ID, COMPACT)
    write(log, *[[(b"%d" % (i % 10), b"v" * 50)] for i in range(500)])
    settled(log)
    log_dir = log.log_dir
    limits = CompactionLimits(backoff_ms=1, io_bytes_per_second=100_000)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_compactor, log_dir, limits, log_dir.clock)
            await trio.testing.wait_all_tasks_blocked()
            dirs.delete(TP, TOPIC_ID)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert log_dir.error is None
    dirs.close()


# against a dict

KEYS = st.sampled_from([None, b"", b"a", b"b", b"c", b"long" * 20])
VALUES = st.sampled_from([None, b"", b"1", b"2" * 30])
BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=6),
        st.sampled_from(list(Codec)),
        st.sampled_from([None, None, 1, 2]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(rounds=st.lists(BATCHES, min_size=1, max_size=4), max_entries=st.sampled_from([3, 10, 1000]))
def test_against_a_dict(rounds, max_entries):
    log = new_log(COMPACT)
    everything = []
    sequences = {1: 0, 2: 0}
    now_ms = NOW_MS
    for batches in rounds:
        for records, codec, producer_id, rolls in batches:
            producer = None
            if producer_id is not None:
                producer = (producer_id, 0, sequences[producer_id])
                sequences[producer_id] += len(records)
            base = log.log_end_offset
            append(log, keyed_batch(records, codec=codec, producer=producer, timestamp=now_ms))
            everything += [
                (base + i, key, value, now_ms + i) for i, (key, value) in enumerate(records)
            ]
            assert log.write_group()
            if rolls:
                log.roll()
            now_ms += 1000
        settled(log)
        compact_log(log, now_ms=now_ms, max_entries=max_entries)
        last = {key: offset for offset, key, _, _ in everything}
        kept = [(r.offset, r.key, r.value, r.timestamp) for r in records_of(log)]
        assert kept == [one for one in everything if one[1] is not None and last[one[1]] == one[0]]
        for producer_id, sequence in sequences.items():
            own = [one.header for one in batches_of(log) if one.header.producer_id == producer_id]
            assert (own[-1].last_sequence + 1 if own else 0) == sequence
    # Once the horizons have passed, tombstones go too.
    append(log, keyed_batch([(b"other", b"x")], timestamp=now_ms))
    settled(log)
    compact_log(log, now_ms=now_ms + 2 * DAY_MS)
    left = {record.key: record.value for record in records_of(log)}
    expected = {key: value for _, key, value, _ in everything if key is not None}
    assert left == {
        **{key: value for key, value in expected.items() if value is not None},
        b"other": b"x",
    }
