"""A batch on its way from the first record to the broker's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from trioq.errors import TrioqError
from trioq.record.producing import BatchBuilder
from trioq.types import RecordMetadata

if TYPE_CHECKING:
    from trioq._native.send_path import Delivery

NO_SEQUENCE: Final = -1
_OTHER_SEQUENCE: Final = -2  # equal to none, so that the batch is stamped before it is sent


class ProducerIdentity(NamedTuple):
    """Who a broker takes an idempotent producer for."""

    producer_id: int
    epoch: int


class Written(NamedTuple):
    """The broker has the batch."""

    base_offset: int
    append_time_ms: int


class Split(NamedTuple):
    """The batch was too large; its records are in others: (number of the first, batch)."""

    parts: tuple[tuple[int, ProducerBatch], ...]


Order = tuple[int, ...]
"""A batch's number; parts of a split one are numbered within it: (7, 0) and (7, 1) are in (7,)."""

Outcome = Written | Split | TrioqError


class ProducerBatch(BatchBuilder):
    """Filled as a builder, then `data` with what the broker has to know; settled once.

    Made by `open_batch` or `batch_of`.
    """

    __slots__ = (
        "_settled",
        "attempts",
        "count",
        "data",
        "deadline_s",
        "identity",
        "is_awaited",
        "is_hurried",
        "is_uncertain",
        "last_failure",
        "on_awaited",
        "opened_s",
        "order",
        "outcome",
        "partition",
        "reserved_bytes",
        "sequence",
        "stamped",
        "topic",
    )

    topic: str
    partition: int
    order: Order
    """Place among the partition's batches, by which they are put back for a retry."""
    opened_s: float
    deadline_s: float
    reserved_bytes: int
    """What the batch takes of the producer's buffer."""
    is_awaited: bool
    """Somebody waits or waited for one of its records, and so learns what became of it."""
    is_hurried: bool
    """Somebody waits for it: no lingering."""
    count: int
    """Number of records once it is closed."""
    data: bytearray | None
    """The bytes for the broker, stamped with `stamped`."""
    identity: ProducerIdentity | None
    sequence: int
    """Of the first record; with `identity`, from the moment it was first drained."""
    stamped: tuple[ProducerIdentity | None, int]
    attempts: int
    is_uncertain: bool
    """Sent at least once without an answer: the broker may have it."""
    last_failure: str
    """Why it has to be sent again."""
    outcome: Outcome | None
    on_awaited: Callable[[ProducerBatch], None] | None
    _settled: anyio.Event | None

    def is_settled(self, delivery: Delivery) -> bool:
        """Whether it is known what became of the record of `delivery`."""
        outcome = self.outcome
        if isinstance(outcome, Split):
            return self._moved(delivery, outcome).is_settled(delivery)
        return outcome is not None

    async def deliver(self, delivery: Delivery) -> RecordMetadata:
        """Wait for the outcome of one record; raises what kept it from being written."""
        self.is_awaited = True
        if self.outcome is None:
            await self.wait()
        outcome = self.outcome
        if isinstance(outcome, Written):
            offset = outcome.base_offset
            return RecordMetadata(
                self.topic,
                self.partition,
                offset + delivery.index if offset >= 0 else -1,
                outcome.append_time_ms,
            )
        if isinstance(outcome, Split):
            return await self._moved(delivery, outcome).deliver(delivery)
        assert outcome is not None
        raise own_copy(outcome)

    def _moved(self, delivery: Delivery, split: Split) -> ProducerBatch:
        """Point `delivery` to the part of a split batch that has its record now."""
        start, part = next(pair for pair in reversed(split.parts) if pair[0] <= delivery.index)
        delivery.batch = part
        delivery.index -= start
        return part

    async def wait(self) -> None:
        """Return when it is settled; while somebody waits, the batch does not linger."""
        if self.outcome is not None:
            return
        if self._settled is None:
            self._settled = anyio.Event()
        if self.on_awaited is not None:
            self.on_awaited(self)
        await self._settled.wait()

    def settle(self, outcome: Outcome) -> None:
        """Say what became of the batch, once."""
        assert self.outcome is None, "a batch is settled once"
        self.outcome = outcome
        self.data = None
        if self._settled is not None:
            self._settled.set()


def open_batch(
    topic: str,
    partition: int,
    *,
    order: Order,
    first_bytes: int,
    max_bytes: int,
    now_s: float,
    deadline_s: float,
    buffer: bytearray | None = None,
) -> ProducerBatch:
    """An empty batch that takes records up to `first_bytes` until it is allowed more.

    `buffer` is memory to use, from a batch that was settled.
    """
    batch = ProducerBatch(first_bytes, max_bytes, buffer)
    batch.topic = topic
    batch.partition = partition
    batch.order = order
    batch.opened_s = now_s
    batch.deadline_s = deadline_s
    batch.reserved_bytes = first_bytes
    batch.is_awaited = False
    batch.is_hurried = False
    batch.count = 0
    batch.data = None
    batch.identity = None
    batch.sequence = NO_SEQUENCE
    batch.stamped = (None, NO_SEQUENCE)
    batch.attempts = 0
    batch.is_uncertain = False
    batch.last_failure = "it was not sent"
    batch.outcome = None
    batch.on_awaited = None
    batch._settled = None  # noqa: SLF001  its own constructor
    return batch


def batch_of(parent: ProducerBatch, data: bytearray, count: int, order: Order) -> ProducerBatch:
    """A closed batch with some of the records of `parent`, which was too large."""
    batch = open_batch(
        parent.topic,
        parent.partition,
        order=order,
        first_bytes=0,
        max_bytes=parent.max_bytes,
        now_s=parent.opened_s,
        deadline_s=parent.deadline_s,
    )
    batch.reserved_bytes = len(data)
    batch.data = data
    batch.count = count
    batch.is_awaited = parent.is_awaited
    if parent.identity is not None:
        batch.stamped = (parent.identity, _OTHER_SEQUENCE)
    return batch


def own_copy(error: TrioqError) -> TrioqError:
    """The same error as an exception of its own, so that each that waits has its own traceback."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
