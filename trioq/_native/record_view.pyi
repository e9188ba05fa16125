"""Fetched batches and their records, opened when touched, for consumers."""

from collections.abc import Iterator, Sequence
from typing import Generic, final

from typing_extensions import TypeVar

from trioq._native.batch_header import BatchHeader

_K = TypeVar("_K", default=bytes | None)
_V = TypeVar("_V", default=bytes | None)

@final
class Record(Generic[_K, _V]):
    """One fetched record. Keys, values and headers become objects when they are touched.

    It keeps the fetched bytes of its whole response alive: keep its value, not the record, where
    few of many are kept for long.
    """

    @property
    def batch(self) -> RecordBatchView[_K, _V]: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch, or -1."""

    @property
    def timestamp_type(self) -> int:
        """0: the producer's; 1: when the broker appended it."""

    @property
    def leader_epoch(self) -> int:
        """Term of the leader that appended it; -1 where not known."""

    @property
    def key(self) -> _K:
        """Deserialized (once) where there is a deserializer and the key is not null."""

    @property
    def value(self) -> _V:
        """Deserialized (once) where there is a deserializer and the value is not null."""

    @property
    def raw_key(self) -> bytes | None:
        """As it came."""

    @property
    def raw_value(self) -> bytes | None:
        """As it came."""

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """Keys that are no UTF-8 come with replacement characters."""

@final
class RecordBatchView(Generic[_K, _V]):
    """The records of one fetched batch, from the offset asked for on.

    The batch is opened (decompressed, every record checked) by the first touch of a record, `len`
    of a compacted batch, or `open`; that raises InvalidRecord, which names topic, partition and
    offset, where the records are corrupt or too large. Deserializers are called as records are
    touched, and raise from there; null stays None.
    """

    @property
    def header(self) -> BatchHeader: ...
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def start_offset(self) -> int:
        """No record before it is shown: the batch's base offset or, within it, what was asked."""

    @property
    def last_offset(self) -> int:
        """Of the batch; compaction may have removed that record."""

    @property
    def next_offset(self) -> int:
        """Where to go on after this batch."""

    @property
    def leader_epoch(self) -> int: ...
    @property
    def size_bytes(self) -> int:
        """As fetched: compressed, with its header."""

    def open(self) -> None:
        """Decompress and check the records now; may run in any thread. Does nothing again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record[_K, _V]]: ...
    @property
    def offsets(self) -> Sequence[int]:
        """One for each record: a range, or a list where compaction left gaps."""

    def keys(self) -> list[_K]:
        """One for each record, as all of these."""

    def values(self) -> list[_V]: ...
    def timestamps(self) -> list[int]: ...
    def headers(self) -> list[tuple[tuple[str, bytes | None], ...]]: ...
