"""What a consumer asks of which broker next, and what it gives out of what came.

Pure. Around it are drivers: one that looks up positions (see PositionState), one per broker that
fetches (`plan`, then trioq.client.fetch_response), and the reader, which takes batches (`take`).
What is fetched ahead of the user is bounded: brokers are asked only while less than
`prefetch_bytes` are held or asked for, and for a partition only while it holds less than half of
its share. As a broker gives one whole batch even where that is more than was asked for, a batch
per broker may come on top. Bytes are as fetched, before decompression.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from trioq.client.fetch_session import FetchSession, SessionPart, Wanted
from trioq.client.partition_state import NO_NODE, PartitionState, PositionPhase
from trioq.client.position_state import FetchSettings, PositionState
from trioq.record.fetched import RecordBatchView
from trioq.types import TopicPartition
from trioq.wire.messages.fetch import FetchRequest


class FetchPlan(NamedTuple):
    """One Fetch request to one broker, and for which incarnations it was made."""

    node_id: int
    request: FetchRequest
    session: SessionPart
    wanted: Mapping[TopicPartition, Wanted]
    incarnations: Mapping[TopicPartition, int]
    reserved_bytes: int


class FetcherState(PositionState):
    """The positions of one consumer and what was fetched from them; owned by its loop."""

    def __init__(self, settings: FetchSettings, *, has_group: bool) -> None:
        super().__init__(settings, has_group=has_group)
        self.reserved_bytes = 0
        """What requests under way may bring."""

        self.room_made = False
        """`take` made room where there was none; for the driver, who resets it."""

        self._sessions: dict[int, FetchSession] = {}
        self._turn: dict[int, TopicPartition] = {}

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
