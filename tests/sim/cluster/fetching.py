"""A follower's fetches: one at a time, of the term in which they were asked."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from trioq.errors import KafkaError, KafkaStorageError, NotLeaderOrFollower, OffsetOutOfRange
from trioq.replication.fetch_session_state import Position
from trioq.replication.fetcher_state import Verdict, judge

if TYPE_CHECKING:
    from tests.sim.cluster.process import Process

BATCHES = 4
"""The most that an answer holds."""


class Fetching:
    """The fetcher of one process. A fetch that is not answered in time counts no longer."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._number = 0
        self._term = -1
        self.slow_until_ms = 0.0
        """Until then it fetches seldom: its disk, or its link, is busy with something else."""

    def follow(self) -> None:
        """The role may have changed: fetch from the leader of now."""
        partition = self._process.partition
        if partition.is_follower and self._process.broker_epoch >= 0:
            if self._term != partition.term:
                self._term = partition.term
                self._fetch()
        else:
            self._term = -1
            self._number += 1

    def _again(self, delay_ms: float) -> None:
        self._number += 1
        self._world.later(self._process, delay_ms, partial(self._fetch, self._number))

    def _fetch(self, number: int | None = None) -> None:
        process, world = self._process, self._world
        partition = process.partition
        if number not in {None, self._number} or partition.term != self._term:
            return
        self._number += 1
        number, term, leader = self._number, partition.term, partition.leader_id
        at = partition.harmed_position(0) if process.log.is_damaged else partition.position()
        if at is None:
            # What is not synced must not be stated, and is not asked for again (rule 2).
            self._again(2)
            return
        request = {
            "replica_id": process.broker_id,
            "broker_epoch": process.broker_epoch,
            "fetch_offset": at.fetch_offset,
            "max_bytes": BATCHES,
            "current_leader_epoch": at.leader_epoch,
            "last_fetched_epoch": at.last_fetched_epoch,
            "log_start_offset": at.log_start_offset,
        }

        def asked(other: Process) -> None:
            answer = other.replica_read(request)
            world.send(leader, process.broker_id, lambda back: answered(back, answer))

        def answered(back: Process, answer: dict[str, Any]) -> None:
            if back is process and self._is_wanted(number, term):
                self._answered(term, at, answer)

        world.send(process.broker_id, leader, asked)
        world.later(process, world.settings.fetch_timeout_ms, partial(self._late, number))

    def _is_wanted(self, number: int, term: int) -> bool:
        """Whether an answer is of the fetch, and of the term, of now."""
        return number == self._number and term == self._process.partition.term

    def _late(self, number: int) -> None:
        if number == self._number:
            self._again(0)

    def _answered(self, term: int, stated: Position, answer: dict[str, Any]) -> None:
        partition, log = self._process.partition, self._process.log
        if stated.is_harmed:
            if answer["error_code"] in {0, OffsetOutOfRange.code}:
                with suppress(NotLeaderOrFollower, KafkaStorageError):
                    partition.begin_again(term=term, leader_start=0)
            self._again(20)
            return
        pause_ms = 0.0
        if self._world.now_ms < self.slow_until_ms:
            pause_ms = self._world.settings.lag_ms * self._world.random.uniform(0.5, 1.5)
        match judge(answer["error_code"], is_diverging=answer.get("diverging") is not None):
            case Verdict.TRUNCATE:
                epoch, end_offset = answer["diverging"]
                with suppress(NotLeaderOrFollower, KafkaStorageError):
                    partition.cut_to_leader(term=term, leader_epoch=epoch, end_offset=end_offset)
            case Verdict.APPEND if log.log_end_offset == stated.fetch_offset:
                with suppress(NotLeaderOrFollower, KafkaStorageError):
                    partition.append_as_follower(
                        answer["batches"],
                        term=term,
                        high_watermark=answer["high_watermark"],
                        log_start_offset=answer["log_start_offset"],
                    )
                if not answer["batches"] and not pause_ms:
                    pause_ms = self._world.random.uniform(8, 30)
            case Verdict.LOOK_UP:
                self._look_up(term)
                pause_ms = 20
            case _:
                pause_ms = self._world.random.uniform(10, 30)
        self._again(pause_ms)

    def _look_up(self, term: int) -> None:
        """Ask where the leader's log begins and ends, as ListOffsets does for a replica."""
        process, world = self._process, self._world
        leader, leader_epoch = process.partition.leader_id, process.partition.leader_epoch

        def asked(other: Process) -> None:
            try:
                other.partition.check_epoch(leader_epoch)
            except KafkaError:
                return
            bounds = other.log.log_start_offset, other.log.log_end_offset
            world.send(leader, process.broker_id, lambda back: answered(back, bounds))

        def answered(back: Process, bounds: tuple[int, int]) -> None:
            if back is process:
                with suppress(NotLeaderOrFollower, KafkaStorageError):
                    process.partition.come_into_range(
                        term=term, leader_start=bounds[0], leader_end=bounds[1]
                    )

        world.send(process.broker_id, leader, asked)
