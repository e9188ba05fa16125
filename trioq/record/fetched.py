"""Reading the records of a Fetch response, as consumers do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from trioq._native.batch_read import read_batches
from trioq._native.record_view import Record, RecordBatchView
from trioq.record.compression import MAX_DECOMPRESSED_BYTES, Codec, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer

__all__ = ["FetchedRecords", "Record", "RecordBatchView", "read_fetched"]


class FetchedRecords(NamedTuple):
    """What one partition of a Fetch response holds."""

    batches: list[RecordBatchView[Any, Any]]
    """In order; those without a record to show are left out."""
    next_offset: int
    """Where the next fetch starts: behind every whole batch, shown or not."""
    is_truncated: bool
    """A batch at the end is cut off. Alone (nothing shown, `next_offset` as asked), it is larger
    than the fetch allowed."""


def read_fetched(
    records: Buffer | None,
    *,
    topic: str,
    partition: int,
    start_offset: int,
    aborted: Iterable[tuple[int, int]] | None = None,
    check_crc: bool = True,
    key_deserializer: Callable[[bytes], object] | None = None,
    value_deserializer: Callable[[bytes], object] | None = None,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
) -> FetchedRecords:
    """The batches in the record bytes of one partition, from `start_offset` on.

    `records` is kept by the views and must not change while one is alive. Headers and CRCs are
    checked now, records when their batch is opened; compressed ones are decompressed then, within
    `max_bytes` each. Control batches are left out, and, given `aborted` (the response's (producer
    id, first offset) pairs; read_committed), the records of aborted transactions.

    Raises CorruptMessage, UnsupportedForMessageFormat or UnsupportedCompressionType, with topic,
    partition and offset, where the first batch that would bring the reader forward cannot be
    read. Where a later one cannot, those before it are given, and the next fetch meets it first.
    """
    if records is None:
        return FetchedRecords([], start_offset, is_truncated=False)
    found = read_batches(
        records,
        start_offset,
        topic=topic,
        partition=partition,
        decompress=_decompress
        if max_bytes == MAX_DECOMPRESSED_BYTES
        else partial(_decompress, max_bytes=max_bytes),
        aborted=aborted,
        check_crc=check_crc,
        key_deserializer=key_deserializer,
        value_deserializer=value_deserializer,
    )
    return FetchedRecords(*found)


def _decompress(codec: int, data: memoryview, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    return decompress(Codec(codec), data, max_bytes=max_bytes)
