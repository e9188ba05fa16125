"""Reading the batches of a Fetch response, for consumers."""

from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import Buffer

from trioq._native.record_view import RecordBatchView

def read_batches(
    data: Buffer,
    start_offset: int,
    *,
    topic: str,
    partition: int,
    decompress: Callable[[int, memoryview], Buffer],
    aborted: Iterable[tuple[int, int]] | None = None,
    check_crc: bool = True,
    key_deserializer: Callable[[bytes], object] | None = None,
    value_deserializer: Callable[[bytes], object] | None = None,
) -> tuple[list[RecordBatchView[Any, Any]], int, bool]:
    """(batches, next offset, is truncated): see trioq.record.fetched.read_fetched.

    `decompress` is called with a codec (1 to 4) and the compressed records, which are valid until
    it returns. `aborted` has (producer id, first offset) pairs.
    """
