"""Compaction of a log over a disk that loses power at any of its steps, against all that was sent.

After every step: what is in the log was sent, at that offset, in order; the last record of every
key is there, unless it is a tombstone whose time has passed; what is missing has a later record,
and lies in what was compacted; a producer's last batch is known. Regions lent before keep their
bytes.
"""

from __future__ import annotations

import contextlib
import os
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.compaction_support import batches_of, compact_log, keyed_batch
from tests.unit.storage_support import NOW_MS, TOPIC_ID, TP, Config, append, open_dirs
from trioq.clock import ManualClock
from trioq.record.compression import Codec
from trioq.storage.compaction_plan import plan_compaction
from trioq.storage.memory_disk import MemoryDisk, PowerCut

FAULT_POINTS = [
    "compact.cleaned.begun",
    "compact.cleaned.synced",
    "compact.swap.named",
    "compact.swap.synced",
    "compact.group.retired",
    "compact.swapped",
]
RETENTION_MS = 10_000
KEYS = st.sampled_from([None, b"", b"a", b"b", b"c", b"d", b"e"])
VALUES = st.sampled_from([None, b"", b"v", b"value" * 12])


class CompactionMachine(RuleBasedStateMachine):
    @initialize(
        segment_bytes=st.sampled_from([500, 900, 3000]),
        interval=st.sampled_from([0, 150]),
        max_entries=st.sampled_from([4, 1000]),
    )
    def start(self, segment_bytes, interval, max_entries):
        self.config = Config(
            cleanup_policy=("compact",),
            segment_bytes=segment_bytes,
            index_interval_bytes=interval,
            delete_retention_ms=RETENTION_MS,
        )
        self.max_entries = max_entries
        self.disk = MemoryDisk()
        self.clock = ManualClock(NOW_MS)
        self.sent = {}  # offset -> (key, value, timestamp)
        self.batches = []  # (base, end, producer, bytes) of producers
        self.compacted_end = 0
        self.tombstones = {}  # offset -> when it was first seen by a compaction
        self.lent = []
        self.open()

    def open(self):
        self.dirs = open_dirs(self.disk, clock=self.clock)
        self.dirs.recover()
        self.log = self.dirs.log(TP, TOPIC_ID, self.config)

    def reopen(self, *, seed=None):
        """After a kill of the process, or, with a seed, a loss of power."""
        self.lent.clear()
        synced = self.log.synced_end_offset
        if seed is None:
            self.disk.kill()
        else:
            self.disk.crash(Random(seed))
        self.open()
        end = self.log.log_end_offset
        assert end >= synced
        assert self.log.cleaned_end_offset <= self.compacted_end
        self.cut(end)

    def cut(self, end):
        self.sent = {offset: one for offset, one in self.sent.items() if offset < end}
        self.batches = [one for one in self.batches if one[1] <= end]

    # appending

    @rule(
        records=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5),
        codec=st.sampled_from([Codec.NONE, Codec.NONE, Codec.ZSTD, Codec.GZIP]),
        producer_id=st.sampled_from([None, None, 1, 2]),
        skew=st.integers(-50, 50),
    )
    def append(self, records, codec, producer_id, skew):
        producer = None
        if producer_id is not None:
            own = [one for one in self.batches if one[2][0] == producer_id]
            sequence = own[-1][2][2] + own[-1][1] - own[-1][0] if own else 0
            producer = (producer_id, 0, sequence)
        timestamp = self.clock.now_ms() + skew
        data = keyed_batch(records, codec=codec, producer=producer, timestamp=timestamp)
        appended = append(self.log, data)
        assert not appended.duplicate
        assert self.log.write_group()
        for i, (key, value) in enumerate(records):
            self.sent[appended.base_offset + i] = (key, value, timestamp + i)
        if producer is not None:
            end = appended.last_offset + 1
            self.batches.append((appended.base_offset, end, producer, bytes(data)))

    @rule(producer_id=st.sampled_from([1, 2]))
    def repeat_the_last_batch(self, producer_id):
        own = [one for one in self.batches if one[2][0] == producer_id]
        if own:
            base, end, _, data = own[-1]
            appended = append(self.log, bytearray(data))
            assert (appended.duplicate, appended.base_offset) == (True, base)
            assert appended.last_offset + 1 == end

    @rule()
    def roll(self):
        self.log.roll()

    @rule()
    def roll_and_make_durable(self):
        self.log.roll()
        self.log.flush()
        self.log.set_high_watermark(self.log.written_end_offset)

    @rule()
    def sync_what_is_sealed(self):
        self.log.log_dir.writer.run_round()

    @rule(back=st.integers(0, 10))
    def raise_high_watermark(self, back):
        target = self.log.written_end_offset - back
        if target > self.log.high_watermark:
            self.log.set_high_watermark(target)

    @rule(seconds=st.sampled_from([1, 11]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(data=st.data())
    def truncate(self, data):
        low = max(self.log.high_watermark, self.compacted_end, self.log.log_start_offset)
        if low <= self.log.log_end_offset:
            self.log.truncate_to(
                data.draw(st.integers(low, self.log.log_end_offset), label="truncate to")
            )
            self.cut(self.log.log_end_offset)

    @rule(data=st.data())
    def lend_a_region(self, data):
        log = self.log
        offset = data.draw(st.integers(log.log_start_offset, log.log_end_offset), label="read at")
        region = log.read(offset, 500, end_offset=log.log_end_offset, min_one_batch=True)
        if region is not None:
            bytes_now = os.pread(region.file.fileno(), region.length, region.position)
            self.lent.append((region, bytes_now))

    @rule()
    def remove_deleted_files(self):
        for deletion in self.log.log_dir.take_due_deletions(self.clock.now_ms()):
            self.disk.unlink(deletion.path)

    # compacting

    def about_to_compact(self, seals):
        if seals:
            self.roll_and_make_durable()
        plan = plan_compaction(self.log, self.clock.now_ms())
        if plan is not None:
            self.compacted_end = max(self.compacted_end, plan.end_offset)
            for offset, (_, value, _) in self.sent.items():
                if value is None and offset < plan.end_offset:
                    self.tombstones.setdefault(offset, self.clock.now_ms())

    @rule(seals=st.booleans())
    def compact(self, seals):
        self.about_to_compact(seals)
        compact_log(self.log, now_ms=self.clock.now_ms(), max_entries=self.max_entries)
        assert plan_compaction(self.log, self.clock.now_ms()) is None

    @rule(
        point=st.sampled_from(FAULT_POINTS),
        skip=st.integers(0, 3),
        seed=st.none() | st.integers(0, 1 << 16),
        again=st.sampled_from([None, 0, 1, 5]),
    )
    def compact_and_crash(self, point, skip, seed, again):
        self.about_to_compact(True)
        self.disk.arm(point, skip=skip)
        try:
            compact_log(self.log, now_ms=self.clock.now_ms(), max_entries=self.max_entries)
        except PowerCut:
            pass
        else:
            self.disk.heal()
        self.reopen(seed=seed)
        if again is not None:
            self.reopen(seed=again)

    @rule(skip=st.integers(0, 6), operation=st.sampled_from(["pwritev", "fdatasync", "rename"]))
    def compact_on_a_disk_that_fails(self, skip, operation):
        self.about_to_compact(True)
        self.disk.inject(operation, 5, skip=skip)
        with contextlib.suppress(OSError):
            compact_log(self.log, now_ms=self.clock.now_ms(), max_entries=self.max_entries)
        self.reopen()

    # restarting

    @rule()
    def checkpoint(self):
        self.dirs.checkpoint()

    @rule()
    def restart_cleanly(self):
        before = self.log.log_end_offset, self.log.cleaned_end_offset
        self.lent.clear()
        self.dirs.close()
        self.disk.kill()
        self.open()
        assert (self.log.log_end_offset, self.log.cleaned_end_offset) == before

    @rule()
    def kill_the_process(self):
        self.reopen()

    @rule(seed=st.integers(0, 1 << 16))
    def crash(self, seed):
        self.reopen(seed=seed)

    # what holds

    @invariant()
    def nothing_is_lost(self):
        found = {}
        previous = -1
        for one in batches_of(self.log, ends_in_hole=True):
            assert one.header.base_offset > previous
            previous = one.header.last_offset
            for record in one.records:
                found[record.offset] = (record.key, record.value, record.timestamp)
        assert list(found) == sorted(found)
        last = {key: offset for offset, (key, _, _) in self.sent.items()}
        for offset, sent in self.sent.items():
            if offset in found:
                assert found[offset] == sent
                continue
            key, value, _ = sent
            assert offset < self.compacted_end
            if key is not None and last[key] == offset:
                assert value is None
                assert self.clock.now_ms() >= self.tombstones[offset] + RETENTION_MS
        assert not set(found) - set(self.sent)

    @invariant()
    def offsets_are_in_order(self):
        log = self.log
        assert not log.failed
        assert log.log_start_offset <= log.high_watermark <= log.log_end_offset
        assert log.cleaned_end_offset <= log.log_end_offset
        bases = [segment.base_offset for segment in log.segments.items]
        assert bases == sorted(set(bases))

    @invariant()
    def regions_keep_their_bytes(self):
        for region, data in self.lent:
            assert os.pread(region.file.fileno(), region.length, region.position) == data

    @precondition(lambda self: len(self.lent) > 5)
    @rule()
    def give_regions_back(self):
        for region, _ in self.lent:
            region.file.release()
        self.lent.clear()

    def teardown(self):
        if hasattr(self, "dirs"):
            self.dirs.close(clean=False)


TestCompaction = CompactionMachine.TestCase
TestCompaction.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
