"""The consumer: records of topics or partitions, alone or in a group."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Generic, Self

import anyio

from trioq.client.cluster import Cluster
from trioq.client.consumer_parts import ConsumerParts, ConsumerStatistics, Deserializer
from trioq.client.consumer_settings import ConsumerSettings
from trioq.client.group_calls import OffsetAndMetadata
from trioq.client.list_offsets import OffsetAndTimestamp, offsets_at
from trioq.client.partition_state import EARLIEST, LATEST
from trioq.client.reader import K, Reader, V
from trioq.client.tasks import BackgroundTasks
from trioq.errors import ClientClosed, ClientUsageError
from trioq.record.fetched import Record, RecordBatchView
from trioq.types import TopicPartition

_HURRY_MS: Final = 1_000
"""How long leaving may take when the block is cancelled."""

Partition = TopicPartition | tuple[str, int]
"""A partition as users may name it."""


class Consumer(Generic[K, V]):
    """Reads records; made by `Client.consumer`, used in `async with`, by one task at a time.

    Its tasks live in the block. `async for record in consumer` gives one record after the other,
    `async for batch in consumer.batches()` whole batches. What came before the record (the batch)
    in hand is processed; that one is when the next is asked for, or when the block is left without
    an exception. A rebalance waits until the user asks for more. Errors of single partitions
    (corrupt batch, offset out of range) come out of the iteration, again each time, until `seek`.
    An exception in a listener ends the block.
    """

    def __init__(
        self,
        cluster: Callable[[], Cluster],
        topics: Iterable[str] = (),
        pattern: str | re.Pattern[str] | None = None,
        *,
        settings: ConsumerSettings,
        key_deserializer: Deserializer = None,
        value_deserializer: Deserializer = None,
    ) -> None:
        self.settings = settings
        self._get_cluster = cluster
        self._first_topics = tuple(topics)
        self._first_pattern = pattern
        self._deserializers = key_deserializer, value_deserializer
        self._parts: ConsumerParts[K, V] | None = None
        self._tasks: BackgroundTasks | None = None
        self._closed = False

    # ---- life -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._parts is not None or self._closed:
            raise ClientClosed("a consumer is entered once; ask the client for another")
        cluster = self._get_cluster()
        tasks = BackgroundTasks()
        await tasks.__aenter__()
        parts: ConsumerParts[K, V]
        parts = ConsumerParts(cluster, tasks, self.settings, self._deserializers)
        self._tasks, self._parts = tasks, parts
        try:
            parts.start()
            if self._first_topics or self._first_pattern is not None:
                self.subscribe(*self._first_topics, pattern=self._first_pattern)
        except BaseException:
            await tasks.__aexit__(None, None, None)
            self._parts, self._closed = None, True
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        parts, tasks = self._parts, self._tasks
        assert parts is not None
        assert tasks is not None
        try:
            return await tasks.__aexit__(kind, error, traceback)
        finally:
            is_passing = error is None or isinstance(error, Exception)
            limit_ms = self.settings.close_timeout_ms
            if not is_passing:  # cancelled, or the process is interrupted
                limit_ms = min(limit_ms, _HURRY_MS)
            with anyio.move_on_after(limit_ms / 1000, shield=True):
                await parts.close(error)
            self._parts, self._closed = None, True

    def _open(self) -> ConsumerParts[K, V]:
        self._get_cluster()
        if self._parts is None:
            raise ClientClosed(
                "the consumer is not open: use it inside of `async with client.consumer(...)`"
            )
        return self._parts

    # ---- records ----------------------------------------------------------------------

    def __aiter__(self) -> Reader[K, V]:
        return self._open().reader

    async def __anext__(self) -> Record[K, V]:
        """The next record, when there is one; cancelling loses none."""
        return await self._open().reader.__anext__()

    def batches(self) -> Batches[K, V]:
        """The same, a batch at a time: records become objects when they are touched."""
        return Batches(self._open().reader)

    # ---- what is read -----------------------------------------------------------------

    def subscribe(self, *topics: str, pattern: str | re.Pattern[str] | None = None) -> None:
        """Read these topics from now on, or those whose whole name `pattern` matches.

        With a group, its members share the partitions; without, all of them are read here.
        """
        parts = self._open()
        if bool(topics) == (pattern is not None):
            raise ClientUsageError("subscribe to topics by name, or by one pattern")
        if parts.assigned_by_user:
            raise ClientUsageError("partitions were assigned: unsubscribe() before subscribing")
        try:
            compiled = re.compile(pattern) if pattern is not None else None
        except re.error as error:
            raise ClientUsageError(f"pattern {pattern!r}: {error}") from error
        parts.subscription.subscribe(topics, compiled)

    async def unsubscribe(self) -> None:
        """Read nothing, and leave the group; what was processed is committed as the mode says."""
        await self._open().unsubscribe()

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Read exactly these partitions, without sharing them with a group's other members.

        Committed offsets of the group, if there is one, say where to start.
        """
        parts = self._open()
        if parts.subscription.names is not None or parts.subscription.pattern is not None:
            raise ClientUsageError("topics are subscribed to: unsubscribe() before assigning")
        parts.assign_by_user(frozenset(TopicPartition(*one) for one in partitions))

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read at the moment."""
        return frozenset(self._open().state.partitions)

    @property
    def subscription(self) -> frozenset[str]:
        """The topics that are subscribed to at the moment; for a pattern, those that match."""
        return self._open().subscribed

    def pause(self, *partitions: Partition) -> None:
        """Give out no records of these until `resume`; what was fetched is kept."""
        parts = self._open()
        named = parts.read_now(partitions)
        parts.reader.set_aside(named)
        parts.state.pause(named)

    def resume(self, *partitions: Partition) -> None:
        """Go on with these."""
        parts = self._open()
        parts.state.resume(parts.read_now(partitions))
        parts.wake_all()

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """Partitions that are paused."""
        states = self._open().state.partitions
        return frozenset(partition for partition, state in states.items() if state.paused)

    # ---- positions --------------------------------------------------------------------

    def seek(self, partition: Partition, offset: int) -> None:
        """Give out the record at `offset` of `partition` next."""
        parts = self._open()
        (named,) = parts.read_now([partition])
        if offset < 0:
            raise ClientUsageError(f"offset {offset}: the first one is 0")
        parts.reader.drop([named])
        parts.state.seek(named, offset)
        parts.wake_all()

    def seek_to_beginning(self, *partitions: Partition) -> None:
        """Go back to the first record that there is; of all partitions if none is named."""
        self._reset(partitions, EARLIEST)

    def seek_to_end(self, *partitions: Partition) -> None:
        """Go on with the next record that is written; of all partitions if none is named."""
        self._reset(partitions, LATEST)

    def _reset(self, partitions: Iterable[Partition], timestamp: int) -> None:
        parts = self._open()
        named = parts.read_now(partitions) or list(parts.state.partitions)
        parts.reader.drop(named)
        for partition in named:
            parts.state.reset(partition, timestamp)
        parts.wake_all()

    async def position(self, partition: Partition) -> int:
        """The offset of the next record to be given out; waits until that is decided."""
        parts = self._open()
        (named,) = parts.read_now([partition])
        while True:
            parts.reader.sync()
            state = parts.state.partitions.get(named)
            if state is None:
                raise ClientUsageError(f"{named} is not assigned (any more)")
            if state.error is not None:
                raise state.error
            if state.position >= 0:
                return state.position
            await parts.found.wait()

    async def committed(
        self, partitions: Iterable[Partition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The group's committed offsets of these, without those that it has none of."""
        return await self._open().committed([TopicPartition(*one) for one in partitions])

    async def commit(
        self, offsets: Mapping[Partition, int | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit these offsets (of the next record to read), or everything given out until now.

        The record in hand counts as given out. Raises CommitFailed where the group has moved on:
        what was read since the last commit is then read again, here or elsewhere.
        """
        parts = self._open()
        if parts.commits is None:
            raise ClientUsageError("a consumer without a group has nothing to commit to")
        if offsets is None:
            parts.reader.sync()
            positions = {
                partition: OffsetAndMetadata(state.position, state.position_epoch)
                for partition, state in parts.state.partitions.items()
                if state.position >= 0
            }
        else:
            positions = {
                TopicPartition(*partition): (
                    one if isinstance(one, OffsetAndMetadata) else OffsetAndMetadata(one)
                )
                for partition, one in offsets.items()
            }
        if positions:
            await parts.commits.commit(positions)

    async def offsets_for_times(
        self, timestamps: Mapping[Partition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after each timestamp (ms); None where there is none that late."""
        found = await self._offsets_at(timestamps)
        return {partition: one if one.offset >= 0 else None for partition, one in found.items()}

    async def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offset of the first record of each that is still there."""
        found = await self._offsets_at(dict.fromkeys(partitions, EARLIEST))
        return {partition: one.offset for partition, one in found.items()}

    async def end_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offset behind the last record of each; read_committed: behind the last stable one."""
        found = await self._offsets_at(dict.fromkeys(partitions, LATEST))
        return {partition: one.offset for partition, one in found.items()}

    async def _offsets_at(
        self, timestamps: Mapping[Partition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        return await offsets_at(
            self._open().cluster,
            {TopicPartition(*partition): one for partition, one in timestamps.items()},
            read_committed=self.settings.isolation == "read_committed",
        )

    def statistics(self) -> ConsumerStatistics:
        """Counts as of now."""
        return self._open().statistics()


class Batches(Generic[K, V]):
    """The iterator over a consumer's batches."""

    def __init__(self, reader: Reader[K, V]) -> None:
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RecordBatchView[K, V]:
        return await self._reader.next_batch()
