"""One partition hosted here: its role, its log, and those who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaStorageError, NotLeaderOrFollower, OffsetNotAvailable
from trioq.replication.follower_side import FollowerSide
from trioq.replication.leader_side import LeaderSide
from trioq.replication.producing import ACKS_ALL
from trioq.replication.replica import ReadResult
from trioq.types import TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.config import BrokerConfig, TopicConfig
    from trioq.metastore.layout import PartitionState
    from trioq.storage.log import Log

__all__ = ["ACKS_ALL", "Partition", "ReadResult"]


class Partition(LeaderSide, FollowerSide):
    """A partition hosted here, which leads or follows as the metastore's state says.

    It leads only by a state that names the epoch of this broker's present registration (rule 6
    of SAFETY); else, while another broker is the leader, it follows that one.

    Owned by the broker's loop: every method is a plain call made on its thread, but for
    `prepare`. Lives from the image that assigns it to this broker until the one that takes it
    away.
    """

    __slots__ = ()

    def __init__(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        log: Log,
        config: TopicConfig,
        broker_config: BrokerConfig,
    ) -> None:
        super().__init__(topic_partition, topic_id, log, config, broker_config)
        log.on_progress = self._log_progressed
        log.on_start_moved = self._log_start_moved

    # ---- role ---------------------------------------------------------------------------

    def use_broker_epoch(self, broker_epoch: int) -> None:
        """This broker is registered under `broker_epoch`: what was led by an earlier one is led
        no longer. Raises KafkaStorageError.
        """
        self.broker_epoch = broker_epoch
        if self.state is not None:
            self.apply_state(self.state)

    def apply_state(self, state: PartitionState) -> None:
        """Follow the metastore's partition state; an older one than held is ignored.

        Raises:
            KafkaStorageError: the log could not take the new leader epoch.
        """
        if self.is_closed or state.partition_epoch < self.partition_epoch:
            return
        self.state = state
        leads = self._may_lead(state)
        if (leads, state.leader, state.leader_epoch) != (
            self.is_leader,
            self.leader_id,
            self.leader_epoch,
        ):
            self._begin_term(state, leads=leads)
        elif leads:
            self._isr_decided(state)

    def _may_lead(self, state: PartitionState) -> bool:
        return state.leader == self.local_id and not self.log.failed and self.is_named_by(state)

    def is_named_by(self, state: PartitionState) -> bool:
        """Whether the ISR of `state` has this broker under its present broker epoch."""
        if self.local_id not in state.isr:
            return False
        named_epoch = state.broker_epochs[state.isr.index(self.local_id)]
        return 0 <= self.broker_epoch == named_epoch

    def _begin_term(self, state: PartitionState, *, leads: bool) -> None:
        self.term += 1
        self.is_leader = False
        self._is_end_known = False
        self._isr = None
        self.leader_id = state.leader
        self.leader_epoch = state.leader_epoch
        try:
            if leads:
                self._lead(state)
            else:
                self._follow()
        finally:
            self._open_lane()
            self._refuse_waiters(NotLeaderOrFollower)
        self._advance_high_watermark()

    def close(self) -> None:
        """The partition is no longer hosted here: everyone waiting is told."""
        self.is_closed = True
        self.log.on_progress = self.log.on_start_moved = None
        self._stop(NotLeaderOrFollower)
        self.leader_id = -1

    def _stop(self, error: type[KafkaStorageError | NotLeaderOrFollower]) -> None:
        self.term += 1
        self.is_leader = False
        self._is_end_known = False
        self._isr = None
        self._open_lane()
        self._refuse_waiters(error)

    def _log_progressed(self, log: Log) -> None:
        if log.failed:
            self._stop(KafkaStorageError)
            if self.join_watcher is not None:
                self.join_watcher.log_failed(self)
            return
        if self._acks_one:
            self._acks_one.pass_offset(log.durable_end_offset)
        if self._isr is not None:
            new_bytes = self._bytes_since_progress
            self._advance_high_watermark()
            if self._replica_listeners:
                self._tell_replicas(new_bytes)
        else:
            self._follower_progressed()

    def _log_start_moved(self, _log: Log) -> None:
        """Followers hear of it although nothing is appended, with the answers that they get; of a
        follower its leader does.
        """
        for listener in tuple(self._replica_listeners):
            listener.log_start_moved(self)
        if self.settle_watcher is not None:
            self.settle_watcher.log_start_moved(self)

    # ---- reading ------------------------------------------------------------------------

    def read(
        self,
        fetch_offset: int,
        max_bytes: int,
        *,
        min_one_batch: bool,
        read_committed: bool,
        current_leader_epoch: int,
        last_fetched_epoch: int,
    ) -> ReadResult:
        """Find what a consumer may read from `fetch_offset` on: whole batches below the high
        watermark, or below the last stable offset for read_committed.

        Raises:
            NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, OffsetOutOfRange,
            KafkaStorageError.
        """
        self.check_epoch(current_leader_epoch)
        return self._read(
            fetch_offset,
            max_bytes,
            min_one_batch=min_one_batch,
            read_committed=read_committed,
            last_fetched_epoch=last_fetched_epoch,
        )

    def read_as_follower(
        self,
        fetch_offset: int,
        max_bytes: int,
        *,
        min_one_batch: bool,
        read_committed: bool,
        current_leader_epoch: int,
        last_fetched_epoch: int,
    ) -> ReadResult:
        """As `read`, of a follower: up to the high watermark that its leader told (KIP-392).

        Raises:
            OffsetNotAvailable: beyond what this replica has; the leader may have it.
            As `read`; NotLeaderOrFollower where it follows nobody.
        """
        if not self.is_follower:
            raise self._not_leader()
        self._fence(current_leader_epoch)
        if fetch_offset > self.log.log_end_offset:
            raise OffsetNotAvailable
        return self._read(
            fetch_offset,
            max_bytes,
            min_one_batch=min_one_batch,
            read_committed=read_committed,
            last_fetched_epoch=last_fetched_epoch,
        )

    def nothing_read(self, *, preferred: int = -1) -> ReadResult:
        """The partition's offsets, for a consumer that should read from `preferred`."""
        log = self.log
        return ReadResult(
            None,
            log.high_watermark,
            log.last_stable_offset,
            log.log_start_offset,
            log.high_watermark,
            preferred=preferred,
        )

    def _read(
        self,
        fetch_offset: int,
        max_bytes: int,
        *,
        min_one_batch: bool,
        read_committed: bool,
        last_fetched_epoch: int,
    ) -> ReadResult:
        log = self.log
        high_watermark = log.high_watermark
        region = diverging = None
        if last_fetched_epoch >= 0:
            diverging = self._diverging(fetch_offset, last_fetched_epoch)
        if diverging is None:
            end = log.last_stable_offset if read_committed else high_watermark
            if not (
                log.log_start_offset <= fetch_offset and end <= fetch_offset <= log.log_end_offset
            ):
                region = log.read(
                    fetch_offset, max_bytes, end_offset=end, min_one_batch=min_one_batch
                )
        return ReadResult(
            region,
            high_watermark,
            log.last_stable_offset,
            log.log_start_offset,
            high_watermark,
            diverging,
        )
