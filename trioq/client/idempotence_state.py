"""Sequence numbers of an idempotent producer (KIP-98, KIP-360). Pure: no I/O, no clock.

1. A batch gets identity and sequence when it is first drained, and keeps them through retries:
   so the broker recognises a repetition.
2. A batch that will never be written leaves a gap, behind which the broker takes nothing. Then
   the partition is repaired once nothing of it is in flight: the batches that wait are numbered
   anew from the last acknowledged one on. That is safe only if none of them, and not the one
   that failed, can have been written.
3. Where one may have been (no answer came), or the broker has lost the producer's state, numbers
   start at 0 in the next epoch, which also fences whatever is still under way. Epochs are
   counted up here; at the last one a new producer id is asked for.
4. Until the first batch of an identity is acknowledged, one at a time is in flight: a broker that
   does not know a producer takes it up at any sequence, and so after a gap.
5. Other partitions keep the old epoch until none of their batches is unresolved.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from trioq.client.producer_batch import NO_SEQUENCE, ProducerBatch, ProducerIdentity

MAX_EPOCH: Final = 32_767
_SEQUENCES: Final = 1 << 31
"""After 2^31-1 comes 0."""


class Repair(IntEnum):
    """What a partition needs before it can go on."""

    NONE = 0
    RENUMBER = 1
    NEW_EPOCH = 2


class PartitionSequences:
    """The numbers of one partition."""

    __slots__ = ("acked_end", "identity", "is_known", "next_sequence", "repair")

    def __init__(self) -> None:
        self.identity: ProducerIdentity | None = None
        self.next_sequence = 0
        self.acked_end = 0
        """The sequence behind the last acknowledged batch of this identity."""
        self.is_known = False
        """The broker has acknowledged a batch of this identity."""
        self.repair = Repair.NONE

    def need(self, repair: Repair) -> None:
        """Have at least `repair` done before anything else is sent."""
        self.repair = max(self.repair, repair)

    def acked(self, batch: ProducerBatch) -> None:
        """The broker has `batch`; answers of two brokers, in a change of leaders, may cross."""
        if batch.identity is not None and batch.identity == self.identity:
            self.is_known = True
            end = following(batch.sequence, batch.count)
            if (end - self.acked_end) % _SEQUENCES < _SEQUENCES // 2:
                self.acked_end = end

    def gave_up(self, batch: ProducerBatch) -> None:
        """`batch` will not be sent again, though its numbers were taken."""
        if batch.identity is not None and batch.identity == self.identity:
            self.need(Repair.NEW_EPOCH if batch.is_uncertain else Repair.RENUMBER)


class IdempotenceState:
    """The producer's identity, and the decisions of all partitions about theirs."""

    def __init__(self) -> None:
        self.identity: ProducerIdentity | None = None
        self.epoch_bumps = 0

    @property
    def needs_identity(self) -> bool:
        """Whether a producer id has to be asked for before anything can be sent."""
        return self.identity is None

    def identified(self, producer_id: int, epoch: int) -> None:
        """A broker has given an identity."""
        self.identity = ProducerIdentity(producer_id, epoch)

    def prepare(
        self,
        sequences: PartitionSequences,
        batch: ProducerBatch,
        waiting: Iterable[ProducerBatch],
        in_flight: int,
    ) -> bool:
        """Give `batch`, the first of those `waiting`, its numbers; False if it cannot go now.

        `in_flight` counts the batches of the partition that are under way.
        """
        if sequences.repair:
            if in_flight:
                return False
            self._repair(sequences, waiting)
        if self.identity is None or (in_flight and not sequences.is_known):
            return False
        if batch.sequence != NO_SEQUENCE:
            return True
        if sequences.identity != self.identity and not in_flight:
            # Nothing of the partition is unresolved: those that wait behind have no numbers yet.
            _restart(sequences, self.identity)
        if sequences.identity is None:
            return False
        batch.identity = sequences.identity
        batch.sequence = sequences.next_sequence
        sequences.next_sequence = following(batch.sequence, batch.count)
        return True

    def _repair(self, sequences: PartitionSequences, waiting: Iterable[ProducerBatch]) -> None:
        numbered = [batch for batch in waiting if batch.sequence != NO_SEQUENCE]
        uncertain = any(batch.is_uncertain for batch in numbered)
        if sequences.repair is Repair.NEW_EPOCH or uncertain:
            self._next_epoch(sequences)
        else:
            sequences.next_sequence = sequences.acked_end
        for batch in numbered:
            batch.identity = None
            batch.sequence = NO_SEQUENCE
            batch.is_uncertain = False
        sequences.repair = Repair.NONE

    def _next_epoch(self, sequences: PartitionSequences) -> None:
        identity = self.identity
        if identity is not None and sequences.identity == identity:
            self.epoch_bumps += 1
            if identity.epoch >= MAX_EPOCH:
                self.identity = None
            else:
                self.identity = ProducerIdentity(identity.producer_id, identity.epoch + 1)
        _restart(sequences, self.identity)


def _restart(sequences: PartitionSequences, identity: ProducerIdentity | None) -> None:
    sequences.identity = identity
    sequences.next_sequence = 0
    sequences.acked_end = 0
    sequences.is_known = False


def following(sequence: int, count: int) -> int:
    """The sequence of what comes behind a batch of `count` records."""
    return (sequence + count) % _SEQUENCES
