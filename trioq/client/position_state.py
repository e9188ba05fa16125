"""The positions of a consumer: what it reads, from where, and what it has to ask for that.

Pure; FetcherState builds on it. A driver looks up what the `awaiting_*` methods name and reports
back. An answer that was asked for before a seek, a rebalance or a reset is for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from trioq.client.partition_state import (
    EARLIEST,
    LATEST,
    NO_EPOCH,
    NO_NODE,
    PartitionState,
    PositionPhase,
)
from trioq.errors import NoCommittedOffset, OffsetOutOfRange, TrioqError
from trioq.types import TopicId, TopicPartition

RESET_TIMESTAMPS: Final = {"earliest": EARLIEST, "latest": LATEST}
NEVER_S: Final = float("inf")


class FetchSettings(NamedTuple):
    """How a consumer fetches."""

    min_bytes: int = 1
    max_wait_ms: int = 500
    max_bytes: int = 50 * 1024 * 1024
    partition_max_bytes: int = 1024 * 1024
    prefetch_bytes: int = 64 * 1024 * 1024
    read_committed: bool = False
    rack: str = ""
    auto_offset_reset: str = "latest"
    """earliest, latest or error: where to start without a committed offset."""
    check_crc: bool = True
    retry_backoff_ms: int = 100
    replica_max_age_ms: int = 300_000
    key_deserializer: Callable[[bytes], object] | None = None
    value_deserializer: Callable[[bytes], object] | None = None


class Leader(NamedTuple):
    """Where a partition is, as the cluster's metadata has it."""

    node_id: int
    epoch: int
    topic_id: TopicId


class OffsetQuery(NamedTuple):
    """A question about one partition that is only good for its present incarnation."""

    partition: TopicPartition
    incarnation: int
    node_id: int
    leader_epoch: int
    timestamp: int = LATEST
    epoch: int = NO_EPOCH


class PositionState:
    """The partitions of one consumer; owned by its loop."""

    def __init__(self, settings: FetchSettings, *, has_group: bool) -> None:
        self.settings = settings
        self.partitions: dict[TopicPartition, PartitionState] = {}
        self.buffered_bytes = 0
        """What was fetched and is not given out yet."""

        self._has_group = has_group
        self._ready: deque[TopicPartition] = deque()
        """Partitions that have something to give out or to raise, in the order of their turns."""

    # ---- what is read -----------------------------------------------------------------

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these too, from where their group or the reset policy says."""
        for partition in partitions:
            if partition not in self.partitions:
                state = PartitionState(partition, self.settings.partition_max_bytes)
                self.partitions[partition] = state
                if not self._has_group:
                    self._reset_by_policy(state, NoCommittedOffset(_nowhere(partition)))

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these; what was fetched of them is dropped."""
        for partition in partitions:
            state = self.partitions.pop(partition, None)
            if state is not None:
                self._drop_buffer(state)
                state.jump(PositionPhase.UNKNOWN)

    def seek(self, partition: TopicPartition, offset: int, epoch: int = NO_EPOCH) -> None:
        """Read `partition`, which must be assigned, from `offset` on."""
        state = self.partitions[partition]
        self._drop_buffer(state)
        state.go_to(offset, epoch)

    def reset(self, partition: TopicPartition, timestamp: int) -> None:
        """Read from the first record at or after `timestamp`, or EARLIEST or LATEST."""
        state = self.partitions[partition]
        self._drop_buffer(state)
        state.jump(PositionPhase.RESETTING)
        state.reset_timestamp = timestamp

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Neither fetch these nor give out what was fetched of them, but keep it."""
        for partition in partitions:
            self.partitions[partition].paused = True

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            state = self.partitions[partition]
            state.paused = False
            if (state.batches or state.error) and partition not in self._ready:
                self._ready.append(partition)

    def update_leaders(self, leader_of: Callable[[TopicPartition], Leader | None]) -> None:
        """Take up what the cluster's metadata has now."""
        for partition, state in self.partitions.items():
            leader = leader_of(partition)
            if leader is None:
                state.leader_id = NO_NODE
                continue
            if leader.node_id != state.leader_id or leader.epoch != state.leader_epoch:
                state.replica_id = NO_NODE
            state.leader_id, state.leader_epoch = leader.node_id, leader.epoch
            state.topic_id = leader.topic_id
            if (
                state.phase is PositionPhase.FETCHING
                and state.fetch_epoch != NO_EPOCH
                and leader.epoch > state.validated_epoch
            ):
                state.phase = PositionPhase.VALIDATING

    # ---- positions to look up ---------------------------------------------------------

    def awaiting_committed(self, now_s: float) -> list[TopicPartition]:
        """Partitions whose committed offset is needed."""
        return [
            state.partition
            for state in self.partitions.values()
            if state.phase is PositionPhase.UNKNOWN and state.retry_at_s <= now_s
        ]

    def committed(self, partition: TopicPartition, offset: int | None, epoch: int) -> None:
        """The group's offset of a partition; None if it has none."""
        state = self.partitions.get(partition)
        if state is None or state.phase is not PositionPhase.UNKNOWN:
            return
        if offset is None:
            self._reset_by_policy(state, NoCommittedOffset(_nowhere(partition)))
        else:
            state.go_to(offset, epoch)

    def awaiting_offsets(self, now_s: float) -> list[OffsetQuery]:
        """Partitions to reset: ask their leaders for offsets by timestamp."""
        return self._queries(PositionPhase.RESETTING, now_s)

    def awaiting_validation(self, now_s: float) -> list[OffsetQuery]:
        """Partitions whose new leader is to say where the position's epoch ends (KIP-320)."""
        return self._queries(PositionPhase.VALIDATING, now_s)

    def offset_found(self, query: OffsetQuery, offset: int, epoch: int) -> None:
        """The answer to one of `awaiting_offsets`; no offset (-1): nothing that late, the end."""
        state = self._of(query, PositionPhase.RESETTING)
        if state is None:
            return
        if offset < 0:
            state.reset_timestamp = LATEST
            return
        state.go_to(offset, NO_EPOCH)
        state.fetch_epoch = state.position_epoch = epoch

    def epoch_end_found(self, query: OffsetQuery, end_offset: int, epoch: int) -> None:
        """The answer to one of `awaiting_validation`: that epoch's end in the leader's log.

        A position behind it was read from a leader that lost its last records: they are read
        again as they are now, from where the logs part.
        """
        state = self._of(query, PositionPhase.VALIDATING)
        if state is None:
            return
        state.validated_epoch = query.leader_epoch
        if end_offset < 0:
            self._drop_buffer(state)
            self._reset_by_policy(
                state,
                OffsetOutOfRange(
                    f"the leader of {state.partition} knows nothing of leader epoch "
                    f"{query.epoch} any more: seek to where to go on"
                ),
            )
        elif end_offset < state.fetch_offset:
            self._drop_buffer(state)
            start = min(state.position, end_offset)
            state.jump(PositionPhase.FETCHING)
            state.position = state.fetch_offset = start
            state.position_epoch = state.fetch_epoch = epoch
        else:
            state.phase = PositionPhase.FETCHING

    def validation_unsupported(self, query: OffsetQuery) -> None:
        """The broker cannot validate: go on as clients did before it could be."""
        state = self._of(query, PositionPhase.VALIDATING)
        if state is not None:
            state.validated_epoch = query.leader_epoch
            state.phase = PositionPhase.FETCHING

    def query_failed(
        self, partition: TopicPartition, incarnation: int, error: TrioqError, now_s: float
    ) -> None:
        """A position could not be looked up: again after the backoff, or the user is told."""
        state = self.partitions.get(partition)
        if state is None or state.incarnation != incarnation:
            return
        if getattr(error, "retriable", False):
            state.retry_at_s = now_s + self.settings.retry_backoff_ms / 1000
        else:
            self.fail(state, error)

    def wake_at_s(self, now_s: float) -> float:
        """When a backoff or the preference for a replica ends that something waits for."""
        times = [state.retry_at_s for state in self.partitions.values() if state.retry_at_s > now_s]
        return min(times, default=NEVER_S)

    # ---- failures ---------------------------------------------------------------------

    def fail(self, state: PartitionState, error: TrioqError) -> None:
        """Tell the user; reading stops there until `seek`, or `retry`."""
        state.error = error
        state.phase = PositionPhase.FAILED
        if state.partition not in self._ready:
            self._ready.append(state.partition)

    def out_of_range(self, state: PartitionState) -> None:
        """The leader has nothing at the offset: start over as the reset policy says."""
        offset = state.fetch_offset
        self._drop_buffer(state)
        self._reset_by_policy(
            state,
            OffsetOutOfRange(
                f"{state.partition} has no offset {offset} (any more), and auto_offset_reset is "
                f"'error': seek to where to go on"
            ),
        )

    # ---- inside -----------------------------------------------------------------------

    def _queries(self, phase: PositionPhase, now_s: float) -> list[OffsetQuery]:
        return [
            OffsetQuery(
                state.partition,
                state.incarnation,
                state.leader_id,
                state.leader_epoch,
                state.reset_timestamp,
                state.fetch_epoch,
            )
            for state in self.partitions.values()
            if state.phase is phase and state.leader_id != NO_NODE and state.retry_at_s <= now_s
        ]

    def _of(self, query: OffsetQuery, phase: PositionPhase) -> PartitionState | None:
        state = self.partitions.get(query.partition)
        if state is None or state.incarnation != query.incarnation or state.phase is not phase:
            return None
        return state

    def _reset_by_policy(self, state: PartitionState, otherwise: TrioqError) -> None:
        timestamp = RESET_TIMESTAMPS.get(self.settings.auto_offset_reset)
        state.jump(PositionPhase.RESETTING)
        if timestamp is None:
            self.fail(state, otherwise)
        else:
            state.reset_timestamp = timestamp

    def _drop_buffer(self, state: PartitionState) -> None:
        self.buffered_bytes -= state.buffered_bytes
        state.batches.clear()
        state.buffered_bytes = 0


def _nowhere(partition: TopicPartition) -> str:
    return (
        f"{partition} has no committed offset, and auto_offset_reset is 'error': seek to where to "
        f"start, or set it to 'earliest' or 'latest'"
    )
