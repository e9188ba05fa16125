"""The committed offsets of one group in memory: as they are in the metastore, entry by entry.

Entries are kept encoded, the way they are written: a write joins them, and reading, which is
rare, decodes. What is here is durable; changes are staged beside it until they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from trioq.coordinator.offset_requests import FetchedOffsets, NewOffset, PartitionsByTopic
from trioq.metastore.group_encoding import (
    decode_offsets,
    encode_offset,
    encode_offsets,
)
from trioq.metastore.group_layout import (
    PARTITIONS_PER_SHARD,
    CommittedOffset,
    OffsetsKey,
)
from trioq.types import TopicId

Entries = dict[int, bytes]
"""Encoded offsets by partition."""

OffsetChanges = dict[OffsetsKey, dict[int, bytes | None]]
"""What to set, and with None what to forget, by shard and partition."""

_ENTRY_OVERHEAD_BYTES: Final = 64
_SHARD_OVERHEAD_BYTES: Final = 256


def changes_of(
    offsets: Iterable[NewOffset], commit_ms: int, expire_ms: int | None = None
) -> OffsetChanges:
    """The changes that commit `offsets`; of a partition named twice the last one counts."""
    changes: OffsetChanges = {}
    last_topic_id: TopicId | None = None
    last_shard = -1
    entries: dict[int, bytes | None] = {}
    for topic_id, partition, offset, leader_epoch, metadata in offsets:
        shard = partition // PARTITIONS_PER_SHARD
        if shard != last_shard or topic_id is not last_topic_id:
            entries = changes.setdefault(OffsetsKey(topic_id, shard), {})
            last_topic_id, last_shard = topic_id, shard
        if metadata or expire_ms is not None:
            committed = CommittedOffset(offset, leader_epoch, metadata, commit_ms, expire_ms)
            entries[partition] = encode_offset(partition, committed)
        else:
            entries[partition] = b'[%d,%d,%d,"",%d]' % (partition, offset, leader_epoch, commit_ms)
    return changes


def forgetting(partitions: PartitionsByTopic) -> OffsetChanges:
    """The changes that forget the offsets of `partitions`."""
    changes: OffsetChanges = {}
    for topic_id, numbers in partitions.items():
        for partition in numbers:
            key = OffsetsKey(topic_id, partition // PARTITIONS_PER_SHARD)
            changes.setdefault(key, {})[partition] = None
    return changes


def size_bytes(changes: OffsetChanges) -> int:
    """About what the changes take in memory."""
    return sum(
        _SHARD_OVERHEAD_BYTES
        + sum(_ENTRY_OVERHEAD_BYTES + len(entry or b"") for entry in entries.values())
        for entries in changes.values()
    )


def value_bytes(entries: Mapping[int, bytes]) -> int:
    """How long the value of a node with `entries` is, at most."""
    return 16 + len(entries) + sum(map(len, entries.values()))


def value_of(entries: Mapping[int, bytes]) -> bytes | None:
    """The value of a node with `entries`; None, no node, if there are none."""
    return encode_offsets(entries.values()) if entries else None


class Expiry(NamedTuple):
    """Which offsets of a group are out of date at `now_ms` (KIP-211).

    An offset for which the client stated a retention goes by that. Of the others, those of
    topics in `kept` stay; for the rest `retention_ms` counts from the commit, or from
    `since_ms` where that is later: when the group became empty. None: they all stay.
    """

    now_ms: int
    retention_ms: int
    since_ms: int | None
    kept: frozenset[TopicId] = frozenset()

    def is_over(self, topic_id: TopicId, committed: CommittedOffset) -> bool:
        """True if the offset is to be forgotten."""
        if committed.expire_ms is not None:
            return self.now_ms >= committed.expire_ms
        if self.since_ms is None or topic_id in self.kept:
            return False
        return self.now_ms - max(committed.commit_ms, self.since_ms) >= self.retention_ms


class OffsetTable:
    """One group's committed offsets, all of them durable. Owned by the group's driver."""

    __slots__ = ("_shards",)

    def __init__(self) -> None:
        self._shards: dict[OffsetsKey, Entries] = {}

    def __bool__(self) -> bool:
        """True if there is any offset."""
        return bool(self._shards)

    @property
    def shard_count(self) -> int:
        """In how many nodes they are kept."""
        return len(self._shards)

    def load(self, path: str, key: OffsetsKey, value: bytes) -> None:
        """Take the offsets of the node at `path`. Raises CorruptNode."""
        decoded = decode_offsets(path, value, key.shard)
        self.install(key, {number: encode_offset(number, one) for number, one in decoded.items()})

    def staged(self, key: OffsetsKey) -> Entries:
        """The entries of a shard, to be changed and, when they are durable, installed."""
        return dict(self._shards.get(key, ()))

    def install(self, key: OffsetsKey, entries: Entries) -> None:
        """What the shard's node holds now; the table owns `entries`."""
        if entries:
            self._shards[key] = entries
        else:
            self._shards.pop(key, None)

    def clear(self) -> None:
        """The group was removed with all its offsets."""
        self._shards.clear()

    def fetch(self, partitions: PartitionsByTopic | None) -> FetchedOffsets:
        """The offsets of `partitions`, or all."""
        if partitions is None:
            found: dict[TopicId, dict[int, CommittedOffset]] = {}
            for key, entries in self._shards.items():
                found.setdefault(key.topic_id, {}).update(_decoded(key, entries))
            return found
        return {
            topic_id: offsets
            for topic_id, numbers in partitions.items()
            if (offsets := self._fetch_topic(topic_id, numbers))
        }

    def _fetch_topic(self, topic_id: TopicId, numbers: Iterable[int]) -> dict[int, CommittedOffset]:
        wanted: dict[int, Entries] = {}
        for number in numbers:
            shard = number // PARTITIONS_PER_SHARD
            entry = self._shards.get(OffsetsKey(topic_id, shard), _NO_ENTRIES).get(number)
            if entry is not None:
                wanted.setdefault(shard, {})[number] = entry
        offsets: dict[int, CommittedOffset] = {}
        for shard, entries in wanted.items():
            offsets.update(_decoded(OffsetsKey(topic_id, shard), entries))
        return offsets

    def has(self, topic_id: TopicId, partition: int) -> bool:
        """True if there is an offset for the partition."""
        key = OffsetsKey(topic_id, partition // PARTITIONS_PER_SHARD)
        return partition in self._shards.get(key, _NO_ENTRIES)

    def topic_ids(self) -> set[TopicId]:
        """The topics that there are offsets for."""
        return {key.topic_id for key in self._shards}

    def _all(self) -> Iterator[tuple[OffsetsKey, int, CommittedOffset]]:
        for key, entries in self._shards.items():
            for partition, committed in _decoded(key, entries).items():
                yield key, partition, committed

    def entries_at(self, changes: OffsetChanges) -> dict[OffsetsKey, Entries]:
        """What there is now where `changes` change something; for OffsetChange.expected."""
        return {
            key: {number: entry for number in numbers if (entry := entries.get(number)) is not None}
            for key, numbers in changes.items()
            if (entries := self._shards.get(key, _NO_ENTRIES))
        }

    def count(self) -> int:
        """How many partitions have an offset."""
        return sum(map(len, self._shards.values()))

    # What upkeep changes; each is empty where there is nothing to do.

    def without_topics(self, lives: Callable[[TopicId], bool]) -> OffsetChanges:
        """Forget the offsets of topics that do not live any more."""
        return {
            key: dict.fromkeys(entries)
            for key, entries in self._shards.items()
            if not lives(key.topic_id)
        }

    def expired(self, expiry: Expiry) -> OffsetChanges:
        """Forget what is out of date."""
        changes: OffsetChanges = {}
        for key, partition, committed in self._all():
            if expiry.is_over(key.topic_id, committed):
                changes.setdefault(key, {})[partition] = None
        return changes

    def clamped(self, log_end: Callable[[TopicId, int], int | None]) -> OffsetChanges:
        """Set offsets above the end of their log (`log_end`; None: not known here) to that end.

        The leader epoch is then unknown: that of a record which is gone would be wrong.
        """
        changes: OffsetChanges = {}
        for key, partition, committed in self._all():
            end = log_end(key.topic_id, partition)
            if end is not None and committed.offset > end:
                clamped = committed._replace(offset=end, leader_epoch=-1)
                changes.setdefault(key, {})[partition] = encode_offset(partition, clamped)
        return changes


_NO_ENTRIES: Final[Entries] = {}


def _decoded(key: OffsetsKey, entries: Mapping[int, bytes]) -> dict[int, CommittedOffset]:
    return decode_offsets(key.node_name, encode_offsets(entries.values()), key.shard)
