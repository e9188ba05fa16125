"""What the classic protocol's consumers tell each other through the group: not APIs.

The metadata of JoinGroup is a subscription and the assignment of SyncGroup an assignment, where
the group's protocol type is "consumer". Each begins with its version (int16). The coordinator
passes them on as bytes; it reads them only to know which topics a group consumes, and to
translate where a group moves between the protocols (KIP-848).

1: the partitions that a member owns (KIP-429). 2: since which generation. 3: its rack.
"""

from __future__ import annotations

from typing import Final

from trioq.errors import ProtocolViolation
from trioq.wire.kinds import BYTES, INT32, STRING
from trioq.wire.schema import Message, Struct, array, wire

PROTOCOL_TYPE: Final = "consumer"

_VERSION_BYTES: Final = 2


class ConsumerProtocolTopicPartition(Struct):
    topic: str = wire(STRING, default="")
    partitions: list[int] = wire(array(INT32), factory=list)


class ConsumerProtocolSubscription(Message, versions=(0, 3), tail_from=0, from_client=True):
    topics: list[str] = wire(array(STRING), factory=list)
    user_data: bytes | None = wire(BYTES, default=None, nullable=0)
    owned_partitions: list[ConsumerProtocolTopicPartition] = wire(
        array(ConsumerProtocolTopicPartition), factory=list, since=1, ignorable=True
    )
    generation_id: int = wire(INT32, default=-1, since=2, ignorable=True)
    rack_id: str | None = wire(STRING, default=None, since=3, nullable=3, ignorable=True)


class ConsumerProtocolAssignment(Message, versions=(0, 3), tail_from=0, from_client=True):
    assigned_partitions: list[ConsumerProtocolTopicPartition] = wire(
        array(ConsumerProtocolTopicPartition), factory=list
    )
    user_data: bytes | None = wire(BYTES, default=None, nullable=0)


def encode_subscription(subscription: ConsumerProtocolSubscription, version: int) -> bytes:
    """A member's metadata, with its version before it; raises EncodeError."""
    return _encoded(subscription, version)


def decode_subscription(metadata: bytes) -> tuple[int, ConsumerProtocolSubscription]:
    """The version and content of a member's metadata; raises ProtocolViolation.

    Versions to come only add fields, so a version that is not known is read as the newest
    known one. Clients are about that state a later version than they write: where that one
    cannot be read, what version 0 has is taken.
    """
    version = _version(metadata)
    newest = min(version, ConsumerProtocolSubscription.LAST_VERSION)
    view, end = memoryview(metadata), len(metadata)
    try:
        content = ConsumerProtocolSubscription.decode(view, _VERSION_BYTES, end, newest)
    except ProtocolViolation:
        if newest == 0:
            raise
        content = ConsumerProtocolSubscription.decode(view, _VERSION_BYTES, end, 0)
    return version, content


def encode_assignment(assignment: ConsumerProtocolAssignment, version: int) -> bytes:
    """A member's part of the plan, with its version before it; raises EncodeError."""
    return _encoded(assignment, version)


def decode_assignment(data: bytes) -> tuple[int, ConsumerProtocolAssignment]:
    """The version and content of a member's part of the plan; raises ProtocolViolation."""
    version = _version(data)
    newest = min(version, ConsumerProtocolAssignment.LAST_VERSION)
    return version, ConsumerProtocolAssignment.decode(
        memoryview(data), _VERSION_BYTES, len(data), newest
    )


def _encoded(message: Message, version: int) -> bytes:
    return version.to_bytes(_VERSION_BYTES, "big") + message.encode(version)


def _version(data: bytes) -> int:
    if len(data) < _VERSION_BYTES:
        raise ProtocolViolation(f"{len(data)} bytes are too few for a version of two")
    version = int.from_bytes(data[:_VERSION_BYTES], "big", signed=True)
    if version < 0:
        raise ProtocolViolation(f"version {version} is negative")
    return version
