"""A log over a disk that loses power, against a list of batches.

What is checked after every step: what is written is there, exactly and in order, from the log's
start on, and offsets keep their order. After a crash: a prefix of what was written, which holds
at least everything that was said to be synced (with flush.policy=commit that is everything that
was acknowledged); after a clean restart or a kill of the process: everything.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    append,
    batch,
    headers,
    open_dirs,
    read_all,
    region_bytes,
)
from trioq.clock import ManualClock
from trioq.errors import OutOfOrderSequenceNumber
from trioq.storage.memory_disk import MemoryDisk


class Batch(NamedTuple):
    base: int
    end: int
    data: bytes
    producer: tuple[int, int, int] | None
    timestamp: int
    epoch: int


class LogMachine(RuleBasedStateMachine):
    policy = "os"

    @initialize(
        segment_bytes=st.sampled_from([700, 1500, 6000]),
        interval=st.sampled_from([0, 200, 1000]),
        retention_ms=st.sampled_from([-1, 50_000]),
        retention_bytes=st.sampled_from([-1, 3000]),
    )
    def start(self, segment_bytes, interval, retention_ms, retention_bytes):
        self.config = Config(
            segment_bytes=segment_bytes,
            index_interval_bytes=interval,
            retention_ms=retention_ms,
            retention_bytes=retention_bytes,
            flush_policy=self.policy,
            flush_ms=10,
        )
        self.disk = MemoryDisk()
        self.clock = ManualClock(NOW_MS)
        self.batches: list[Batch] = []
        self.epoch = 0
        self.lent: list[tuple[object, bytes]] = []
        self.open()

    def open(self):
        self.dirs = open_dirs(self.disk, clock=self.clock)
        self.dirs.recover()
        self.log = self.dirs.log(TP, TOPIC_ID, self.config)
        self.writer = self.log.log_dir.writer

    def last_of(self, producer_id):
        own = [one for one in self.batches if one.producer and one.producer[0] == producer_id]
        return own[-1] if own else None

    def cut(self, end):
        self.batches = [one for one in self.batches if one.end <= end]

    @property
    def written(self):
        return [one for one in self.batches if one.end <= self.log.written_end_offset]

    # appending

    @rule(
        sizes=st.lists(st.integers(0, 120), min_size=1, max_size=4),
        producer_id=st.sampled_from([None, None, 1, 2]),
        skew=st.integers(-30, 30),
    )
    def append(self, sizes, producer_id, skew):
        producer = None
        if producer_id is not None:
            last = self.last_of(producer_id)
            sequence = 0 if last is None else last.producer[2] + (last.end - last.base)
            producer = (producer_id, 0, sequence)
        timestamp = self.clock.now_ms() + skew
        values = [bytes([number]) * size for number, size in enumerate(sizes)]
        data = batch(*values, timestamp=timestamp, producer=producer)
        appended = append(self.log, data, epoch=self.epoch, now_ms=self.clock.now_ms())
        assert not appended.duplicate
        expected = self.batches[-1].end if self.batches else self.log.log_end_offset - len(sizes)
        assert appended.base_offset == max(expected, self.log.log_start_offset)
        end = appended.last_offset + 1
        self.batches.append(Batch(appended.base_offset, end, data, producer, timestamp, self.epoch))

    @rule(producer_id=st.sampled_from([1, 2]))
    def repeat_the_last_batch(self, producer_id):
        last = self.last_of(producer_id)
        if last is None or last.base < self.log.log_start_offset:
            return
        appended = append(self.log, bytearray(last.data), epoch=self.epoch)
        assert appended.duplicate
        assert (appended.base_offset, appended.last_offset + 1) == (last.base, last.end)
        gap = (producer_id, 0, last.producer[2] + (last.end - last.base) + 1)
        with pytest.raises(OutOfOrderSequenceNumber):
            append(self.log, batch(b"gap", producer=gap), epoch=self.epoch)

    @rule()
    def write_group(self):
        if self.log.write_group():
            assert self.log.written_end_offset == self.log.log_end_offset
            assert not self.log.is_borrowing

    @rule()
    def run_round(self):
        self.writer.run_round()

    @rule(stalled=st.booleans())
    def disk_stalls(self, stalled):
        if not self.log.is_borrowing:
            self.writer._watch.is_stalled = self.writer.is_threaded = stalled

    @rule()
    def new_epoch(self):
        self.epoch += 1
        self.log.assign_epoch(self.epoch, self.log.log_end_offset)
        assert self.log.latest_epoch == self.epoch

    @rule(back=st.integers(0, 20))
    def raise_high_watermark(self, back):
        target = self.log.durable_end_offset - back
        if target > self.log.high_watermark:
            self.log.set_high_watermark(target)

    @precondition(lambda self: not self.log.is_borrowing)
    @rule()
    def roll(self):
        self.log.roll()

    # removing

    @rule(data=st.data())
    def truncate(self, data):
        low = self.log.log_start_offset
        offset = data.draw(st.integers(low, self.log.log_end_offset), label="truncate to")
        is_writing = self.log._writing is not None
        written = self.log.written_end_offset
        self.log.truncate_to(offset)
        end = self.log.log_end_offset
        assert end <= max(offset, low)
        if not is_writing and offset <= written and end != low:
            kept = [one for one in self.batches if one.end <= offset]
            assert end == (kept[-1].end if kept else low)
        self.cut(end)

    @rule(data=st.data())
    def delete_records(self, data):
        offset = data.draw(st.integers(0, self.log.high_watermark), label="delete below")
        start = self.log.delete_records(offset)
        assert start == max(offset, start)

    @rule(seconds=st.sampled_from([1, 60]))
    def retain(self, seconds):
        self.clock.advance(seconds)
        start = self.log.log_start_offset
        self.log.delete_retired_segments(self.clock.now_ms())
        assert start <= self.log.log_start_offset <= max(start, self.log.high_watermark)

    @rule()
    def remove_deleted_files(self):
        for deletion in self.log.log_dir.take_due_deletions(self.clock.now_ms()):
            self.disk.unlink(deletion.path)

    # reading

    @rule(data=st.data(), max_bytes=st.integers(1, 3000))
    def lend_a_region(self, data, max_bytes):
        log = self.log
        offset = data.draw(st.integers(log.log_start_offset, log.log_end_offset), label="read at")
        region = log.read(offset, max_bytes, end_offset=log.log_end_offset, min_one_batch=True)
        holding = [one for one in self.written if one.end > offset]
        if not holding:
            assert region is None
            return
        region.file.retain()
        content = region_bytes(region)
        assert content.startswith(bytes(holding[0].data))
        assert len(content) <= max(max_bytes, len(holding[0].data))
        self.lent.append((region, content))

    @rule()
    def give_regions_back(self):
        for region, content in self.lent:
            assert region_bytes(region) == content
        self.lent.clear()

    @rule(data=st.data())
    def find_by_time(self, data):
        target = NOW_MS + data.draw(st.integers(-40, 200_000), label="ms after start")
        found = self.log.offset_for_timestamp(target, self.log.written_end_offset)
        best = None
        for one in self.written:
            for offset in range(max(one.base, self.log.log_start_offset), one.end):
                timestamp = one.timestamp + offset - one.base
                if timestamp >= target and best is None:
                    best = (offset, timestamp, one.epoch)
        assert found == best

    # restarting

    @rule()
    def checkpoint(self):
        self.dirs.checkpoint()

    @rule()
    def restart_cleanly(self):
        self.lent.clear()
        before = self.log.log_start_offset, self.log.log_end_offset
        self.dirs.close()
        self.disk.kill()
        self.open()
        assert (self.log.log_start_offset, self.log.log_end_offset) == before
        assert self.log.synced_end_offset == self.log.log_end_offset

    @rule()
    def kill_the_process(self):
        self.lent.clear()
        written = self.log.written_end_offset
        self.disk.kill()
        self.open()
        assert self.log.log_end_offset == written
        self.cut(written)

    @rule(seed=st.integers(0, 1 << 16))
    def crash(self, seed):
        self.lent.clear()
        written, synced = self.log.written_end_offset, self.log.synced_end_offset
        start = self.log.log_start_offset
        self.disk.crash(Random(seed))
        self.open()
        log = self.log
        assert synced <= log.log_end_offset
        assert log.log_start_offset <= start
        edges = {0, *(one.end for one in self.batches)}
        if log.log_end_offset > written or log.log_end_offset not in edges:
            # The start was moved into the lost tail: the log begins again there.
            assert log.log_start_offset == log.log_end_offset <= start
        self.cut(log.log_end_offset)

    @invariant()
    def offsets_are_in_order(self):
        log = self.log
        assert not log.failed
        assert log.log_start_offset <= log.last_stable_offset
        assert log.last_stable_offset <= log.high_watermark <= log.log_end_offset
        assert log.synced_end_offset <= log.written_end_offset <= log.log_end_offset

    @invariant()
    def what_is_written_is_there(self):
        expected = [one for one in self.written if one.end > self.log.log_start_offset]
        found = read_all(self.log)
        assert found == b"".join(bytes(one.data) for one in expected)
        assert [header.base_offset for header in headers(found)] == [one.base for one in expected]

    @invariant()
    def epochs_are_known(self):
        for one in self.written:
            if one.base >= self.log.log_start_offset:
                assert self.log.epochs.epoch_for_offset(one.base) == one.epoch

    def teardown(self):
        if hasattr(self, "dirs"):
            self.dirs.close(clean=False)


class CommitLogMachine(LogMachine):
    policy = "commit"


class IntervalLogMachine(LogMachine):
    policy = "interval"


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLogWithPolicyOs = LogMachine.TestCase
TestLogWithPolicyOs.settings = SETTINGS
TestLogWithPolicyCommit = CommitLogMachine.TestCase
TestLogWithPolicyCommit.settings = SETTINGS
TestLogWithPolicyInterval = IntervalLogMachine.TestCase
TestLogWithPolicyInterval.settings = SETTINGS
