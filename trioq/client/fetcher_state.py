"""Which partitions a consumer reads, from where, and what it asks of which broker next.

Pure. Around it are drivers: one that looks up positions (`awaiting_*`), one per broker that
fetches (`plan`, then `fetched` or `fetch_failed`), and the consumer, which takes batches
(`take`). What is fetched ahead of the user is bounded: brokers are asked only while less than
`prefetch_bytes` are held or asked for, and for a partition only while it holds less than half of
its share. As a broker gives one whole batch even where that is more than was asked for, a batch
per broker may come on top. Bytes are as fetched, before decompression.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from trioq.client.fetch_session import FetchSession, SessionPart, Wanted
from trioq.client.partition_state import (
    EARLIEST,
    LATEST,
    NO_EPOCH,
    NO_NODE,
    PartitionState,
    PositionPhase,
)
from trioq.errors import (
    NoCommittedOffset,
    OffsetOutOfRange,
    TrioqError,
)
from trioq.record.fetched import RecordBatchView
from trioq.types import TopicId, TopicPartition
from trioq.wire.messages.fetch import FetchRequest

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


class FetchPlan(NamedTuple):
    """One Fetch request to one broker, and for which incarnations it was made."""

    node_id: int
    request: FetchRequest
    session: SessionPart
    wanted: Mapping[TopicPartition, Wanted]
    incarnations: Mapping[TopicPartition, int]
    reserved_bytes: int


class OffsetQuery(NamedTuple):
    """A question about one partition that is only good for its present incarnation."""

    partition: TopicPartition
    incarnation: int
    node_id: int
    leader_epoch: int
    timestamp: int = LATEST
    epoch: int = NO_EPOCH


class FetcherState:
    """The positions of one consumer; owned by its loop."""

    def __init__(self, settings: FetchSettings, *, has_group: bool) -> None:
        self.settings = settings
        self.partitions: dict[TopicPartition, PartitionState] = {}
        self.buffered_bytes = 0
        self.reserved_bytes = 0
        """What requests under way may bring."""

        self.room_made = False
        """`take` made room where there was none; for the driver, who resets it."""

        self._has_group = has_group
        self._ready: deque[TopicPartition] = deque()
        self._sessions: dict[int, FetchSession] = {}
        self._turn: dict[int, TopicPartition] = {}

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

    # ---- fetching ---------------------------------------------------------------------

    def nodes(self, now_s: float) -> set[int]:
        """The brokers that something is to be fetched from."""
        return {
            node_id
            for state in self.partitions.values()
            if state.phase is PositionPhase.FETCHING
            and not state.paused
            and (node_id := state.read_node(now_s)) != NO_NODE
        }

    def plan(self, node_id: int, now_s: float) -> FetchPlan | None:
        """The next request to a broker; None if there is nothing to ask, or no room for it."""
        settings = self.settings
        room = self._room()
        if room <= 0:
            return None
        states = self._fetchable(node_id, now_s)
        if not states:
            return None
        wanted = {
            state.partition: Wanted(
                state.topic_id, state.fetch_offset, state.leader_epoch, state.max_bytes
            )
            for state in states
        }
        session = self._sessions.setdefault(node_id, FetchSession())
        part = session.request(wanted)
        reserved = min(room, settings.max_bytes, sum(one.max_bytes for one in wanted.values()))
        self.reserved_bytes += reserved
        request = FetchRequest(
            max_wait_ms=settings.max_wait_ms,
            min_bytes=settings.min_bytes,
            max_bytes=reserved,
            isolation_level=1 if settings.read_committed else 0,
            session_id=part.session_id,
            session_epoch=part.epoch,
            topics=part.topics,
            forgotten_topics_data=part.forgotten,
            rack_id=settings.rack,
        )
        incarnations = {state.partition: state.incarnation for state in states}
        return FetchPlan(node_id, request, part, wanted, incarnations, reserved)

    def session(self, node_id: int) -> FetchSession:
        """The fetch session with a broker."""
        return self._sessions.setdefault(node_id, FetchSession())

    def wake_at_s(self, now_s: float) -> float:
        """When a backoff or the preference for a replica ends that something waits for."""
        times = [state.retry_at_s for state in self.partitions.values() if state.retry_at_s > now_s]
        return min(times, default=NEVER_S)

    def release(self, plan: FetchPlan) -> None:
        """The request of `plan` is over, whatever came of it."""
        self.reserved_bytes -= plan.reserved_bytes

    def asked(self, plan: FetchPlan, partition: TopicPartition) -> PartitionState | None:
        """The state of a partition, if it still waits for exactly what `plan` asked for."""
        state = self.partitions.get(partition)
        wanted = plan.wanted.get(partition)
        if (
            state is None
            or wanted is None
            or state.phase is not PositionPhase.FETCHING
            or state.incarnation != plan.incarnations[partition]
            or state.fetch_offset != wanted.offset
        ):
            return None
        return state

    def put(
        self,
        state: PartitionState,
        batches: Collection[RecordBatchView[Any, Any]],
        next_offset: int,
    ) -> None:
        """Keep what was fetched of a partition; `next_offset` is where the next fetch starts."""
        if batches:
            size_bytes = sum(batch.size_bytes for batch in batches)
            if not state.batches and not state.paused and state.partition not in self._ready:
                self._ready.append(state.partition)
            state.batches.extend(batches)
            state.buffered_bytes += size_bytes
            self.buffered_bytes += size_bytes
            for batch in batches:
                state.fetch_epoch = batch.leader_epoch
        elif state.position == state.fetch_offset:
            state.position = next_offset  # nothing for the user: commits go behind it
        state.fetch_offset = next_offset
        state.corrupt_fetches = 0

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

    # ---- taking -----------------------------------------------------------------------

    def take(self) -> RecordBatchView[Any, Any] | None:
        """The next batch for the user; None if nothing is there that may be given out.

        Partitions take turns, with all that one has fetched at a time. The position is where it
        was; `advance` moves it. Raises the error of a partition that can go no further, again
        each time until it is mended.
        """
        for _ in range(len(self._ready)):
            partition = self._ready[0]
            state = self.partitions.get(partition)
            if state is None or state.paused or not (state.batches or state.error):
                self._ready.popleft()
                continue
            if not state.batches:
                self._ready.rotate(-1)
                assert state.error is not None
                raise state.error
            batch = state.batches.popleft()
            share = self._share()
            was_full = state.buffered_bytes >= share or self._room() <= 0
            state.buffered_bytes -= batch.size_bytes
            self.buffered_bytes -= batch.size_bytes
            if was_full and state.buffered_bytes < share and self._room() > 0:
                self.room_made = True
            if not state.batches:
                self._ready.popleft()
                if state.error is not None:
                    self._ready.append(partition)
            return batch
        return None

    def advance(self, batch: RecordBatchView[Any, Any], offset: int) -> None:
        """The user has been given everything before `offset`, which `batch` has or ends at."""
        state = self.partitions.get(TopicPartition(batch.topic, batch.partition))
        if state is None or state.position > offset:
            return
        state.position, state.position_epoch = offset, batch.leader_epoch
        if offset == batch.next_offset and not state.batches:
            state.position = state.fetch_offset  # with what came behind it and is not for the user

    def retry(self, partition: TopicPartition) -> None:
        """Try again what failed; for errors that may pass."""
        state = self.partitions[partition]
        if state.phase is PositionPhase.FAILED:
            state.error = None
            state.phase = (
                PositionPhase.UNKNOWN if state.fetch_offset < 0 else PositionPhase.FETCHING
            )

    # ---- inside -----------------------------------------------------------------------

    def _room(self) -> int:
        return self.settings.prefetch_bytes - self.buffered_bytes - self.reserved_bytes

    def _share(self) -> int:
        """What a partition may hold so that more of it is asked for."""
        return max(self.settings.prefetch_bytes // max(len(self.partitions), 1) // 2, 1)

    def _fetchable(self, node_id: int, now_s: float) -> list[PartitionState]:
        """Partitions to ask a broker for, starting behind the one that came first last time."""
        share = self._share()
        states = [
            state
            for state in self.partitions.values()
            if state.phase is PositionPhase.FETCHING
            and not state.paused
            and state.retry_at_s <= now_s
            and state.buffered_bytes < share
            and state.read_node(now_s) == node_id
        ]
        last = self._turn.get(node_id)
        for index, state in enumerate(states):
            if state.partition == last:
                states = states[index + 1 :] + states[: index + 1]
                break
        if states:
            self._turn[node_id] = states[0].partition
        return states

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
