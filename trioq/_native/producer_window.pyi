"""What is known of each idempotent producer; the rules are in storage/producer_state.py."""

from typing import Any, final

WINDOW_BATCHES: int
"""Most batches that a window holds."""

@final
class ProducerEntry:
    """What is known of one producer id; immutable, replaced whole. -1 where there is none.

    `known_sequences` is how many sequences in a row up to `last_sequence` are known to be appended;
    `window` the last batches of the epoch, oldest first, each its first and last sequence, base and
    last offset, and max timestamp in ms.
    """

    def __init__(
        self,
        epoch: int,
        last_sequence: int,
        last_offset: int,
        last_timestamp_ms: int,
        coordinator_epoch: int,
        txn_first_offset: int,
        known_sequences: int,
        window: tuple[tuple[int, int, int, int, int], ...],
    ) -> None:
        """ValueError for a window of more than WINDOW_BATCHES."""

    epoch: int
    last_sequence: int
    last_offset: int
    last_timestamp_ms: int
    coordinator_epoch: int
    txn_first_offset: int
    known_sequences: int

    @property
    def window(self) -> tuple[tuple[int, int, int, int, int], ...]: ...

@final
class StagedEntry:
    """A batch that is staged, with what its producer's entry was before."""

    base_offset: int
    last_offset: int
    producer_id: int
    previous: ProducerEntry | None

class ProducerWindows:
    """The entries by producer id, and those that staged batches have replaced, oldest first.

    A base for ProducerState, which has the rules. The produce lane goes past them for one case:
    the next batch of the epoch that is known, outside of transactions.
    """

    _entries: dict[int, ProducerEntry]
    _staged: list[StagedEntry]
    _ongoing: dict[int, int]
    """First offset of each open transaction -> producer id; ascending."""
    _ended: list[Any]
    """Transactions whose marker is not below the high watermark yet."""

    def put_staged(
        self,
        producer_id: int,
        previous: ProducerEntry | None,
        entry: ProducerEntry,
        base_offset: int,
        last_offset: int,
    ) -> None:
        """`entry` takes the place of `previous` for a batch at [base_offset, last_offset]."""

    def commit(self, end_offset: int) -> None:
        """Everything staged below `end_offset` is written and cannot be rolled back."""

def appended_entry(
    previous: ProducerEntry | None,
    epoch: int,
    first_sequence: int,
    last_sequence: int,
    base_offset: int,
    last_offset: int,
    timestamp_ms: int,
    *,
    is_transactional: bool,
) -> ProducerEntry:
    """The entry after a data batch at [base_offset, last_offset], whose max timestamp is given.

    AssertionError where it is not above the producer's last one.
    """
