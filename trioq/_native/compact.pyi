"""Compaction, record by record: which keys have a later record, and batches without the others.

Batches are read from files that may be damaged: every CRC is checked, every length bounded. Long
work is done without the interpreter lock. An object here belongs to one thread at a time.

What stays of a batch (as in Kafka's LogCleaner):

- A record with a key stays if the map knows no later offset of its key. One without a value (a
  tombstone) goes once the delete horizon of its batch has passed. One without a key goes.
- A batch that loses nothing is copied as it is. Else it keeps its header: base offset, last offset
  delta, leader epoch, producer fields, timestamp type; the records that stay keep their offsets.
- The first time a tombstone stays, its batch gets a delete horizon: attribute bit 6, and the base
  timestamp is the horizon (KIP-534), to which timestamp deltas are then relative.
- A batch that loses everything goes, unless a producer's last sequence or the end of the segment
  is in it: then its header stays, with no records.
- Control batches and batches of transactions, and those whose records make no sense, stay as they
  are, and count for nothing in the map: whether they were aborted is not judged here.
"""

from typing_extensions import Buffer

NEED_MORE: int
"""The end of the buffer, or a batch that is cut off there."""
COMPRESSED: int
"""A batch to be decompressed by the caller."""
FULL: int
"""A batch that may not fit into the map's bound."""
CORRUPT: int
"""No batch, or one whose CRC does not match."""

ENTRY_BYTES: int
"""Memory per key of a map."""

def check_keys(data: Buffer, record_count: int) -> None:
    """Records, uncompressed and walked before, must all have a key; else InvalidRecord."""

def count_records(fd: int, position: int, end: int) -> int:
    """How many records the batches in [position, end) of a log file hold, by their headers.

    Stops where no batch header is. Raises OSError.
    """

class OffsetMap:
    """The last offset of each key, by a hash of 128 bits under `secret` (16 random bytes).

    A key is not kept: two keys of one hash would pass for one. With a random secret n keys have
    a chance of n * n / 2^129 for that, whoever chose them.

    `max_entries * ENTRY_BYTES` bytes are allocated at once. Batches come in order, with offsets
    in [start_offset, end_offset); others are CORRUPT. Raises MemoryError.
    """

    max_entries: int
    def __init__(
        self, max_entries: int, secret: bytes, start_offset: int, end_offset: int
    ) -> None: ...
    def __len__(self) -> int: ...
    def get(self, key: bytes) -> int:
        """The last offset of a key, -1 if there is none."""

    def add_batches(self, buf: Buffer, position: int, end: int) -> tuple[int, int]:
        """Add the batches in [position, end): where that stopped, and why (NEED_MORE, ...).

        The batch at the position returned was not added.
        """

    def add_batch(self, batch: Buffer, data: Buffer | None) -> bool:
        """Add the decompressed records of a compressed batch.

        False, with nothing added, if they are malformed or None: could not be decompressed.
        """

class BatchFilter:
    """Writes what stays of a group of segments, and the indexes of the segment that it becomes.

    Args:
        offsets: the last offset of each key in the range that was mapped.
        map_end_offset: records from here on stay: the map knows nothing of them.
        group_end_offset: offset behind the group; the batch that ends there stays, if as a header.
        last_offsets: of each active producer the last offset of its last batch.
        now_ms, delete_horizon_ms: the clock, and the horizon that new tombstones get.
        base_offset, index_interval_bytes: of the resulting segment.

    """

    changed_batches: int
    """Batches that went or were rewritten."""
    kept_records: int
    dropped_records: int
    unreadable_batches: int
    size: int
    """Bytes of the resulting segment so far."""
    first_timestamp: int
    max_timestamp: int
    max_timestamp_offset: int
    """As in trioq.storage.segment.Segment."""
    def __init__(
        self,
        offsets: OffsetMap,
        *,
        map_end_offset: int,
        group_end_offset: int,
        last_offsets: dict[int, int],
        now_ms: int,
        delete_horizon_ms: int,
        base_offset: int,
        index_interval_bytes: int,
    ) -> None: ...
    def add_batches(self, buf: Buffer, position: int, end: int) -> tuple[int, int]:
        """Filter the batches in [position, end): where that stopped, and why; as OffsetMap's."""

    def open_batch(self, batch: Buffer, data: Buffer | None) -> bytes | None:
        """Filter one compressed batch, `data` being its decompressed records.

        Returns the records that stay, if those are to be compressed again and given to
        `close_batch`; None when the batch is dealt with. `data` None: it could not be
        decompressed, and stays as it is.
        """

    def close_batch(self, data: bytes) -> None:
        """The compressed records of the batch that `open_batch` has returned records of."""

    def take_output(self) -> bytes:
        """The bytes of the resulting segment that came since the last call."""

    def index_data(self) -> tuple[bytes, bytes]:
        """Content of the offset index and of the time index, so far."""
