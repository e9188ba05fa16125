"""The aborted transactions of one segment: Kafka's `.txnindex` file.

Entries of 34 bytes, big endian: int16 version = 0, int64 producer id, int64 first offset of the
transaction, int64 last offset (the abort marker's), int64 last stable offset when it was aborted.
Entries ascend strictly in the marker's offset, which lies in this segment. Pure, no I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from trioq.errors import TrioqError

ENTRY: Final = struct.Struct(">hqqqq")
ENTRY_BYTES: Final = 34
VERSION: Final = 0


class CorruptTransactionIndex(TrioqError):
    """A transaction index is damaged: it is rebuilt from the log."""


class AbortedTransaction(NamedTuple):
    """One aborted transaction; both ends inclusive."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


def encode_aborted(transaction: AbortedTransaction) -> bytes:
    """One entry."""
    return ENTRY.pack(VERSION, *transaction)


def decode_aborted(data: bytes | memoryview) -> Iterator[AbortedTransaction]:
    """The entries of an index file in order; a cut-off last one is left out.

    Raises:
        CorruptTransactionIndex: unknown version, or entries that do not ascend.

    """
    entries = len(data) // ENTRY_BYTES
    previous = -1
    for version, *fields in ENTRY.iter_unpack(data[: entries * ENTRY_BYTES]):
        transaction = AbortedTransaction(*fields)
        if version != VERSION:
            raise CorruptTransactionIndex(f"version {version} after marker offset {previous}")
        if not (
            transaction.producer_id >= 0
            and 0 <= transaction.first_offset <= transaction.last_offset
            and previous < transaction.last_offset
        ):
            raise CorruptTransactionIndex(f"{transaction} after marker offset {previous}")
        previous = transaction.last_offset
        yield transaction


def aborted_in(
    transactions: Iterable[AbortedTransaction], start_offset: int, end_offset: int
) -> tuple[list[AbortedTransaction], bool]:
    """The aborted transactions that a read of [start_offset, end_offset) must know.

    `transactions` are a segment's. The second value is True when no later segment can hold more:
    one was aborted while everything below `end_offset` was decided already.
    """
    found: list[AbortedTransaction] = []
    for transaction in transactions:
        if transaction.last_offset >= start_offset and transaction.first_offset < end_offset:
            found.append(transaction)
        if transaction.last_stable_offset >= end_offset:
            return found, True
    return found, False


def truncated_bytes(data: bytes | memoryview, end_offset: int) -> int:
    """How much of an index file to keep when the log is cut to end at `end_offset`."""
    keep = 0
    for transaction in decode_aborted(data):
        if transaction.last_offset >= end_offset:
            break
        keep += ENTRY_BYTES
    return keep
