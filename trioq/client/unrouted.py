"""Records of a topic whose partitions are not known yet, in their order. Pure but for the event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from trioq._native.send_path import Delivery
from trioq.client.producer_batch import own_copy
from trioq.errors import TrioqError
from trioq.types import RecordMetadata

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Headers = Sequence[tuple[str, Buffer | None]]

HEADER_BYTES: Final = 61
_OVERHEAD_BYTES: Final = 32
"""What a record takes besides its contents, at most."""


class NewRecord(NamedTuple):
    """A record as it was given, serialized."""

    topic: str
    value: Buffer | None
    key: Buffer | None
    headers: Headers
    partition: int | None
    timestamp_ms: int

    def size_bytes(self) -> int:
        """What it takes in a batch, at most. Raises TypeError for what is no record."""
        total = _OVERHEAD_BYTES + _length(self.key) + _length(self.value)
        for name, value in self.headers:
            total += 10 + 4 * len(name) + _length(value)
        return total


def _length(field: Buffer | None) -> int:
    if field is None:
        return 0
    with memoryview(field) as view:
        return view.nbytes


class Failed:
    """Where a delivery points that failed before its record was in any batch."""

    __slots__ = ("_error", "is_awaited")

    def __init__(self, error: TrioqError, *, is_awaited: bool = False) -> None:
        self.is_awaited = is_awaited
        """Somebody was told."""
        self._error = error

    def is_settled(self, _delivery: Delivery) -> bool:
        return True

    async def deliver(self, _delivery: Delivery) -> RecordMetadata:
        self.is_awaited = True
        raise own_copy(self._error)


class Unrouted:
    """The records; `is_awaited` says whether somebody learns what becomes of them."""

    def __init__(self, topic: str, deadline_s: float) -> None:
        self.topic = topic
        self.deadline_s = deadline_s
        self.size_bytes = 0
        self.is_awaited = False
        self._records: list[tuple[NewRecord, Delivery]] = []
        self._ended: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: NewRecord, size_bytes: int) -> Delivery:
        """Keep a record; the delivery will point to its batch."""
        if record.key is not None and not isinstance(record.key, bytes):
            record = record._replace(key=bytes(record.key))
        if record.value is not None and not isinstance(record.value, bytes):
            record = record._replace(value=bytes(record.value))
        delivery = Delivery(self, len(self._records))
        self._records.append((record, delivery))
        self.size_bytes += size_bytes
        return delivery

    def route(self, append: Callable[[NewRecord], Delivery]) -> None:
        """Have each record appended; those that cannot be fail."""
        for record, delivery in self._records:
            try:
                routed = append(record)
            except TrioqError as error:
                delivery.batch = Failed(error)
            except (TypeError, ValueError) as error:
                failure = TrioqError(f"{record.topic}: not a record: {error}")
                delivery.batch = Failed(failure)
            else:
                delivery.batch = routed.batch
                delivery.index = routed.index
        self._end()

    def fail(self, error: TrioqError) -> Failed:
        """Have every record fail; where their deliveries point to now."""
        failed = Failed(error, is_awaited=self.is_awaited)
        for _, delivery in self._records:
            delivery.batch = failed
        self._end()
        return failed

    def _end(self) -> None:
        self._records.clear()
        if self._ended is not None:
            self._ended.set()

    async def wait(self) -> None:
        """Return when every record is in a batch, or has failed."""
        if not self._records:
            return
        if self._ended is None:
            self._ended = anyio.Event()
        await self._ended.wait()

    def is_settled(self, _delivery: Delivery) -> bool:
        return False

    async def deliver(self, delivery: Delivery) -> RecordMetadata:
        """Wait until the record is in a batch, and then for that."""
        self.is_awaited = True
        await self.wait()
        return await delivery
