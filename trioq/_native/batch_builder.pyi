"""A v2 batch that is filled record by record, for producers."""

from collections.abc import Callable, Sequence

from typing_extensions import Buffer

class BatchBuilder:
    """The open batch of one partition: records are encoded as they are appended.

    It takes records until it would have more than `batch_bytes`, uncompressed and with its
    header; the first record may go beyond that, up to `max_bytes`. Values and keys are copied.
    Not for use in two threads at once.
    """

    def __init__(
        self, batch_bytes: int, max_bytes: int = 0x7FFFFFFF, buffer: bytearray | None = None
    ) -> None:
        """Raises ValueError for a `max_bytes` that no batch can have.

        `buffer`, from an earlier `finish`, is overwritten and handed out by `finish`: memory that
        the process already has costs less than new memory.
        """

    @property
    def size_bytes(self) -> int:
        """Of the batch so far: 61 bytes of header, and the records uncompressed."""

    @property
    def batch_bytes(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def record_count(self) -> int: ...
    @property
    def base_timestamp(self) -> int:
        """The first record's; -1 without records."""

    @property
    def max_timestamp(self) -> int:
        """The greatest of its records; -1 without records."""

    @property
    def is_closed(self) -> bool: ...
    def __len__(self) -> int:
        """`record_count`."""

    def allow(self, batch_bytes: int) -> None:
        """Set `batch_bytes` anew: a producer takes memory for a batch in steps."""

    def append(
        self,
        key: Buffer | None,
        value: Buffer | None,
        headers: Sequence[tuple[str, Buffer | None]],
        timestamp_ms: int,
        /,
    ) -> int:
        """Append a record; returns its index in the batch, or -1 where it does not fit.

        Raises MessageTooLarge for a first record that takes more than `max_bytes`, TypeError for
        what is no record, ValueError after the end. Whatever is raised, nothing was appended.
        """

    def append_many(
        self,
        values: Sequence[Buffer | None],
        timestamp_ms: int,
        *,
        keys: Sequence[Buffer | None] | None = None,
        start: int = 0,
    ) -> int:
        """Append `values[start:]` in order as far as they fit; returns how many.

        `keys`, where given, has a key for each of `values`. All get `timestamp_ms` and no headers.
        Raises as append does, at the first value that cannot be appended: `record_count` tells
        how many were.
        """

    def finish(
        self,
        *,
        attributes: int = 0,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        compress: Callable[[memoryview], Buffer] | None = None,
    ) -> bytearray:
        """The finished batch, CRC included, now the caller's; the builder takes nothing after.

        `compress` is given all encoded records (valid until it returns) and must be there exactly
        when `attributes` names a codec. Raises ValueError without records or after the end, and
        what `compress` raises: the builder is then as before.
        """
