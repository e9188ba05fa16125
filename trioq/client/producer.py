"""The producer as users see it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import anyio
import anyio.lowlevel

from trioq._native.batch_builder import BatchBuilder
from trioq._native.send_path import Delivery, SendPath, now_ms
from trioq.client import forking
from trioq.client.accumulator_state import AccumulatorState
from trioq.client.idempotence_state import IdempotenceState
from trioq.client.producer_batch import ProducerBatch, Split, own_copy
from trioq.client.producer_settings import ProducerSettings
from trioq.client.sender import Sender
from trioq.client.settlement import Settlement
from trioq.client.tasks import BackgroundTasks
from trioq.client.unrouted import NewRecord
from trioq.errors import BufferFull, ClientClosed, ClientForked, ClientUsageError, TrioqError
from trioq.types import RecordMetadata

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeVar

    from trioq.client.cluster import Cluster
    from trioq.client.unrouted import Headers

    K = TypeVar("K", default=Buffer | None)
    V = TypeVar("V", default=Buffer | None)

_PIECE_RECORDS: Final = 10_000
"""How many records of an iterator `send_many` takes at a time."""
_REST_S: Final = 0.001
"""How long `send_many` may keep the event loop from everybody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerStatistics:
    """A producer's counts at one moment."""

    records_written: int
    """Acknowledged, or with acks=0 sent."""
    records_failed: int
    batches_written: int
    batches_failed: int
    requests: int
    retries: int
    """Batches that had to be sent again."""
    splits: int
    """Batches that were larger than the broker takes."""
    epoch_bumps: int
    buffered_bytes: int
    """Memory that unsettled records take."""
    batches_in_flight: int


class Deliveries:
    """What becomes of the records of one `send_many`: await it until all are written."""

    __slots__ = ("_batches", "_single", "count")

    def __init__(self, count: int, batches: list[ProducerBatch], single: list[Delivery]) -> None:
        self.count = count
        """How many records."""
        self._batches = batches
        self._single = single

    def __await__(self) -> Generator[Any, Any, int]:
        return self._wait().__await__()

    async def _wait(self) -> int:
        """The number of records; raises what kept the first of those that failed from being
        written, once all are settled.
        """
        failure: TrioqError | None = None
        for delivery in self._single:
            try:
                await delivery
            except TrioqError as error:
                failure = failure or error
        batches = list(self._batches)
        while batches:
            batch = batches.pop()
            batch.is_awaited = True
            await batch.wait()
            outcome = batch.outcome
            if isinstance(outcome, Split):
                batches.extend(part for _, part in outcome.parts)
            elif isinstance(outcome, TrioqError):
                failure = failure or own_copy(outcome)
        if failure is not None:
            raise failure
        return self.count


class Producer(SendPath["K", "V"]):
    """Sends records; made by `client.producer(...)`, used in an `async with` block.

    `send_nowait` (see SendPath) queues a record; `send` waits for its acknowledgement too.
    It is for one event loop and its thread. Leaving the block flushes, unless it is left by
    cancellation. A record whose call was cancelled, and one whose delivery timed out, may have
    been written.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: ProducerSettings,
        *,
        key_serializer: Callable[[K], Buffer | None] | None = None,
        value_serializer: Callable[[V], Buffer | None] | None = None,
    ) -> None:
        super().__init__(
            self._send_slowly, key_serializer=key_serializer, value_serializer=value_serializer
        )
        self.settings = settings
        self._cluster = cluster
        self._exit: AsyncExitStack | None = None
        self._refusal: TrioqError | None = ClientClosed(
            "the producer is not open: use it inside of `async with client.producer() as producer:`"
        )
        self._idempotence = IdempotenceState() if settings.is_idempotent else None
        self._accumulator = AccumulatorState(
            settings,
            self.routes,
            on_ready=self._signal,
            on_new_topic=self._resolve,
            on_room=self._freed,
        )
        self._settlement = Settlement(
            self._accumulator,
            self._idempotence,
            retry_delay_s=lambda attempts: cluster.backoff.delay_s(attempts, random.random()),  # noqa: S311
            delivery_timeout_ms=settings.delivery_timeout_ms,
        )
        self._sender: Sender | None = None
        self._room = anyio.Event()

    def _signal(self) -> None:
        if self._sender is not None:
            self._sender.signal()

    def _resolve(self, topic: str) -> None:
        assert self._sender is not None
        self._sender.resolve(topic)

    # ---- life -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._exit is not None:
            raise ClientClosed("a producer is entered once; call client.producer() for another")
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(BackgroundTasks())
            self._sender = Sender(
                self._cluster,
                self.settings,
                self._accumulator,
                self._idempotence,
                self._settlement,
                tasks,
            )
            self._sender.start()
            self._exit = stack.pop_all()
        self._refusal = None
        forking.guard(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._exit is not None
        async with self._exit:
            try:
                if error is None:
                    await self.flush()
                elif isinstance(error, Exception):
                    await self._settle_all()
            finally:
                forking.release(self)
                closed = ClientClosed("the producer was closed when its `async with` block ended")
                self._settlement.fail_all(closed)
                self._refuse(closed)
        return None

    def refuse_from_now_on(self, error: ClientForked) -> None:
        """For a child process: every later use raises `error`."""
        self._refuse(error)

    def _refuse(self, error: TrioqError) -> None:
        self._refusal = error
        self.routes.clear()

    # ---- records ----------------------------------------------------------------------

    def _send_slowly(
        self,
        topic: str,
        value: Buffer | None,
        key: Buffer | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int,
    ) -> Delivery:
        refusal = self._refusal or (self._sender.fatal if self._sender is not None else None)
        if refusal is not None:
            raise own_copy(refusal)
        record = NewRecord(topic, value, key, headers, partition, timestamp_ms)
        return self._accumulator.append(record, monotonic())

    async def send(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Send a record and wait until it is acknowledged; where it was written.

        Arguments as of `send_nowait`. Waits up to `max_block_ms` for room in the buffer, then
        until the acknowledgement or `delivery_timeout_ms`. Raises BufferFull, RecordTooLarge,
        DeliveryTimeout, the broker's KafkaError, ClientClosed, ClientForked. A cancelled call
        may have been, or may yet be, carried out.
        """
        attempt = partial(
            self.send_nowait,
            topic,
            value,
            key=key,
            headers=headers,
            partition=partition,
            timestamp_ms=timestamp_ms,
        )
        try:
            delivery = attempt()
        except BufferFull:
            delivery = await self._once_there_is_room(attempt)
        return await delivery

    async def send_many(
        self,
        topic: str,
        values: Iterable[V | None],
        *,
        keys: Sequence[K | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Deliveries:
        """Queue many records, waiting for room as `send` does; what becomes of them.

        The fastest way to send. `keys` has one key for each of `values`, which must be a
        sequence then. Returns when all are queued: await the result for their acknowledgement,
        or ignore it. Raises as `send_nowait`, after the records before were queued; cancellation
        leaves those that were queued to be sent.
        """
        items: Sequence[V | None] | None = values if isinstance(values, (list, tuple)) else None
        if keys is not None and (items is None or len(keys) != len(items)):
            raise ClientUsageError("keys need a list of values, and one for each of them")
        touched: dict[BatchBuilder, None] = {}
        single: list[Delivery] = []
        count = 0
        if items is not None:
            await self._queue(topic, items, keys, partition, timestamp_ms, touched, single)
            count = len(items)
        else:
            rest = iter(values)
            while piece := list(itertools.islice(rest, _PIECE_RECORDS)):
                await self._queue(topic, piece, None, partition, timestamp_ms, touched, single)
                count += len(piece)
        return Deliveries(count, cast("list[ProducerBatch]", list(touched)), single)

    async def _queue(
        self,
        topic: str,
        values: Sequence[V | None],
        keys: Sequence[K | None] | None,
        partition: int | None,
        timestamp_ms: int | None,
        touched: dict[BatchBuilder, None],
        single: list[Delivery],
    ) -> None:
        index = 0
        rested_s = monotonic()
        await anyio.lowlevel.checkpoint()
        while True:
            timestamp = now_ms() if timestamp_ms is None else timestamp_ms
            index = self.append_values(topic, values, keys, timestamp, index, touched, partition)
            if index >= len(values):
                return
            attempt = partial(
                self.send_nowait,
                topic,
                values[index],
                key=None if keys is None else keys[index],
                partition=partition,
                timestamp_ms=timestamp,
            )
            try:
                delivery = attempt()
            except BufferFull:
                delivery = await self._once_there_is_room(attempt)
            index += 1
            if isinstance(delivery.batch, ProducerBatch):
                touched[delivery.batch] = None
            else:
                single.append(delivery)
            if monotonic() - rested_s > _REST_S:
                await anyio.lowlevel.checkpoint()
                rested_s = monotonic()

    async def _once_there_is_room(self, attempt: Callable[[], Delivery]) -> Delivery:
        full = BufferFull()
        with anyio.move_on_after(self.settings.max_block_ms / 1000):
            while True:
                room = self._room
                try:
                    return attempt()
                except BufferFull as error:
                    full = error
                await room.wait()
        raise full

    def _freed(self) -> None:
        if self._accumulator.is_starved:
            room, self._room = self._room, anyio.Event()
            room.set()

    async def flush(self) -> None:
        """Send everything that is queued and wait until it is settled.

        Raises the first failure, since the last flush, of records that nobody was waiting for.
        """
        if self._refusal is not None:
            raise own_copy(self._refusal)
        await self._settle_all()
        failure = self._settlement.take_failure()
        if failure is not None:
            raise own_copy(failure)

    async def _settle_all(self) -> None:
        accumulator = self._accumulator
        accumulator.flushes += 1
        self._signal()
        try:
            for unrouted in list(accumulator.unrouted.values()):
                await unrouted.wait()
            batches = accumulator.unsettled()
            while batches:
                batch = batches.pop()
                await batch.wait()
                if isinstance(batch.outcome, Split):
                    batches.extend(part for _, part in batch.outcome.parts)
        finally:
            accumulator.flushes -= 1

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; it may be created. Raises as Metadata.topic does."""
        info = await self._cluster.metadata.topic(topic, may_create=True)
        return len(info.partitions)

    def statistics(self) -> ProducerStatistics:
        """Counts as of now."""
        counts = self._settlement.counts
        idempotence = self._idempotence
        return ProducerStatistics(
            records_written=counts.records_written,
            records_failed=counts.records_failed,
            batches_written=counts.batches_written,
            batches_failed=counts.batches_failed,
            requests=counts.requests,
            retries=counts.retries,
            splits=counts.splits,
            epoch_bumps=0 if idempotence is None else idempotence.epoch_bumps,
            buffered_bytes=self._accumulator.used_bytes,
            batches_in_flight=sum(len(queue.in_flight) for queue in self._accumulator.active),
        )
