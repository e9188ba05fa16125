"""What a leader knows of its followers: their fetches, the high watermark, the in-sync replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import (
    KafkaError,
    OffsetNotAvailable,
    OffsetOutOfRange,
    PolicyViolation,
    ReplicaNotAvailable,
    StaleBrokerEpoch,
)
from trioq.replication.isr_state import IsrState
from trioq.replication.producing import ProducingSide
from trioq.replication.replica import ReadResult
from trioq.replication.waiters import ReplicaListener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioq.config import BrokerConfig, TopicConfig
    from trioq.metastore.layout import PartitionState
    from trioq.storage.log import Log


class LeaderSide(ProducingSide):
    """The leader's side of a partition: while `is_leader`, `isr` is there."""

    __slots__ = ()

    # ---- the term -----------------------------------------------------------------------

    def _lead(self, state: PartitionState) -> None:
        """A term begins here, at the log's end. Raises KafkaStorageError."""
        log = self.log
        end_offset = log.log_end_offset
        log.assign_epoch(state.leader_epoch, end_offset)
        now_s = log.log_dir.clock.monotonic_s()
        self._isr = IsrState(self.local_id, state, start_offset=end_offset, now_s=now_s)
        if self.term > 1:
            self._resumed_s = now_s
        self.is_leader = True
        # What was told in an earlier term may have been cut off since.
        self._told_end_offset = log.written_end_offset

    def apply_config(self, config: TopicConfig, broker_config: BrokerConfig) -> None:
        """See Replica."""
        super().apply_config(config, broker_config)
        self._advance_high_watermark()  # it may have rested for min.insync.replicas

    def _refuse_waiters(self, error: type[KafkaError]) -> None:
        """The term is over: all who wait in it are told (rule 10 of SAFETY)."""
        self._acks_one.refuse_all(error)
        self._acks_all.refuse_all(error)
        self._tell_consumers(0)
        for listener in tuple(self._replica_listeners):
            listener.progressed(self, 0)

    # ---- in-sync replicas ---------------------------------------------------------------

    @property
    def isr(self) -> IsrState | None:
        """Who is in sync, to be read; None while this is not the leader."""
        return self._isr

    def _isr_decided(self, state: PartitionState) -> None:
        isr = self._isr
        assert isr is not None
        before = isr.committed
        isr.decide(state, self.log.log_dir.clock.monotonic_s())
        self._open_lane()
        self._advance_high_watermark()
        if not before <= isr.committed:
            # Who has left states its position anew with its next fetch, even if it rests.
            for listener in tuple(self._replica_listeners):
                listener.high_watermark_moved(self)

    def propose_isr(self, members: Mapping[int, int]) -> None:
        """A change of the ISR is about to be sent; see IsrState.propose. While leading only."""
        isr = self._isr
        assert isr is not None
        isr.propose(members)
        self._open_lane()

    def withdraw_isr(self) -> None:
        """What was proposed is known not to be written, now or later. While leading only."""
        isr = self._isr
        assert isr is not None
        isr.withdraw()
        self._open_lane()
        self._advance_high_watermark()

    # ---- fetches of followers -----------------------------------------------------------

    def read_as_replica(
        self,
        replica_id: int,
        broker_epoch: int,
        fetch_offset: int,
        max_bytes: int,
        *,
        min_one_batch: bool,
        current_leader_epoch: int,
        last_fetched_epoch: int,
        now_s: float,
        log_start_offset: int = -1,
    ) -> ReadResult:
        """Note that a follower holds everything below `fetch_offset`, and find what it may read
        from there on: whole batches up to what is written.

        Args:
            replica_id, broker_epoch: who fetches, and the epoch of its registration.
            last_fetched_epoch: of the batch below `fetch_offset` in its log; -1 if there is none.
            now_s: the broker's monotonic clock.
            log_start_offset: where its log begins; -1 if it does not say, and beyond
                `fetch_offset` if it holds nothing of what it held.

        Raises:
            NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, OffsetOutOfRange,
            KafkaStorageError, CorruptMessage.
            ReplicaNotAvailable: it is not a replica of this partition, as far as is known here; or
                it lacks what it held, and others count on it: as soon as they do not any more, it
                may begin again, which is what any other answer to such a fetch says.
            StaleBrokerEpoch: it has registered again since.
        """
        self.check_epoch(current_leader_epoch)
        isr, log = self._isr, self.log
        assert isr is not None
        if not isr.is_replica(replica_id):
            raise ReplicaNotAvailable(f"{replica_id} is no replica of {self.topic_partition}")
        if broker_epoch < isr.epoch_of(replica_id):
            raise StaleBrokerEpoch
        end_offset = log.written_end_offset
        diverging = self._diverging(fetch_offset, last_fetched_epoch)
        if diverging is not None:
            return ReadResult(
                None,
                log.high_watermark,
                log.high_watermark,
                log.log_start_offset,
                end_offset,
                diverging,
            )
        if not 0 <= fetch_offset <= log.log_end_offset:
            raise _out_of_range(fetch_offset, log)
        # Also of one that is below the log's start, so that it is known to lack what it held.
        is_harmed = fetch_offset < max(log_start_offset, log.log_start_offset)
        moved = isr.record_fetch(
            replica_id, broker_epoch, fetch_offset, leader_end_offset=end_offset, now_s=now_s
        )
        isr.record_start(replica_id, -1 if is_harmed else log_start_offset, is_harmed=is_harmed)
        if is_harmed:
            if isr.counts_on(replica_id, broker_epoch):
                raise ReplicaNotAvailable("others count on what it held; it must not begin again")
            if fetch_offset < log.log_start_offset:
                raise _out_of_range(fetch_offset, log)
        if moved:
            self._advance_high_watermark()
        if (
            self.join_watcher is not None
            and replica_id not in isr.committed
            and isr.may_join(replica_id, log.high_watermark, now_s)
        ):
            self.join_watcher.may_join(self)
        region = None
        if fetch_offset < end_offset and (max_bytes > 0 or min_one_batch):
            region = log.read(
                fetch_offset, max_bytes, end_offset=end_offset, min_one_batch=min_one_batch
            )
        # A follower has a last stable offset of its own.
        high_watermark = log.high_watermark
        return ReadResult(region, high_watermark, high_watermark, log.log_start_offset, end_offset)

    def _diverging(self, fetch_offset: int, last_fetched_epoch: int) -> tuple[int, int] | None:
        """Where the reader's log parts from this one; None if it does not, or does not say.

        Raises OffsetOutOfRange where no epoch is known that it may have.
        """
        if last_fetched_epoch < 0:
            return None
        epoch, end_offset = self.log.epoch_end_offset(last_fetched_epoch)
        if epoch < 0:
            raise OffsetOutOfRange(f"no leader epoch up to {last_fetched_epoch} is known here")
        if epoch < last_fetched_epoch or end_offset < fetch_offset:
            return epoch, end_offset
        return None

    def add_replica_listener(self, listener: ReplicaListener) -> None:
        """Have `listener` told of all that followers may read, until it is removed."""
        if not self._replica_listeners:
            self._told_end_offset = self.log.written_end_offset
        self._replica_listeners[listener] = None

    def remove_replica_listener(self, listener: ReplicaListener) -> None:
        """Undo `add_replica_listener`; nothing happens if it is not there."""
        self._replica_listeners.pop(listener, None)

    # ---- progress -----------------------------------------------------------------------

    def _advance_high_watermark(self) -> None:
        isr = self._isr
        if isr is None:
            return
        log = self.log
        high_watermark = isr.high_watermark(log.durable_end_offset)
        if high_watermark <= log.high_watermark:
            return
        log.set_high_watermark(high_watermark)
        self._acks_all.pass_offset(high_watermark)
        new_bytes, self._bytes_since_progress = self._bytes_since_progress, 0
        if self._listeners:
            self._tell_consumers(new_bytes)
        if self._replica_listeners:
            for listener in tuple(self._replica_listeners):
                listener.high_watermark_moved(self)

    def _tell_replicas(self, new_bytes: int) -> None:
        end_offset = self.log.written_end_offset
        if end_offset != self._told_end_offset:
            self._told_end_offset = end_offset
            for listener in tuple(self._replica_listeners):
                listener.progressed(self, new_bytes)

    # ---- administration -----------------------------------------------------------------

    def latest_offset(self, *, read_committed: bool) -> int:
        """The end of what a consumer may read.

        Raises:
            OffsetNotAvailable: the high watermark has not reached the start of this leader's
                epoch, so an older leader may have shown more (KIP-207).
            NotLeaderOrFollower, KafkaStorageError.
        """
        isr, log = self._isr, self.log
        if isr is None:
            raise self._not_leader()
        if log.high_watermark < isr.start_offset:
            raise OffsetNotAvailable
        self._is_end_known = True
        return log.last_stable_offset if read_committed else log.high_watermark

    def delete_records(self, before_offset: int) -> int:
        """Forget everything below `before_offset` (-1: the high watermark).

        Returns:
            The log start offset afterwards.

        Raises:
            OffsetOutOfRange: above the high watermark, or negative but not -1.
            PolicyViolation: the topic is compacted and nothing else.
            NotLeaderOrFollower, KafkaStorageError.
        """
        if not self.is_leader:
            raise self._not_leader()
        if "delete" not in self.config.cleanup_policy:
            raise PolicyViolation(
                f"records of {self.topic_partition} cannot be deleted: its cleanup.policy is "
                f"{','.join(self.config.cleanup_policy)}"
            )
        high_watermark = self.log.high_watermark
        target = high_watermark if before_offset == -1 else before_offset
        if not 0 <= target <= high_watermark:
            raise OffsetOutOfRange(
                f"records can be deleted below the high watermark, {high_watermark}; "
                f"{before_offset} was asked for"
            )
        start_offset = self.log.delete_records(target)
        for listener in tuple(self._replica_listeners):
            listener.progressed(self, 0)
        return start_offset

    def is_deleted_below(self, offset: int) -> bool:
        """Whether no replica that may come to lead still has records below `offset`.

        Raises NotLeaderOrFollower, KafkaStorageError.
        """
        if self._isr is None:
            raise self._not_leader()
        return self.log.log_start_offset >= offset and self._isr.start_reached(offset)


def _out_of_range(offset: int, log: Log) -> OffsetOutOfRange:
    return OffsetOutOfRange(
        f"offset {offset} is outside {log.log_start_offset} to {log.log_end_offset}"
    )
