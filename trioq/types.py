"""Names that stop mix-ups, and the few values that cross floors."""

from __future__ import annotations

import uuid
from typing import NamedTuple, NewType, Protocol

Offset = NewType("Offset", int)
"""Logical position of a record in a partition; first is 0."""

LeaderEpoch = NewType("LeaderEpoch", int)
"""Term of a partition leader; -1 where none is known."""

BrokerId = NewType("BrokerId", int)
ProducerId = NewType("ProducerId", int)

TopicId = uuid.UUID
"""Topics are identified by id wherever data is kept; names are for people."""

ZERO_TOPIC_ID = uuid.UUID(int=0)
"""The id that means "none given" on the wire."""


class TopicPartition(NamedTuple):
    """A partition by topic name and number."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class RecordMetadata(NamedTuple):
    """Where a record was written; `offset` is -1 where the broker did not say (acks=0)."""

    topic: str
    partition: int
    offset: int
    append_time_ms: int
    """The broker's time, for topics that have it as the records' timestamp; else -1."""


class OpenFile(Protocol):
    """A reference-counted open file, as storage/ lends it to net/.

    `fileno` is valid while at least one reference is held. `retain` and `release` are
    plain calls made on the broker's loop thread only.
    """

    def fileno(self) -> int: ...
    def retain(self) -> None: ...
    def release(self) -> None: ...


class FileRegion(NamedTuple):
    """Bytes [position, position + length) of a file, promised not to change while held.

    Whoever makes a region has retained `file` once for it; whoever finishes with the
    region (bytes sent, or connection gone) calls `file.release()` exactly once.
    """

    file: OpenFile
    position: int
    length: int
