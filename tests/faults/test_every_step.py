"""The log's work cut short before each single step it makes on the disk, one after the other.

Once as the end of the process, which leaves what was written, and with flush.policy=commit also as
the loss of power, which leaves what was synced and, of the rest, any part. The real processes of
test_kill_points.py show that this disk does not lie.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    headers,
    open_dirs,
    put,
    read_all,
)
from trioq.record.batch import read_records
from trioq.storage.disk import Disk
from trioq.storage.log import Log
from trioq.storage.log_dirs import LogDirs
from trioq.storage.log_services import remove_files
from trioq.storage.memory_disk import Fault, MemoryDisk, PowerCut

READS = {"pread", "read_file", "listdir"}
PADDING = b"x" * 200
MOST_STEPS = 2_000


class SteppedDisk(MemoryDisk):
    """Counts the steps that change it, and loses power before one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.cut_before: int | None = None

    def due_fault(self, operation: str, path: str) -> Fault | None:
        if operation not in READS:
            self.steps += 1
            if self.steps == self.cut_before:
                raise PowerCut(f"{operation} {path}")
        return super().due_fault(operation, path)


class Scene:
    """A log on such a disk, and what of it was acknowledged."""

    def __init__(self, disk: Disk, config: Config) -> None:
        self.config = config
        self.disk = disk
        self.acknowledged: list[bytes] = []
        self.pending: bytes | None = None
        self.start_offset = 0
        """The log begins here at least."""
        self.latest_start_offset = 0
        """... and here at most."""
        self.is_deleted = False
        self.open()

    def open(self) -> None:
        self.dirs: LogDirs = open_dirs(self.disk)
        self.dirs.recover(threads=1)
        self.log: Log = self.dirs.log(TP, TOPIC_ID, self.config)
        self.log.set_high_watermark(self.log.log_end_offset)

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.pending = b"%d " % len(self.acknowledged) + PADDING
            put(self.log, self.pending)
            while self.log.log_dir.writer.run_round():
                pass
            assert self.log.durable_end_offset == len(self.acknowledged) + 1
            self.acknowledged.append(self.pending)
            self.pending = None
            self.log.set_high_watermark(self.log.durable_end_offset)

    def remove_due(self) -> None:
        remove_files(self.disk, self.log.log_dir.take_due_deletions(NOW_MS + 1_000_000))

    def check(self) -> None:
        """After it was opened again: what was acknowledged, from a start that is possible."""
        log = self.log
        assert self.start_offset <= log.log_start_offset <= self.latest_start_offset
        data = read_all(log)
        found = {}
        for header in headers(data):
            end = header.position + header.size_bytes
            for record in read_records(data[header.position : end]):
                assert record.offset not in found
                found[record.offset] = record.value
        possible = self.acknowledged + ([self.pending] if self.pending is not None else [])
        assert log.log_end_offset in (len(self.acknowledged), len(possible))
        expected = range(log.log_start_offset, log.log_end_offset)
        assert {offset: found.get(offset) for offset in expected} == {
            offset: possible[offset] for offset in expected
        }


def appends(scene: Scene) -> None:
    scene.append(12)


def retention(scene: Scene) -> None:
    scene.latest_start_offset = len(scene.acknowledged)
    scene.log.delete_retired_segments(NOW_MS)
    scene.remove_due()
    scene.dirs.checkpoint()


def deletes_records(scene: Scene) -> None:
    scene.latest_start_offset = 7
    scene.log.delete_records(7)
    scene.dirs.checkpoint()
    scene.start_offset = 7
    scene.remove_due()


def checkpoints(scene: Scene) -> None:
    scene.log.flush()
    scene.dirs.checkpoint()
    scene.append(2)
    scene.dirs.checkpoint()


def stops_and_starts(scene: Scene) -> None:
    scene.dirs.close()
    scene.open()
    scene.append(2)
    scene.dirs.close()


def deletes_topic(scene: Scene) -> None:
    log_dir = scene.log.log_dir
    scene.is_deleted = True
    scene.dirs.delete(TP, TOPIC_ID)
    remove_files(scene.disk, log_dir.take_due_deletions(NOW_MS + 1_000_000))
    scene.dirs.checkpoint()


WORK = [appends, retention, deletes_records, checkpoints, stops_and_starts, deletes_topic]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    ("policy", "loses_power"), [("os", False), ("commit", False), ("commit", True)]
)
def test_cut_before_each_step(
    work: Callable[[Scene], None], policy: str, loses_power: bool
) -> None:
    retained = 900 if work is retention else -1
    config = Config(
        flush_policy=policy, segment_bytes=700, retention_bytes=retained, file_delete_delay_ms=0
    )
    for step in range(1, MOST_STEPS):
        disk = SteppedDisk()
        scene = Scene(disk, config)
        scene.append(10)
        disk.cut_before = disk.steps + step
        try:
            work(scene)
            is_over = True
        except PowerCut:
            is_over = False
        disk.cut_before = None
        if loses_power:
            disk.crash(Random(step))
        else:
            disk.kill()
        scene.open()
        if scene.is_deleted:
            assert_all_or_nothing(scene)
        else:
            scene.check()
            if scene.pending is not None and scene.log.log_end_offset > len(scene.acknowledged):
                scene.acknowledged.append(scene.pending)
            scene.pending = None
            scene.append(3)
            scene.check()
        if is_over:
            assert step > 3, "there was nothing to cut"
            return
    raise AssertionError("the work does not end")


def assert_all_or_nothing(scene: Scene) -> None:
    """The metastore decides whether a topic is deleted; the log is whole, or not there."""
    if scene.log.log_end_offset:
        scene.check()
    else:
        scene.acknowledged.clear()
        scene.append(2)
        scene.check()
