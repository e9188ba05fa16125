"""A follower's work on its log cut short before each single step it makes on the disk.

As test_every_step.py, for what followers do: take batches, roll, cut a tail off by epochs, begin
again at the leader's log start. Afterwards it holds nothing that its leader does not, but for what
comes after a point that the leader's epochs show, and becomes equal byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.faults.test_every_step import MOST_STEPS, SteppedDisk
from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    headers,
    new_log,
    open_dirs,
    put,
    read_all,
)
from trioq.replication.truncation_state import truncation_offset
from trioq.storage.log import Log
from trioq.storage.log_services import remove_files
from trioq.storage.memory_disk import MemoryDisk, PowerCut

CONFIG = Config(segment_bytes=700, file_delete_delay_ms=0)
PADDING = b"x" * 150


def leader_log(*epochs: int, start: int = 0, first_sequence: int = 0) -> Log:
    """A log of a batch per epoch named, all of one producer."""
    log = new_log(CONFIG)
    for number, epoch in enumerate(epochs):
        value = b"%d in %d " % (number, epoch) + PADDING
        put(log, value, epoch=epoch, producer=(7, 0, first_sequence + number))
    if start:
        log.set_high_watermark(log.log_end_offset)
        log.delete_records(start)
    return log


OLD = leader_log(*[1] * 8, *[2] * 6)
NEW = leader_log(*[1] * 8, *[3] * 9)
SHORT = leader_log(*[1] * 8, *[3] * 30, start=25)


class Scene:
    """A follower's log on a disk that is cut, and what of it was ever durable."""

    def __init__(self, disk: MemoryDisk, policy: str) -> None:
        self.disk = disk
        self.config = Config(segment_bytes=700, file_delete_delay_ms=0, flush_policy=policy)
        self.durable_end = 0
        self.open()

    def open(self) -> None:
        self.dirs = open_dirs(self.disk)
        self.dirs.recover(threads=1)
        self.log = self.dirs.log(TP, TOPIC_ID, self.config)

    def sync(self) -> None:
        while self.log.log_dir.writer.run_round():
            pass

    def follow(self, leader: Log, *, batches: int = 2, most: int = 1000) -> None:
        """Do as a fetcher does until the log is the leader's, or `most` answers were taken."""
        log = self.log
        for _ in range(most):
            if log.log_end_offset < leader.log_start_offset:
                self.durable_end = 0
                log.restart_at(leader.log_start_offset)
            last_epoch = log.epochs.latest_epoch
            if last_epoch >= 0:
                epoch, end = leader.epoch_end_offset(last_epoch)
                if epoch < last_epoch or end < log.log_end_offset:
                    own = log.epochs.end_offset_for(epoch, log.log_end_offset)
                    cut = truncation_offset(epoch, end, *own, log.log_end_offset)
                    assert cut < log.log_end_offset
                    self.durable_end = min(self.durable_end, cut)
                    log.truncate_to(cut)
                    self.sync()
                    continue
            if log.log_end_offset == leader.log_end_offset:
                return
            data = read_all(leader, log.log_end_offset)
            edge = headers(data)[:batches][-1]
            data = data[: edge.position + edge.size_bytes]
            if log.log_start_offset == log.log_end_offset:
                first = headers(data)[0]
                if first.base_offset < log.log_end_offset:
                    log.restart_at(first.base_offset)
            fault = log.append_replica(memoryview(bytearray(data)), leader_epoch=9, gaps_below=0)
            assert fault is None
            self.sync()
            self.durable_end = log.durable_end_offset

    def check(self, *leaders: Log) -> None:
        """After it was opened again: a prefix of a log that it followed, with all that was
        durable and not cut off; state, epochs and indexes are those of its bytes.
        """
        log = self.log
        assert log.log_end_offset >= self.durable_end
        data = read_all(log)
        assert any(data in read_all(leader) for leader in leaders)
        found = headers(data)
        epochs = {header.leader_epoch for header in found}
        if found:
            assert {epoch for epoch, _ in log.epochs.entries()} == epochs
        else:
            assert all(start == log.log_end_offset for _, start in log.epochs.entries())
        last = max((header.last_offset for header in found), default=-1)
        assert log.producers.last_offsets() == ({7: last} if found else {})
        for header in found:
            place = log.segments.locate(header.base_offset)
            assert place is not None
            assert (
                log.segments.read_batch(place)
                == data[header.position : header.position + header.size_bytes]
            )


def takes_batches(scene: Scene) -> tuple[Log, Log]:
    scene.follow(OLD)
    return OLD, OLD


def cuts_a_tail(scene: Scene) -> tuple[Log, Log]:
    scene.follow(NEW)
    return OLD, NEW


def begins_again(scene: Scene) -> tuple[Log, Log]:
    scene.follow(SHORT)
    return OLD, SHORT


def checkpoints_and_cuts(scene: Scene) -> tuple[Log, Log]:
    scene.log.flush()
    scene.dirs.checkpoint()
    scene.follow(NEW)
    scene.dirs.checkpoint()
    remove_files(scene.disk, scene.log.log_dir.take_due_deletions(NOW_MS + 1_000_000))
    return OLD, NEW


PREPARED = {takes_batches: 2, cuts_a_tail: 1000, begins_again: 3, checkpoints_and_cuts: 1000}
LEADERS = {
    takes_batches: (OLD, OLD),
    cuts_a_tail: (OLD, NEW),
    begins_again: (OLD, SHORT),
    checkpoints_and_cuts: (OLD, NEW),
}


@pytest.mark.parametrize("work", PREPARED, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    ("policy", "loses_power"), [("os", False), ("commit", False), ("commit", True)]
)
def test_cut_before_each_step(
    work: Callable[[Scene], object], policy: str, loses_power: bool
) -> None:
    for step in range(1, MOST_STEPS):
        disk = SteppedDisk()
        scene = Scene(disk, policy)
        scene.follow(OLD, most=PREPARED[work])
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
        scene.check(*LEADERS[work])
        leader = LEADERS[work][1]
        scene.follow(leader)
        assert read_all(scene.log) == read_all(leader, scene.log.log_start_offset)
        assert scene.log.epochs.entries()[-1] == leader.epochs.entries()[-1]
        scene.check(leader)
        if is_over:
            assert step > 3, "there was nothing to cut"
            return
    raise AssertionError("the work does not end")
