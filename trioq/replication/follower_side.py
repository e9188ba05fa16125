"""What a replica does that follows the leader's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq import logs
from trioq.errors import NotLeaderOrFollower
from trioq.replication.fetch_session_state import Position
from trioq.replication.replica import Replica
from trioq.replication.truncation_state import reset, truncation_offset

if TYPE_CHECKING:
    from trioq.storage.log import Log

log_ = logs.get_logger(__name__)

ANYWHERE: Final = (1 << 63) - 1


class FollowerSide(Replica):
    """The follower's side of a partition: while `is_follower`.

    Each call that changes the log names the term in which the leader was asked, and does nothing
    when that is over (rule 1 of SAFETY).
    """

    __slots__ = ()

    # ---- the term -----------------------------------------------------------------------

    def _follow(self) -> None:
        """A term begins in which another broker leads, or none."""
        self._leader_high_watermark = -1
        self.log.forget_unborn_epoch()

    # ---- where it stands ----------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """True when all that was appended is as safe as the position that a fetch states: written,
        and with flush.policy=commit synced (rule 2 of SAFETY).
        """
        log = self.log
        return not log.is_borrowing and log.durable_end_offset == log.log_end_offset

    def position(self) -> Position | None:
        """What the next fetch states; None while not settled, or not following.

        Raises KafkaStorageError, and CorruptMessage where files are damaged.
        """
        if not self.is_follower or not self.is_settled:
            return None
        log = self.log
        return Position(
            self.leader_epoch,
            log.log_end_offset,
            log.epochs.latest_epoch,
            log.log_start_offset,
        )

    def harmed_position(self, leader_start: int) -> Position | None:
        """What is stated of a log that is damaged: that it holds nothing. It begins again when the
        leader, whose log begins at `leader_start`, has been told so and counts on it no longer.
        """
        if not self.is_follower:
            return None
        offset = max(0, leader_start - 1)
        return Position(self.leader_epoch, offset, -1, offset + 1)

    # ---- what the leader answered -------------------------------------------------------

    def append_as_follower(
        self, records: memoryview, *, term: int, high_watermark: int, log_start_offset: int
    ) -> str | None:
        """Take over what the leader's log holds from this log's end on.

        Args:
            records: whole batches and possibly the start of another; may be empty. Borrowed
                until return.
            term: in which the leader was asked.
            high_watermark, log_start_offset: the leader's. This replica's high watermark follows
                up to what is durable here, its log start up to its high watermark.

        Returns:
            What is wrong with the first batch that was not taken; None when all were.

        Raises:
            NotLeaderOrFollower: the term is over.
            KafkaStorageError: the log's directory is, or went, offline.
            CorruptMessage: this log's own files are damaged.
        """
        self._check_term(term)
        log = self.log
        self._leader_high_watermark = max(self._leader_high_watermark, high_watermark)
        fault = None
        if records:
            if log.log_end_offset == log.log_start_offset:
                self._start_within(records)
            # Compaction leaves gaps below what was the high watermark, which a leader that has
            # just begun may not know yet.
            compacts = "compact" in self.config.cleanup_policy
            fault = log.append_replica(
                records,
                leader_epoch=self.leader_epoch,
                gaps_below=ANYWHERE if compacts else high_watermark,
            )
        self._follow_high_watermark()
        start_offset = min(log_start_offset, log.high_watermark)
        if start_offset > log.log_start_offset:
            log.delete_records(start_offset)
        return fault

    def _start_within(self, records: memoryview) -> None:
        """An empty log whose start lies inside the leader's first batch begins with that batch.

        The log start, which is the leader's, is reached again once its high watermark allows.
        """
        log = self.log
        edges = log.first_batch(records)
        if edges is not None and edges[0] < log.log_end_offset <= edges[1]:
            log.restart_at(edges[0])

    def cut_to_leader(self, *, term: int, leader_epoch: int, end_offset: int) -> bool:
        """Drop what the leader's log does not hold: it ends `leader_epoch` at `end_offset`, and
        that is the greatest epoch there at or below this log's last.

        Returns:
            Whether something was dropped.

        Raises as `append_as_follower`.
        """
        self._check_term(term)
        log = self.log
        own = log.epochs.end_offset_for(leader_epoch, log.log_end_offset)
        offset = truncation_offset(leader_epoch, end_offset, *own, log.log_end_offset)
        return self._cut(log, max(0, offset))

    def _cut(self, log: Log, offset: int) -> bool:
        end_offset = log.log_end_offset
        if offset >= end_offset:
            return False
        level = log_.warning if offset < log.high_watermark else log_.info
        level(
            "replica_truncated",
            partition=str(self.topic_partition),
            leader=self.leader_id,
            leader_epoch=self.leader_epoch,
            end_offset=end_offset,
            truncated_to=offset,
            high_watermark=log.high_watermark,
        )
        log.truncate_to(offset)
        if not self.is_settled:
            log.log_dir.writer.request_sync(log)
        return True

    def come_into_range(self, *, term: int, leader_start: int, leader_end: int) -> bool:
        """The leader's log does not hold this log's end: truncate, or begin again where it starts.

        Who may be elected does not begin again: it leaves the ISR first, and is electable no
        longer, for which the leader sees to as it cannot fetch (rules 9 and 11 of SAFETY).

        Returns:
            Whether the next fetch asks from another offset.

        Raises as `append_as_follower`.
        """
        self._check_term(term)
        log = self.log
        to = reset(log.log_start_offset, log.log_end_offset, leader_start, leader_end)
        if to is None:
            return False
        if not to.is_restart:
            return self._cut(log, to.offset)
        return self._begin_again(to.offset)

    def begin_again(self, *, term: int, leader_start: int) -> bool:
        """This log's files are damaged: drop them, and copy all from the leader again.

        To be called when the leader was told (`harmed_position`), and knows that nobody counts on
        this replica, as it might not be known here. As `come_into_range`, not while it may be
        elected.
        """
        self._check_term(term)
        return self._begin_again(leader_start)

    def _begin_again(self, offset: int) -> bool:
        if self._may_be_elected():
            return False
        log = self.log
        log_.warning(
            "replica_restarted",
            partition=str(self.topic_partition),
            leader=self.leader_id,
            log_start_offset=log.log_start_offset,
            log_end_offset=log.log_end_offset,
            restarted_at=offset,
        )
        log.restart_at(offset)
        return True

    def _may_be_elected(self) -> bool:
        """Whether it counts, by the state that is known here, for one that holds everything."""
        state = self.state
        assert state is not None
        electable = dict(zip(state.elr, state.elr_epochs, strict=True))
        return (
            self.local_id in state.isr or electable.get(self.local_id, -2) >= self.broker_epoch - 1
        )

    def _check_term(self, term: int) -> None:
        if self.term != term or not self.is_follower:
            raise NotLeaderOrFollower(f"the term in which {self.topic_partition} was asked is over")

    # ---- progress -----------------------------------------------------------------------

    def _follower_progressed(self) -> None:
        """More of the log is written, or synced."""
        self._follow_high_watermark()
        if self.settle_watcher is not None and self.is_settled:
            self.settle_watcher.settled(self)

    def _follow_high_watermark(self) -> None:
        log = self.log
        high_watermark = min(self._leader_high_watermark, log.durable_end_offset)
        new_records = high_watermark - log.high_watermark
        if new_records > 0:
            log.set_high_watermark(high_watermark)
            if self._listeners:
                self._tell_consumers(new_records)
