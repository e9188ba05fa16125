"""What a produced batch must be before it is appended, and re-encoding under another codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trioq._native import batch as native
from trioq._native.compact import check_keys
from trioq.errors import InvalidRecord, InvalidTimestamp
from trioq.record import layout
from trioq.record.batch import record_bytes
from trioq.record.compression import MAX_DECOMPRESSED_BYTES, Codec, compress

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from trioq._native.batch import BatchHeader


_UNUSUAL_BITS: Final = (
    layout.APPEND_TIME_BIT
    | layout.TRANSACTIONAL_BIT
    | layout.CONTROL_BIT
    | layout.DELETE_HORIZON_BIT
)


def check_produced(
    batch: bytes | bytearray | memoryview,
    *,
    strict: bool,
    needs_keys: bool = False,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
    max_ratio: int | None = None,
) -> BatchHeader:
    """Check that `batch` (borrowed until return) is exactly one batch that a client may produce.

    Always: lengths, magic, CRC, attributes, counts, and every record of an uncompressed batch.
    With `strict` a compressed batch is decompressed, within `max_bytes` and `max_ratio`, and its
    records are checked too; that is long work, for a thread. With `needs_keys` every record that
    is looked at must have a key: compacted topics take no others. Sequence numbers and topic
    limits are not judged here.

    Raises CorruptMessage, InvalidRecord, InvalidTimestamp, UnsupportedCompressionType or
    UnsupportedForMessageFormat: the code that the client sees.
    """
    header = native.validate(batch)
    if header.size_bytes != len(batch):
        raise InvalidRecord("records to produce come as exactly one batch")
    if header.attributes & _UNUSUAL_BITS or header.base_sequence < 0 or header.producer_epoch < 0:
        _check_unusual(header)
    is_compressed = header.codec != Codec.NONE
    if strict and is_compressed:
        data = record_bytes(batch, header, max_bytes=max_bytes, max_ratio=max_ratio)
        native.walk_records(data, header.record_count)
        if needs_keys:
            check_keys(data, header.record_count)
    elif needs_keys and not is_compressed:
        check_keys(record_bytes(batch, header), header.record_count)
    return header


def _check_unusual(header: BatchHeader) -> None:
    """What a plain batch of an idempotent producer has passed already."""
    if header.is_control:
        raise InvalidRecord("clients may not write control records")
    if header.has_delete_horizon:
        raise InvalidRecord("only compaction sets a delete horizon")
    if header.timestamp_type == 1:
        raise InvalidTimestamp("only the broker sets append time")
    if header.has_producer_id and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise InvalidRecord(
            f"producer {header.producer_id} wrote with epoch {header.producer_epoch} "
            f"and sequence {header.base_sequence}"
        )
    if header.is_transactional and not header.has_producer_id:
        raise InvalidRecord("a transactional batch has no producer id")


def recompress(
    batch: Buffer,
    codec: Codec,
    level: int | None = None,
    *,
    max_bytes: int = MAX_DECOMPRESSED_BYTES,
    max_ratio: int | None = None,
) -> bytearray:
    """The batch (borrowed until return) under another codec: same header but codec, length, CRC.

    Records of a compressed batch are checked on the way. Raises InvalidRecord, and what peek
    raises. Long work: for a thread.
    """
    header = native.peek(batch)
    data = record_bytes(batch, header, max_bytes=max_bytes, max_ratio=max_ratio)
    if header.codec != Codec.NONE:
        native.walk_records(data, header.record_count)
    attributes = (header.attributes & ~layout.CODEC_MASK) | int(codec)
    out = bytearray(memoryview(batch).cast("B")[: layout.HEADER_BYTES])
    layout.ATTRIBUTES.pack_into(out, layout.ATTRIBUTES_AT, attributes)
    out += data if codec is Codec.NONE else compress(codec, data, level)
    native.seal(out)
    return out
