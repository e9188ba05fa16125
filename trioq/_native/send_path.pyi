"""The part of a producer that runs for every record.

What is usual (a known topic, an open batch with room) is done here; everything else is handed to
the `slow` function of the path, which opens batches and knows the rules.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, Protocol, final

from typing_extensions import Buffer, TypeVar

from trioq._native.batch_builder import BatchBuilder
from trioq.types import RecordMetadata

_K = TypeVar("_K", default=Buffer | None)
_V = TypeVar("_V", default=Buffer | None)

class Deliverable(Protocol):
    """What a delivery points to: knows when and how its records end."""

    async def deliver(self, delivery: Delivery) -> RecordMetadata: ...
    def is_settled(self, delivery: Delivery) -> bool: ...

@final
class Delivery:
    """What becomes of one record: await it for partition and offset, or ignore it.

    Awaiting raises what kept the record from being written. It may be awaited more than once,
    and by several tasks.
    """

    batch: Any
    index: int

    def __init__(self, batch: Deliverable, index: int) -> None: ...
    def __await__(self) -> Generator[Any, Any, RecordMetadata]: ...
    @property
    def is_done(self) -> bool:
        """Whether awaiting would return or raise at once."""

class TopicRoute:
    """The open batches of one topic; `batches` has one entry for each partition.

    `sticky` is the partition for records without a key, -1 while none is chosen. With
    `hashes_keys` the others go by murmur2; else every one of them is for the slow function.
    """

    batches: list[BatchBuilder | None]
    sticky: int
    hashes_keys: bool

    def __init__(self, partition_count: int, *, hashes_keys: bool) -> None: ...

class SendPath(Generic[_K, _V]):
    """Base of the producer: `send_nowait`, and what `send_many` does without waiting."""

    routes: dict[str, TopicRoute]
    """By topic; emptied when nothing may be sent any more."""

    def __init__(
        self,
        slow: Callable[
            [
                str,
                Buffer | None,
                Buffer | None,
                Sequence[tuple[str, Buffer | None]],
                int | None,
                int,
            ],
            Delivery,
        ],
        *,
        key_serializer: Callable[[_K], Buffer | None] | None = None,
        value_serializer: Callable[[_V], Buffer | None] | None = None,
    ) -> None:
        """`slow` is called with topic, value, key, headers, partition, timestamp."""

    def send_nowait(
        self,
        topic: str,
        value: _V | None = None,
        *,
        key: _K | None = None,
        headers: Sequence[tuple[str, Buffer | None]] = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Queue a record; the delivery tells what becomes of it.

        Args:
            topic: created by the broker if it does not exist and the broker is set up so.
            value: bytes, or what `value_serializer` takes; None is a null value.
            key: bytes, or what `key_serializer` takes; equal keys go to the same partition.
            headers: pairs of a name and bytes or None.
            partition: overrules the partitioner.
            timestamp_ms: milliseconds since the Unix epoch; the time of the call by default.

        Raises BufferFull when the buffer has no room (let the event loop run, then try again),
        RecordTooLarge, TypeError for what is no record, ClientClosed, ClientForked. Nothing was
        queued then.

        """

    def append_values(
        self,
        topic: str,
        values: Sequence[_V | None],
        keys: Sequence[_K | None] | None,
        timestamp_ms: int,
        start: int,
        touched: dict[BatchBuilder, None],
        partition: int | None = None,
    ) -> int:
        """Append `values[start:]` while that takes nothing slow; the index of the first left out.

        Batches that took records are put into `touched`. Raises TypeError for what is no record
        and whatever a serializer raises: those before it were appended.
        """

def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
