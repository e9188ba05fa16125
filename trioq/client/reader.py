"""Handing records to the user: what they hold, what they have processed, when they are stopped.

The user is one task. It holds what it was given last until it asks for the next; meanwhile
rebalances wait for it. Handing out a record of an opened batch awaits nothing: there is a
checkpoint for every millisecond, not for every record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from time import perf_counter
from typing import Any, Final, Generic, NamedTuple

import anyio
import anyio.lowlevel
from typing_extensions import TypeVar

from trioq.client.fetcher_state import FetcherState
from trioq.client.pulse import Pulse
from trioq.errors import ClientUsageError, CommitFailed, InvalidRecord, TrioqError
from trioq.record.fetched import Record, RecordBatchView
from trioq.types import TopicPartition

K = TypeVar("K", default=bytes | None)
V = TypeVar("V", default=bytes | None)

_CHECKPOINT_S: Final = 0.001


class Position(NamedTuple):
    """Where a consumer is in a partition: the next offset, and the epoch of the record before."""

    offset: int
    leader_epoch: int


class Reader(Generic[K, V]):
    """The iterator over records; also gives whole batches. For one task at a time.

    Args:
        on_asked: called when the user asks for more: what it held is processed.
        on_taken: called when room in the buffer became free.
        before_batch: awaited with each batch before any of it is given out.
        eager: call `on_asked` for each record, not just now and then.

    """

    def __init__(
        self,
        state: FetcherState,
        *,
        on_asked: Callable[[], None],
        on_taken: Callable[[], None],
        before_batch: Callable[[RecordBatchView[K, V]], Awaitable[None]] | None = None,
        eager: bool = False,
    ) -> None:
        self.failure: TrioqError | None = None
        """Ends the iteration: raised each time the user asks."""

        self.filled = Pulse()
        """Beaten when there may be something to take, or to raise."""

        self.released = Pulse()
        """Beaten when the user asks for more."""

        self._state = state
        self._on_asked = on_asked
        self._on_taken = on_taken
        self._before_batch = before_batch
        self._eager = eager
        self._batch: RecordBatchView[K, V] | None = None
        self._is_whole = False
        """The batch was given out as one; otherwise record by record."""
        self._is_cleared = False
        """`before_batch` is done."""
        self._is_open = False
        self._records: Iterator[Record[K, V]] = iter(())
        self._current: Record[K, V] | None = None
        self._aside: dict[TopicPartition, tuple[Any, Iterator[Record[K, V]], Any]] = {}
        self._batches_taken = 0
        self._holding = False
        self._asking = False
        self._stops = 0
        self._resumed = anyio.Event()
        self._fast_until_s = 0.0
        self._checkpoint_at_s = 0.0

    # ---- for the user -----------------------------------------------------------------

    def __aiter__(self) -> Reader[K, V]:
        return self

    async def __anext__(self) -> Record[K, V]:
        if perf_counter() < self._fast_until_s:
            for record in self._records:
                self._current = record
                return record
        return await self._next_record()

    async def _next_record(self) -> Record[K, V]:
        self._ask()
        try:
            if self._is_whole:
                self._finish_batch()
            while True:
                await self._breathe()
                if self._batch is None:
                    await self._take()
                    continue
                await self._clear()
                self._open()
                for record in self._records:
                    self._current = record
                    self._holding = True
                    if not self._eager:
                        self._fast_until_s = self._checkpoint_at_s
                    return record
                if self._is_cleared:
                    self._finish_batch()
        finally:
            self._asking = False

    async def next_batch(self) -> RecordBatchView[K, V]:
        """The next batch; what is left of one that was begun record by record is fetched again."""
        self._ask()
        try:
            if self._is_whole:
                self._finish_batch()
            self._give_back_begun()
            while True:
                await self._breathe()
                if self._batch is None:
                    await self._take()
                    continue
                await self._clear()
                batch = self._batch
                if batch is not None and self._is_cleared:
                    self._is_whole = self._holding = True
                    self._state.advance(batch, batch.next_offset)
                    return batch
        finally:
            self._asking = False

    # ---- for the consumer -------------------------------------------------------------

    @property
    def is_holding(self) -> bool:
        """Whether the user has been given something and has not asked for more since."""
        return self._holding

    def mark(self) -> object:
        """A value that stays the same as long as the user holds the same thing."""
        return self._batches_taken, self._current

    def stop(self) -> None:
        """Give nothing more out until `go`, which must follow as often."""
        self._stops += 1
        self._fast_until_s = 0.0

    def go(self) -> None:
        self._stops -= 1
        if not self._stops:
            resumed, self._resumed = self._resumed, anyio.Event()
            resumed.set()

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Give out nothing more of what was taken of these: they are gone, or their position is."""
        for partition in partitions:
            self._aside.pop(partition, None)
        if self._batch is not None and self._partition(self._batch) in partitions:
            self._forget_batch()

    def set_aside(self, partitions: Collection[TopicPartition]) -> None:
        """Keep the records of a batch in hand for when its partition, now paused, is resumed."""
        batch = self._batch
        if batch is None or self._is_whole or self._partition(batch) not in partitions:
            return
        self.sync()
        self._aside[self._partition(batch)] = (batch, self._records, self._current)
        self._forget_batch()

    def sync(self) -> None:
        """Bring the positions of the state up to what was given out."""
        if self._batch is not None and self._current is not None and not self._is_whole:
            self._state.advance(self._batch, self._current.offset + 1)

    def processed(self) -> dict[TopicPartition, Position]:
        """The position of each partition that has one, without what the user holds."""
        self.sync()
        positions = {
            partition: Position(one.position, one.position_epoch)
            for partition, one in self._state.partitions.items()
            if one.position >= 0
        }
        batch = self._batch
        if batch is not None and self._holding:
            offset = batch.start_offset
            if not self._is_whole and self._current is not None:
                offset = self._current.offset
            partition = self._partition(batch)
            if partition in positions:
                positions[partition] = Position(offset, batch.leader_epoch)
        return positions

    def finish(self) -> None:
        """The user is done without an exception: what it holds is processed."""
        self.sync()
        self._holding = False

    # ---- inside -----------------------------------------------------------------------

    def _ask(self) -> None:
        if self._asking:
            raise ClientUsageError(
                "two tasks read from one consumer at the same time; give each its own, or hand "
                "the records of one on through a memory channel"
            )
        self._asking = True
        self._holding = False
        self._fast_until_s = 0.0
        self.released.beat()
        self._on_asked()

    async def _breathe(self) -> None:
        """A checkpoint if the last is a millisecond ago; waits while stopped; raises a failure."""
        if perf_counter() >= self._checkpoint_at_s:
            await anyio.lowlevel.checkpoint()
            self._checkpoint_at_s = perf_counter() + _CHECKPOINT_S
        while self._stops:
            await self._resumed.wait()
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    async def _take(self) -> None:
        """Wait until there is a batch, and have it."""
        while self._batch is None:
            while self._stops:
                await self._resumed.wait()
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            if self._take_up_aside():
                return
            batch = self._state.take()
            if batch is None:
                await self.filled.wait()
                continue
            self._batches_taken += 1
            self._batch = batch
            self._on_taken()

    async def _clear(self) -> None:
        """Do what comes before any of the batch is given out; it may be taken back meanwhile."""
        batch = self._batch
        if batch is None or self._is_cleared:
            return
        if self._before_batch is not None:
            try:
                await self._before_batch(batch)
            except CommitFailed:
                if self._batch is batch:
                    raise
        self._is_cleared = self._batch is batch

    def _open(self) -> None:
        """Make records of the batch; one that cannot be read fails its partition."""
        batch = self._batch
        if batch is None or self._is_open or not self._is_cleared:
            return
        try:
            batch.open()
        except InvalidRecord as error:
            self._forget_batch()
            partition = self._partition(batch)
            state = self._state.partitions[partition]
            self._state.seek(partition, batch.start_offset, batch.leader_epoch)
            self._state.fail(state, error)
            return
        self._records = iter(batch)
        self._is_open = True

    def _take_up_aside(self) -> bool:
        for partition, (batch, records, current) in self._aside.items():
            state = self._state.partitions.get(partition)
            if state is not None and not state.paused:
                del self._aside[partition]
                self._batch, self._records, self._current = batch, records, current
                self._is_cleared = self._is_open = True
                return True
        return False

    def _give_back_begun(self) -> None:
        """Have batches that were begun record by record fetched again from where they are."""
        if self._current is not None:
            self.set_aside([self._partition(self._current.batch)])
        for partition, (batch, _, current) in self._aside.items():
            if current is None:
                self._state.seek(partition, batch.start_offset, batch.leader_epoch)
            else:
                self._state.seek(partition, current.offset + 1, batch.leader_epoch)
        self._aside.clear()

    def _finish_batch(self) -> None:
        if self._batch is not None:
            self._state.advance(self._batch, self._batch.next_offset)
            self._forget_batch()

    def _forget_batch(self) -> None:
        self._batch = None
        self._is_cleared = self._is_open = self._is_whole = False
        self._records = iter(())
        self._current = None
        self._fast_until_s = 0.0

    def _partition(self, batch: RecordBatchView[Any, Any]) -> TopicPartition:
        return TopicPartition(batch.topic, batch.partition)
