"""What members of sticky groups tell their leader about the past, in Java's layouts.

sticky               array of (string topic, array of int32 partition), then int32 generation,
                     which the first version lacks
cooperative-sticky   int32 generation; the partitions are in the subscription itself

Whatever cannot be read counts as nothing owned: an assignor cannot ask back, and a member with
another client's idea of user data must not stop the group.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Collection
from typing import Final

from trioq.types import TopicPartition

NO_GENERATION: Final = -1

_INT32: Final = struct.Struct(">i")
_INT16: Final = struct.Struct(">h")


def encode_sticky(owned: Collection[TopicPartition], generation: int) -> bytes:
    """User data of a member that owned `owned` in `generation`."""
    by_topic: dict[str, list[int]] = defaultdict(list)
    for topic, partition in sorted(owned):
        by_topic[topic].append(partition)
    out = bytearray(_INT32.pack(len(by_topic)))
    for topic, partitions in by_topic.items():
        name = topic.encode()
        out += _INT16.pack(len(name)) + name
        out += struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    return bytes(out + _INT32.pack(generation))


def decode_sticky(data: bytes | None) -> tuple[tuple[TopicPartition, ...], int]:
    """(partitions owned, generation) from user data; nothing owned from what is none."""
    if not data:
        return (), NO_GENERATION
    owned: list[TopicPartition] = []
    try:
        (topics,) = _INT32.unpack_from(data, 0)
        position = _INT32.size
        for _ in range(topics):
            (length,) = _INT16.unpack_from(data, position)
            position += _INT16.size
            name = data[position : position + length]
            if length < 0 or len(name) != length:
                return (), NO_GENERATION
            topic = name.decode()
            position += length
            (count,) = _INT32.unpack_from(data, position)
            position += _INT32.size
            if count < 0 or count * _INT32.size > len(data) - position:
                return (), NO_GENERATION
            numbers = struct.unpack_from(f">{count}i", data, position)
            owned += [TopicPartition(topic, number) for number in numbers]
            position += count * _INT32.size
        generation = _INT32.unpack_from(data, position)[0] if position < len(data) else -1
    except (struct.error, UnicodeDecodeError):
        return (), NO_GENERATION
    return tuple(owned), generation


def encode_cooperative(generation: int) -> bytes:
    """User data of a member of `generation`."""
    return _INT32.pack(generation)


def decode_cooperative(data: bytes | None) -> int:
    """The generation in user data; NO_GENERATION if there is none."""
    if data is None or len(data) < _INT32.size:
        return NO_GENERATION
    return int(_INT32.unpack_from(data)[0])
