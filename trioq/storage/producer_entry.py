"""One producer of a partition, and how a batch changes it; the rules are in producer_state.py."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from trioq._native.producer_window import WINDOW_BATCHES, ProducerEntry
from trioq._native.producer_window import appended_entry as entry_after
from trioq.errors import DuplicateSequenceNumber, OutOfOrderSequenceNumber
from trioq.storage.producer_snapshot import SnapshotEntry

MAX_SEQUENCE: Final = 2**31 - 1

NO_SEQUENCE: Final = -1
NO_OFFSET: Final = -1
NO_COORDINATOR_EPOCH: Final = -1

_MAX_KNOWN_SEQUENCES: Final = 2**30
"""Sequences further back than this are told from sequences ahead no longer."""


class SequencedBatch(Protocol):
    """The part of a batch header that this module reads (`trioq._native.batch.BatchHeader`)."""

    @property
    def producer_id(self) -> int: ...
    @property
    def producer_epoch(self) -> int: ...
    @property
    def base_sequence(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def last_offset_delta(self) -> int: ...
    @property
    def is_transactional(self) -> bool: ...
    @property
    def is_control(self) -> bool: ...


class Duplicate(NamedTuple):
    """The batch was appended before, at [base_offset, last_offset] (both inclusive)."""

    base_offset: int
    last_offset: int
    timestamp_ms: int


class EndMarker(NamedTuple):
    """What a control batch that ends a transaction says; its producer is in the batch header."""

    coordinator_epoch: int
    is_abort: bool


class CompletedTransaction(NamedTuple):
    """A marker ended a transaction that had data here.

    `last_offset` is the marker's. `last_stable_offset` is the first offset of the oldest
    transaction that stays open, or the one after the marker: what the transaction index stores.
    """

    producer_id: int
    first_offset: int
    last_offset: int
    is_abort: bool
    last_stable_offset: int


class ActiveProducer(NamedTuple):
    """One producer as DescribeProducers shows it; -1 where there is none."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    current_txn_first_offset: int


def appended_entry(
    previous: ProducerEntry | None, header: SequencedBatch, base_offset: int, timestamp_ms: int
) -> ProducerEntry:
    """The entry after a data batch at `base_offset` whose max timestamp is `timestamp_ms`."""
    return entry_after(
        previous,
        header.producer_epoch,
        header.base_sequence,
        header.last_sequence,
        base_offset,
        base_offset + header.last_offset_delta,
        timestamp_ms,
        is_transactional=header.is_transactional,
    )


def ended_entry(
    previous: ProducerEntry | None, producer_epoch: int, coordinator_epoch: int, timestamp_ms: int
) -> ProducerEntry:
    """The entry after a marker; one of a new epoch empties the window."""
    if previous is not None and previous.epoch == producer_epoch:
        return ProducerEntry(
            previous.epoch,
            previous.last_sequence,
            previous.last_offset,
            timestamp_ms,
            coordinator_epoch,
            NO_OFFSET,
            previous.known_sequences,
            previous.window,
        )
    return ProducerEntry(
        producer_epoch,
        NO_SEQUENCE,
        NO_OFFSET,
        timestamp_ms,
        coordinator_epoch,
        NO_OFFSET,
        0,
        (),
    )


def find_duplicate(header: SequencedBatch, entry: ProducerEntry) -> Duplicate:
    """The batch of the window that `header` repeats; raises as `ProducerState.check`."""
    first = header.base_sequence
    last = header.last_sequence
    for batch in entry.window:
        if batch[0] == first and batch[1] == last:
            return Duplicate(batch[2], batch[3], batch[4])
    behind = (entry.last_sequence - last) & MAX_SEQUENCE
    known = min(entry.known_sequences, _MAX_KNOWN_SEQUENCES)
    if behind + header.last_offset_delta + 1 <= known:
        raise DuplicateSequenceNumber(
            f"producer {header.producer_id} sent sequences {first} to {last} again, which left "
            f"the window of {WINDOW_BATCHES} batches; its last is {entry.last_sequence}"
        )
    raise OutOfOrderSequenceNumber(
        f"producer {header.producer_id} sent sequences {first} to {last} "
        f"after {entry.last_sequence}"
    )


def to_snapshot(producer_id: int, entry: ProducerEntry, offset: int) -> SnapshotEntry:
    """What a snapshot at `offset` keeps of a producer."""
    assert entry.last_offset < offset, "a snapshot below a committed batch"
    window = entry.window
    last_offset_delta = window[-1][3] - window[-1][2] if window else 0
    return SnapshotEntry(
        producer_id,
        entry.epoch,
        entry.last_sequence,
        entry.last_offset,
        last_offset_delta,
        entry.last_timestamp_ms,
        entry.coordinator_epoch,
        entry.txn_first_offset,
    )


def from_snapshot(snapshot: SnapshotEntry) -> ProducerEntry:
    """A producer as a snapshot remembers it: the last batch is its window."""
    window: tuple[tuple[int, int, int, int, int], ...] = ()
    sequences = 0
    if snapshot.last_offset >= 0:
        delta = snapshot.offset_delta
        sequences = delta + 1
        window = (
            (
                (snapshot.last_sequence - delta) & MAX_SEQUENCE,
                snapshot.last_sequence,
                snapshot.last_offset - delta,
                snapshot.last_offset,
                snapshot.timestamp_ms,
            ),
        )
    return ProducerEntry(
        snapshot.producer_epoch,
        snapshot.last_sequence,
        snapshot.last_offset,
        snapshot.timestamp_ms,
        snapshot.coordinator_epoch,
        snapshot.current_txn_first_offset,
        sequences,
        window,
    )
