"""Kafka's checkpoint files: text, version 0.

    0                       version
    2                       number of entries
    orders 0 1234           topic, partition, offset (or, for leader epochs: epoch, start offset)
    orders 1 99

They are written with `Disk.replace_file`, so a reader finds the old or the new one, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from trioq.errors import TrioqError
from trioq.types import TopicPartition

VERSION: Final = 0

RECOVERY_POINT_FILE: Final = "recovery-point-offset-checkpoint"
HIGH_WATERMARK_FILE: Final = "replication-offset-checkpoint"
LOG_START_FILE: Final = "log-start-offset-checkpoint"
CLEANER_FILE: Final = "cleaner-offset-checkpoint"
LEADER_EPOCH_FILE: Final = "leader-epoch-checkpoint"

_MAX_LONG: Final = 2**63 - 1
_MAX_INT: Final = 2**31 - 1
_LONGEST_NUMBER: Final = 20


class CorruptCheckpoint(TrioqError):
    """A checkpoint file is damaged; the message says where. What it held can be rebuilt."""


def encode_lines(lines: Iterable[str]) -> bytes:
    """A checkpoint file of these entries."""
    entries = list(lines)
    return "\n".join((str(VERSION), str(len(entries)), *entries, "")).encode()


def decode_lines(data: bytes, location: str) -> list[str]:
    """The entries of a checkpoint file as lines; none in an empty file, which Kafka makes.

    `location` names the file in the message.

    Raises:
        CorruptCheckpoint: another version, or not as many lines as it says.

    """
    if not data:
        return []
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"{location}: byte {error.start} is not text") from None
    if lines[-1]:
        raise CorruptCheckpoint(f"{location}: the last line is cut off: {lines[-1][:80]!r}")
    lines = [line.removesuffix("\r") for line in lines[:-1]]
    if _number(lines[0], location, _MAX_INT) != VERSION:
        raise CorruptCheckpoint(f"{location}: version {lines[0]}, known is {VERSION}")
    if len(lines) < 2:
        raise CorruptCheckpoint(f"{location}: the number of entries is missing")
    entries = lines[2:]
    if _number(lines[1], location, _MAX_INT) != len(entries):
        raise CorruptCheckpoint(f"{location}: {lines[1]} entries announced, {len(entries)} found")
    return entries


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """An offset checkpoint, sorted."""
    return encode_lines(
        f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())
    )


def decode_offsets(data: bytes, location: str) -> dict[TopicPartition, int]:
    """What an offset checkpoint holds.

    Raises:
        CorruptCheckpoint: as `decode_lines`, or a line that is not topic, partition and offset, or
            a partition that comes twice.

    """
    offsets: dict[TopicPartition, int] = {}
    for line in decode_lines(data, location):
        parts = line.split()
        if len(parts) != 3:
            raise CorruptCheckpoint(f"{location}: not topic, partition and offset: {line[:300]!r}")
        topic_partition = TopicPartition(parts[0], _number(parts[1], location, _MAX_INT))
        if topic_partition in offsets:
            raise CorruptCheckpoint(f"{location}: {topic_partition} comes twice")
        offsets[topic_partition] = _number(parts[2], location, _MAX_LONG)
    return offsets


def encode_epochs(entries: Iterable[tuple[int, int]]) -> bytes:
    """A leader epoch checkpoint of (epoch, start offset) pairs."""
    return encode_lines(f"{epoch} {start_offset}" for epoch, start_offset in entries)


def decode_epochs(data: bytes, location: str) -> list[tuple[int, int]]:
    """The (epoch, start offset) pairs of a leader epoch checkpoint.

    Raises:
        CorruptCheckpoint: as `decode_lines`, or a line that is not two numbers, or pairs that do
            not ascend in both.

    """
    entries: list[tuple[int, int]] = []
    for line in decode_lines(data, location):
        parts = line.split()
        if len(parts) != 2:
            raise CorruptCheckpoint(f"{location}: not epoch and start offset: {line[:300]!r}")
        epoch = _number(parts[0], location, _MAX_INT)
        start_offset = _number(parts[1], location, _MAX_LONG)
        if entries and not (entries[-1][0] < epoch and entries[-1][1] < start_offset):
            raise CorruptCheckpoint(f"{location}: {line!r} does not ascend from {entries[-1]}")
        entries.append((epoch, start_offset))
    return entries


def _number(text: str, location: str, maximum: int) -> int:
    """A number from 0 to `maximum` in plain decimal digits."""
    if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER:
        number = int(text)
        if number <= maximum:
            return number
    raise CorruptCheckpoint(f"{location}: {text[:80]!r} is not a number from 0 to {maximum}")
