"""Batches as producers make and change them: filled record by record, split, restamped."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from trioq._native import batch as native
from trioq._native.batch_builder import BatchBuilder as NativeBatchBuilder
from trioq.record import layout
from trioq.record.batch import codec_of, record_bytes
from trioq.record.builder import build_batch
from trioq.record.compression import Codec, compress

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SEQUENCES: Final = 1 << 31
"""Sequence numbers start again at 0 after 2^31 - 1."""
_LEAST_RECORD_BYTES: Final = 7


class BatchBuilder(NativeBatchBuilder):
    """The open batch of one partition; what it takes is said in `_native/batch_builder.pyi`."""

    __slots__ = ()

    def close(
        self,
        codec: Codec = Codec.NONE,
        *,
        level: int | None = None,
        producer_id: int = layout.NO_PRODUCER_ID,
        producer_epoch: int = layout.NO_PRODUCER_EPOCH,
        base_sequence: int = layout.NO_SEQUENCE,
        is_transactional: bool = False,
    ) -> bytearray:
        """The finished batch, compressed and with its CRC; the caller owns it.

        The builder takes nothing afterwards. Raises ValueError without records or a second time.
        Compressing a large batch takes milliseconds: it may run in a thread.
        """
        attributes = int(codec) | (layout.TRANSACTIONAL_BIT if is_transactional else 0)
        return self.finish(
            attributes=attributes,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            compress=None if codec is Codec.NONE else partial(compress, codec, level=level),
        )


def restamp(
    batch: Buffer, *, producer_id: int, producer_epoch: int, base_sequence: int
) -> bytearray:
    """A copy of a finished batch (borrowed until return) under another producer (KIP-360).

    Records and compression stay as they are. Raises what peek raises.
    """
    header = native.peek(batch)
    out = bytearray(memoryview(batch).cast("B")[: header.size_bytes])
    layout.PRODUCER.pack_into(
        out, layout.PRODUCER_ID_AT, producer_id, producer_epoch, base_sequence
    )
    native.seal(out)
    return out


def split(batch: Buffer, *, level: int | None = None) -> tuple[bytearray, bytearray]:
    """Two batches with the records of one that is too large for the broker (borrowed until return).

    Each has about half of the bytes, and one record at least; codec, producer and transaction are
    kept, and the second's sequence follows on the first's. Raises ValueError for a single record,
    InvalidRecord and what peek raises for a batch that is not whole.
    """
    header = native.peek(batch)
    if header.record_count < 2:
        raise ValueError("a batch of one record cannot be split")
    records = [
        (timestamp, key, value, headers)
        for _, timestamp, key, value, headers in native.decode_records(
            record_bytes(batch, header), header
        )
    ]
    cut = _middle([_approximate_bytes(*record) for record in records])
    sequence = header.base_sequence
    halves = [
        build_batch(
            half,
            codec=codec_of(header),
            level=level,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=sequence if sequence < 0 else (sequence + start) % _SEQUENCES,
            is_transactional=header.is_transactional,
        )
        for half, start in ((records[:cut], 0), (records[cut:], cut))
    ]
    return halves[0], halves[1]


def _approximate_bytes(
    _timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
) -> int:
    fields = [key, value, *(value for _, value in headers)]
    return (
        _LEAST_RECORD_BYTES
        + sum(len(field) for field in fields if field is not None)
        + sum(len(name) for name, _ in headers)
    )


def _middle(sizes: list[int]) -> int:
    """How many belong into the first half by size: one at least, not all."""
    half = sum(sizes) / 2
    before = sum(1 for end in accumulate(sizes) if end <= half)
    return min(max(before, 1), len(sizes) - 1)
