"""Building batches from records."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from trioq._native import batch as native
from trioq.record import layout
from trioq.record.compression import Codec, compress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


class NewRecord(NamedTuple):
    """A record before it has an offset."""

    timestamp: int
    """Milliseconds since the Unix epoch, or -1."""
    key: Buffer | None = None
    value: Buffer | None = None
    headers: Sequence[tuple[str, Buffer | None]] = ()


def build_batch(
    records: Sequence[NewRecord]
    | Sequence[tuple[int, Buffer | None, Buffer | None, Sequence[tuple[str, Buffer | None]]]],
    *,
    codec: Codec = Codec.NONE,
    level: int | None = None,
    base_offset: int = 0,
    base_timestamp: int | None = None,
    leader_epoch: int = layout.NO_LEADER_EPOCH,
    producer_id: int = layout.NO_PRODUCER_ID,
    producer_epoch: int = layout.NO_PRODUCER_EPOCH,
    base_sequence: int = layout.NO_SEQUENCE,
    is_transactional: bool = False,
    is_control: bool = False,
) -> bytearray:
    """One batch with creation timestamps, complete with CRC; the caller owns it.

    `records` (at least one; plain tuples will do) get consecutive offsets from `base_offset`.
    Raises ValueError, TypeError or MessageTooLarge as trioq._native.batch.build does.
    """
    attributes = (
        int(codec)
        | (layout.TRANSACTIONAL_BIT if is_transactional else 0)
        | (layout.CONTROL_BIT if is_control else 0)
    )
    return native.build(
        records,
        base_offset=base_offset,
        base_timestamp=base_timestamp,
        leader_epoch=leader_epoch,
        attributes=attributes,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        compress=None if codec is Codec.NONE else partial(compress, codec, level=level),
    )
