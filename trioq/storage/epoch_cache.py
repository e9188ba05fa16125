"""Which leader epoch wrote which offsets; pure, no I/O (KIP-101, KIP-279).

The log keeps it in `leader-epoch-checkpoint` (see checkpoints.py for the format) and can rebuild it
from the epochs stamped into the batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from trioq.storage.checkpoints import decode_epochs, encode_epochs

UNDEFINED = (-1, -1)
"""The answer to an epoch that says nothing about this log."""


class EpochCache:
    """(epoch, start offset) pairs, ascending strictly in both; owned by its log.

    The pairs are kept as two parallel lists. Methods that change them return True if they did:
    the checkpoint is to be written again.
    """

    __slots__ = ("_epochs", "_starts")

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for epoch, start_offset in entries:
            self.assign(epoch, start_offset)

    def __len__(self) -> int:
        return len(self._epochs)

    def entries(self) -> list[tuple[int, int]]:
        """The (epoch, start offset) pairs."""
        return list(zip(self._epochs, self._starts, strict=True))

    @property
    def latest_epoch(self) -> int:
        """The epoch of the end of the log, -1 when none is known."""
        return self._epochs[-1] if self._epochs else -1

    def assign(self, epoch: int, start_offset: int) -> bool:
        """`epoch` begins at `start_offset`; nothing new if it is the latest and began before.

        Entries that contradict (their epoch or start is not below) are dropped: the log holds what
        is said last.
        """
        assert epoch >= 0, "an epoch to assign is known"
        assert start_offset >= 0, "an offset is not negative"
        epochs, starts = self._epochs, self._starts
        if epochs and epochs[-1] == epoch and start_offset >= starts[-1]:
            return False
        while epochs and (epochs[-1] >= epoch or starts[-1] >= start_offset):
            epochs.pop()
            starts.pop()
        epochs.append(epoch)
        starts.append(start_offset)
        return True

    def observe(self, leader_epoch: int, base_offset: int) -> None:
        """A batch of the log says that it is of `leader_epoch`; no CRC covers what it says."""
        if leader_epoch > self.latest_epoch and leader_epoch >= 0 and base_offset >= 0:
            self.assign(leader_epoch, base_offset)

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The largest epoch <= `epoch`, and the offset where it ends here.

        The latest epoch ends at `log_end_offset`. An epoch older than every known one ends where
        the first known one begins. (-1, -1) for no epoch (-1) and for one above all known.
        """
        epochs = self._epochs
        if epoch < 0 or not epochs or epoch > epochs[-1]:
            return UNDEFINED
        if epoch == epochs[-1]:
            return epoch, log_end_offset
        above = bisect_right(epochs, epoch)
        return (epochs[above - 1] if above else epoch), self._starts[above]

    def epoch_for_offset(self, offset: int) -> int:
        """The epoch that wrote `offset`; -1 below the first known one."""
        found = bisect_right(self._starts, offset)
        return self._epochs[found - 1] if found else -1

    def truncate_from_end(self, end_offset: int) -> bool:
        """The log now ends at `end_offset`: forget epochs that begin there or later."""
        before = len(self._starts)
        while self._starts and self._starts[-1] >= end_offset:
            self._starts.pop()
            self._epochs.pop()
        return len(self._starts) != before

    def truncate_from_start(self, start_offset: int) -> bool:
        """The log now starts at `start_offset`: the epoch that covers it begins there.

        Earlier epochs are forgotten. The last one stays even if the log is empty.
        """
        covered = bisect_right(self._starts, start_offset)
        if covered == 0 or (covered == 1 and self._starts[0] == start_offset):
            return False
        del self._starts[: covered - 1], self._epochs[: covered - 1]
        self._starts[0] = start_offset
        return True

    def clear(self) -> None:
        """Forget every epoch."""
        self._epochs.clear()
        self._starts.clear()

    def encode(self) -> bytes:
        """The content of `leader-epoch-checkpoint`."""
        return encode_epochs(self.entries())

    @classmethod
    def decode(cls, data: bytes, location: str) -> EpochCache:
        """Read a checkpoint; `location` names it in messages.

        Raises:
            CorruptCheckpoint: damaged; to be rebuilt from the batches of the log.

        """
        return cls(decode_epochs(data, location))
