"""A member of a group of the classic protocol."""

from __future__ import annotations

import math
import struct
from typing import Final

from trioq.coordinator.effects import Waiter
from trioq.coordinator.group_requests import JoinRequest
from trioq.metastore.group_layout import ClassicMember

_VERSION_AND_COUNT: Final = struct.Struct(">hi")
_LENGTH: Final = struct.Struct(">h")


class GroupMember:
    """One member. `join_waiter` and `sync_waiter` are set while its request is parked.

    `expires_s` is when it is removed unless it gives a sign of life before; infinite while a
    request of its own is parked, as it does not heartbeat then (except for a member that is new,
    whom nothing else would bound).
    """

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "expires_s",
        "instance_id",
        "is_new",
        "join_waiter",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_waiter",
    )

    def __init__(self, kept: ClassicMember) -> None:
        """A member as it was written, or as it begins; without parked requests."""
        self.member_id = kept.member_id
        self.instance_id = kept.instance_id
        self.client_id = kept.client_id
        self.client_host = kept.client_host
        self.rebalance_timeout_ms = kept.rebalance_timeout_ms
        self.session_timeout_ms = kept.session_timeout_ms
        self.protocols = kept.protocols
        self.assignment = kept.assignment
        self.join_waiter: Waiter | None = None
        self.sync_waiter: Waiter | None = None
        self.is_new = False
        self.expires_s = math.inf

    @classmethod
    def new(cls, member_id: str, request: JoinRequest) -> GroupMember:
        """A member that joins for the first time."""
        member = cls(
            ClassicMember(
                member_id,
                request.instance_id,
                request.client_id,
                request.client_host,
                max(request.rebalance_timeout_ms, 0),
                request.session_timeout_ms,
                request.protocols,
            )
        )
        member.is_new = True
        return member

    def update(self, request: JoinRequest) -> None:
        """Take over what the member states anew when it rejoins."""
        self.client_id = request.client_id
        self.client_host = request.client_host
        self.rebalance_timeout_ms = max(request.rebalance_timeout_ms, 0)
        self.session_timeout_ms = request.session_timeout_ms
        self.protocols = request.protocols

    @property
    def is_parked(self) -> bool:
        """True while a JoinGroup or SyncGroup of it waits for its answer."""
        return self.join_waiter is not None or self.sync_waiter is not None

    def metadata(self, protocol: str | None) -> bytes:
        """Its metadata for a protocol; empty where it does not support it."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        return b""

    def subscribed_topics(self, protocol: str | None) -> frozenset[str] | None:
        """The topics of its consumer metadata; None where it cannot be read."""
        return subscription_topics(self.metadata(protocol) or self.protocols[0][1])

    def kept(self) -> ClassicMember:
        """The part of it that is written to the metastore."""
        return ClassicMember(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.protocols,
            self.assignment,
        )


def subscription_topics(metadata: bytes) -> frozenset[str] | None:
    """The topics of a consumer's subscription, of any version; None where it cannot be read.

    Every version begins with (version int16, topics array of string); what follows, such as the
    partitions owned, is not looked at.
    """
    try:
        version, count = _VERSION_AND_COUNT.unpack_from(metadata)
        if version < 0 or not 0 <= count <= len(metadata):
            return None
        topics = set()
        position = _VERSION_AND_COUNT.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(metadata, position)
            position += _LENGTH.size
            if length < 0 or position + length > len(metadata):
                return None
            topics.add(metadata[position : position + length].decode())
            position += length
    except (struct.error, UnicodeDecodeError):
        return None
    return frozenset(topics)
