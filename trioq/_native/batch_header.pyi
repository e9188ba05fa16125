"""The header of a v2 batch, decoded. Layout and attribute bits: trioq.record.layout."""

from typing import final

@final
class BatchHeader:
    """The 61 bytes of one batch's header, decoded; immutable."""

    position: int
    """Where the batch starts in the buffer it was read from."""
    size_bytes: int
    """The whole batch: header and records."""
    base_offset: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are unknown."""

    @property
    def timestamp_type(self) -> int:
        """0: timestamps are the producer's; 1: all records have max_timestamp (append time)."""

    @property
    def is_transactional(self) -> bool: ...
    @property
    def is_control(self) -> bool: ...
    @property
    def has_delete_horizon(self) -> bool:
        """Compaction set it: base_timestamp is then the horizon."""

    @property
    def has_producer_id(self) -> bool: ...
    @property
    def last_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...
    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; wraps to 0 after 2^31 - 1. -1 without sequences."""
