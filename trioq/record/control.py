"""Control batches: the records that brokers write for themselves and clients hide.

key    int16 version 0, int16 type
value  of ABORT and COMMIT: int16 version 0, int32 coordinator epoch
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from trioq.errors import InvalidRecord
from trioq.record.batch import read_records
from trioq.record.builder import NewRecord, build_batch

if TYPE_CHECKING:
    from typing_extensions import Buffer

_KEY: Final = struct.Struct(">hh")
_END_TRANSACTION_VALUE: Final = struct.Struct(">hi")
_VERSION: Final = 0


class ControlType(IntEnum):
    """What a control record says."""

    ABORT = 0
    COMMIT = 1
    LEADER_CHANGE = 2
    SNAPSHOT_HEADER = 3
    SNAPSHOT_FOOTER = 4
    KRAFT_VERSION = 5
    KRAFT_VOTERS = 6


class EndTransactionMarker(NamedTuple):
    """The end of a producer's transaction in one partition."""

    offset: int
    timestamp: int
    committed: bool
    coordinator_epoch: int


def build_end_transaction(
    *,
    committed: bool,
    coordinator_epoch: int,
    producer_id: int,
    producer_epoch: int,
    timestamp_ms: int,
    base_offset: int = 0,
    leader_epoch: int = -1,
) -> bytearray:
    """The control batch that ends a transaction; it takes one offset and no sequence."""
    control_type = ControlType.COMMIT if committed else ControlType.ABORT
    marker = NewRecord(
        timestamp_ms,
        _KEY.pack(_VERSION, control_type),
        _END_TRANSACTION_VALUE.pack(_VERSION, coordinator_epoch),
    )
    return build_batch(
        [marker],
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        is_transactional=True,
        is_control=True,
    )


def control_type(key: bytes | None) -> int:
    """The type in a control record's key; one that this version does not know stays a number.

    Raises InvalidRecord for what is no control key.
    """
    if key is None or len(key) < _KEY.size:
        raise InvalidRecord("a control record has no version and type in its key")
    version, number = _KEY.unpack_from(key)
    if version < _VERSION:
        raise InvalidRecord(f"control record version {version}")
    return int(number)


def read_end_transaction(batch: Buffer) -> EndTransactionMarker | None:
    """The marker in a control batch (borrowed until return); None for control of another type.

    Raises InvalidRecord for a control batch that is malformed.
    """
    records = read_records(batch)
    if len(records) != 1:
        raise InvalidRecord(f"a control batch with {len(records)} records")
    (record,) = records
    number = control_type(record.key)
    if number not in {ControlType.ABORT, ControlType.COMMIT}:
        return None
    if record.value is None or len(record.value) < _END_TRANSACTION_VALUE.size:
        raise InvalidRecord("an end-of-transaction marker without coordinator epoch")
    _version, coordinator_epoch = _END_TRANSACTION_VALUE.unpack_from(record.value)
    return EndTransactionMarker(
        record.offset, record.timestamp, number == ControlType.COMMIT, coordinator_epoch
    )
