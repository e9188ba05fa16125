"""What a partition knows of its idempotent and transactional producers; pure, no I/O.

Rules (KIP-98, KIP-360), per producer id:

- The next batch of an epoch starts at the last sequence + 1; 2^31-1 wraps to 0.
- A batch equal to one of the last five of its epoch is a `Duplicate`: it is answered with its
  original offsets and not appended again.
- A range of sequences that is known to have been appended, but left the window, is
  DuplicateSequenceNumber (46). Every other break of the sequence is OutOfOrderSequenceNumber (45).
  "Known" counts from the first batch that this state saw of the epoch: a batch that was refused
  before an unknown producer's later batch was taken is never called a duplicate.
- A lower epoch is InvalidProducerEpoch (47); a higher one must start at sequence 0.
- A producer without an entry (new, expired, or gone with its data) may start at any sequence.

Entries are immutable and replaced whole, so undoing a staged batch is putting the former entry
back, and a committed batch costs nothing further.

The snapshot is Kafka's `.snapshot` file, which holds the last batch of each producer only. So after
a start from a snapshot the window is that one batch, plus those applied from the log above the
snapshot; `widen` adds those that the log holds below it.
"""

from __future__ import annotations

from trioq._native.producer_window import ProducerEntry, ProducerWindows
from trioq.errors import (
    InvalidProducerEpoch,
    InvalidRecord,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
    TransactionCoordinatorFenced,
)
from trioq.storage.producer_entry import (
    MAX_SEQUENCE,
    NO_OFFSET,
    ActiveProducer,
    CompletedTransaction,
    Duplicate,
    EndMarker,
    SequencedBatch,
    appended_entry,
    ended_entry,
    find_duplicate,
    from_snapshot,
    to_snapshot,
)
from trioq.storage.producer_snapshot import CorruptSnapshot, decode_snapshot, encode_snapshot

MAX_OFFSET = 2**63 - 1

__all__ = [
    "ActiveProducer",
    "CompletedTransaction",
    "CorruptSnapshot",
    "Duplicate",
    "EndMarker",
    "ProducerState",
    "SequencedBatch",
]


class ProducerState(ProducerWindows):
    """The producers of one partition; owned by its log, called on its thread only.

    A leader calls `check`, then `stage`, and `commit` or `rollback` when the write has ended. A
    follower, and recovery, `apply` what was checked before. Batches without a producer id may be
    passed anywhere and leave no trace.
    """

    __slots__ = ("_idle",)

    _ended: list[CompletedTransaction]

    def __init__(self) -> None:
        self._idle: dict[int, ProducerEntry] = {}  # found idle by the last sweep

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, header: SequencedBatch) -> Duplicate | None:
        """Judge a batch that a client wants appended; changes nothing.

        Returns where the batch is if it was appended (or staged) before, None if it is next.

        Raises:
            InvalidProducerEpoch: a newer epoch of the producer has been seen.
            OutOfOrderSequenceNumber: the sequence leaves a gap, or cannot be judged.
            DuplicateSequenceNumber: appended before the window began.
            InvalidTxnState: a plain batch inside the producer's own transaction.
            InvalidRecord: a producer id without epoch or sequence.

        """
        producer_id = header.producer_id
        if producer_id < 0:
            return None
        first = header.base_sequence
        epoch = header.producer_epoch
        if first < 0 or epoch < 0:
            raise InvalidRecord(
                f"producer {producer_id} sent epoch {epoch} and sequence {first}: "
                "a batch with a producer id needs both"
            )
        entry = self._entries.get(producer_id)
        if entry is None:
            return None
        known_epoch, last_sequence = entry.epoch, entry.last_sequence
        txn_first_offset = entry.txn_first_offset
        if epoch == known_epoch:
            if first != (last_sequence + 1 if last_sequence != MAX_SEQUENCE else 0):
                return find_duplicate(header, entry)
        elif epoch < known_epoch:
            raise InvalidProducerEpoch(
                f"producer {producer_id} has epoch {known_epoch} here, the batch has {epoch}"
            )
        elif first != 0:
            raise OutOfOrderSequenceNumber(
                f"producer {producer_id} starts epoch {epoch} with sequence {first}, not 0"
            )
        if txn_first_offset >= 0 and not header.is_transactional:
            raise InvalidTxnState(
                f"producer {producer_id} sent a plain batch inside its transaction that began "
                f"at offset {txn_first_offset}"
            )
        return None

    def leaves_gap(self, header: SequencedBatch) -> bool:
        """True if the batch is neither the first of its producer and epoch, nor next, nor known."""
        entry = self._entries.get(header.producer_id)
        first = header.base_sequence
        if entry is None or header.producer_epoch > entry.epoch:
            return first > 0
        if header.producer_epoch < entry.epoch:
            return False
        last = entry.last_sequence
        ahead = (first - (last + 1)) & MAX_SEQUENCE
        return 0 < ahead <= MAX_SEQUENCE // 2

    def check_marker(self, producer_id: int, producer_epoch: int, marker: EndMarker) -> None:
        """Judge a transaction marker.

        Raises:
            InvalidProducerEpoch: a newer epoch of the producer has been seen.
            TransactionCoordinatorFenced: a newer coordinator has ended a transaction of it.

        """
        entry = self._entries.get(producer_id)
        if entry is None:
            return
        if producer_epoch < entry.epoch:
            raise InvalidProducerEpoch(
                f"producer {producer_id} has epoch {entry.epoch} here, the marker {producer_epoch}"
            )
        if marker.coordinator_epoch < entry.coordinator_epoch:
            raise TransactionCoordinatorFenced(
                f"the marker for producer {producer_id} is of coordinator epoch "
                f"{marker.coordinator_epoch}; {entry.coordinator_epoch} has been seen"
            )

    def stage(
        self,
        header: SequencedBatch,
        base_offset: int,
        timestamp_ms: int,
        marker: EndMarker | None = None,
    ) -> CompletedTransaction | None:
        """Take a checked batch that will be written at `base_offset`; `check` sees it at once.

        `timestamp_ms` is the batch's max timestamp. `marker` is given for a control batch that ends
        a transaction; control batches of other kinds leave no trace. Offsets ascend from call to
        call. Returns the transaction that the marker ended, if it had data here.
        """
        producer_id = header.producer_id
        if producer_id < 0 or (marker is None and header.is_control):
            return None
        previous = self._entries.get(producer_id)
        last_offset = base_offset + header.last_offset_delta
        if marker is not None:
            coordinator_epoch, is_abort = marker
            entry = ended_entry(previous, header.producer_epoch, coordinator_epoch, timestamp_ms)
            self.put_staged(producer_id, previous, entry, base_offset, last_offset)
            return self._end_transaction(producer_id, previous, base_offset, is_abort=is_abort)
        entry = appended_entry(previous, header, base_offset, timestamp_ms)
        self.put_staged(producer_id, previous, entry, base_offset, last_offset)
        if entry.txn_first_offset == base_offset:
            self._ongoing[base_offset] = producer_id
        return None

    def rollback(self, from_offset: int) -> None:
        """Forget what was staged at or above `from_offset`, as if it had never been."""
        staged = self._staged
        is_reordered = False
        while staged and staged[-1].base_offset >= from_offset:
            last = staged.pop()
            base_offset, producer_id, previous = last.base_offset, last.producer_id, last.previous
            current = self._entries[producer_id]
            before = NO_OFFSET if previous is None else previous.txn_first_offset
            if current.txn_first_offset != before:
                if before == NO_OFFSET:
                    del self._ongoing[current.txn_first_offset]
                else:
                    self._ongoing[before] = producer_id
                    is_reordered = True
                    self._ended = [t for t in self._ended if t.last_offset < base_offset]
            if previous is None:
                del self._entries[producer_id]
            else:
                self._entries[producer_id] = previous
        if is_reordered:
            self._ongoing = dict(sorted(self._ongoing.items()))

    def apply(
        self,
        header: SequencedBatch,
        base_offset: int,
        timestamp_ms: int,
        marker: EndMarker | None = None,
    ) -> CompletedTransaction | None:
        """Take a batch that is in the log already, unchecked and for good. See `stage`."""
        assert not self._staged, "apply while batches are staged"
        completed = self.stage(header, base_offset, timestamp_ms, marker)
        self._staged.clear()
        return completed

    def clear(self) -> None:
        """Forget everything; truncation then rebuilds by `load` and `apply`."""
        self._entries.clear()
        self._staged.clear()
        self._ongoing.clear()
        self._ended.clear()
        self._idle.clear()

    def first_unstable_offset(self) -> int | None:
        """The offset that the last stable offset may not pass; None when every one is decided.

        That is the first offset of the oldest transaction that is open, or whose marker is not
        below the high watermark yet.
        """
        first = next(iter(self._ongoing), None)
        for ended in self._ended:
            if first is None or ended.first_offset < first:
                first = ended.first_offset
        return first

    def on_high_watermark(self, high_watermark: int) -> None:
        """Transactions whose marker is below `high_watermark` hold nothing back any longer."""
        if self._ended:
            self._ended = [t for t in self._ended if t.last_offset >= high_watermark]

    def remove_expired(self, now_ms: int, producer_id_expiration_ms: int) -> int:
        """Forget producers idle for `producer_id_expiration_ms`; returns how many.

        Call it every `producer.id.expiration.check.interval.ms`. Idle means that the last timestamp
        is that old and nothing was appended since the previous call: timestamps are the clients',
        and one that loads old data must not lose its window while it is at work. A producer with
        an open transaction stays.
        """
        oldest_ms = now_ms - producer_id_expiration_ms
        is_staged = {staged.producer_id for staged in self._staged}
        idle = {
            producer_id: entry
            for producer_id, entry in self._entries.items()
            if entry.last_timestamp_ms <= oldest_ms
            and entry.txn_first_offset == NO_OFFSET
            and producer_id not in is_staged
        }
        expired = [
            producer_id
            for producer_id, entry in idle.items()
            if self._idle.get(producer_id) is entry
        ]
        for producer_id in expired:
            del self._entries[producer_id]
            del idle[producer_id]
        self._idle = idle
        return len(expired)

    def active_producers(self) -> list[ActiveProducer]:
        """Every producer that has an entry, by id."""
        return [
            ActiveProducer(
                producer_id,
                entry.epoch,
                entry.last_sequence,
                entry.last_timestamp_ms,
                entry.coordinator_epoch,
                entry.txn_first_offset,
            )
            for producer_id, entry in sorted(self._entries.items())
        ]

    def max_producer_id(self) -> int:
        """The greatest producer id seen, -1 if none; new blocks of ids start above it."""
        return max(self._entries, default=-1)

    def snapshot(self, offset: int) -> bytes:
        """The content of `<offset>.snapshot`: the state without what is staged from `offset` on.

        Nothing at or above `offset` may be committed.
        """
        return encode_snapshot(
            to_snapshot(producer_id, entry, offset)
            for producer_id, entry in sorted(self._without_staged(offset).items())
        )

    def last_offsets(self) -> dict[int, int]:
        """Of each producer the last offset of its last batch that is not just staged; -1 for none.

        These are the batches that hold the last sequences.
        """
        entries = self._without_staged(0)
        return {producer_id: entry.last_offset for producer_id, entry in entries.items()}

    def _without_staged(self, offset: int) -> dict[int, ProducerEntry]:
        entries: dict[int, ProducerEntry | None] = dict(self._entries)
        for staged in reversed(self._staged):
            if staged.base_offset < offset:
                break
            entries[staged.producer_id] = staged.previous
        return {producer_id: entry for producer_id, entry in entries.items() if entry is not None}

    def load(self, data: bytes, offset: int = MAX_OFFSET) -> None:
        """Replace everything by the snapshot at `offset`.

        Raises:
            CorruptSnapshot: not a snapshot, or damaged, or of what lies at or above `offset`; the
                state is as before.

        """
        loaded = decode_snapshot(data)
        for snapshot in loaded:
            if max(snapshot.last_offset, snapshot.current_txn_first_offset) >= offset:
                raise CorruptSnapshot(f"the producer snapshot at {offset} holds {snapshot}")
        self.clear()
        for snapshot in loaded:
            entry = from_snapshot(snapshot)
            self._entries[snapshot.producer_id] = entry
            if entry.txn_first_offset != NO_OFFSET:
                self._ongoing[entry.txn_first_offset] = snapshot.producer_id
        self._ongoing = dict(sorted(self._ongoing.items()))

    def widen(self, recent: ProducerState) -> None:
        """Take over the windows of `recent`, rebuilt from the last batches of the same log.

        Only of producers whose last batch is the same one there, but for its timestamp, which
        compaction may have lowered; a snapshot holds just that batch.
        """
        for producer_id, other in recent._entries.items():
            entry = self._entries.get(producer_id)
            if (
                entry is not None
                and [batch[:4] for batch in entry.window[-1:]]
                == [batch[:4] for batch in other.window[-1:]]
                and len(other.window) > len(entry.window)
            ):
                self._entries[producer_id] = ProducerEntry(
                    entry.epoch,
                    entry.last_sequence,
                    entry.last_offset,
                    entry.last_timestamp_ms,
                    entry.coordinator_epoch,
                    entry.txn_first_offset,
                    max(entry.known_sequences, other.known_sequences),
                    other.window,
                )

    def _end_transaction(
        self, producer_id: int, previous: ProducerEntry | None, offset: int, *, is_abort: bool
    ) -> CompletedTransaction | None:
        if previous is None or previous.txn_first_offset == NO_OFFSET:
            return None
        del self._ongoing[previous.txn_first_offset]
        completed = CompletedTransaction(
            producer_id,
            previous.txn_first_offset,
            offset,
            is_abort,
            next(iter(self._ongoing), offset + 1),
        )
        self._ended.append(completed)
        return completed
