"""What of groups is kept in the metastore: one class per kind of value, with its encoding.

    /slots/<n>                                   SlotState: who leads; the version is the slot epoch
    /slots/<n>/seq                               the token of the slot's last write
    /slots/<n>/groups/<group>                    ClassicGroup or ConsumerGroup, without members
    /slots/<n>/groups/<group>/<members shard>    up to 100 members
    /slots/<n>/groups/<group>/<offsets shard>    OffsetsShard: committed offsets of one topic id,
                                                 256 partitions each

A group's name in a path is percent-encoded. Values are JSON without spaces, bytes as base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from trioq.types import TopicId

NO_PARTITIONS: Final[Mapping[TopicId, frozenset[int]]] = MappingProxyType({})

Assignment = Mapping[TopicId, frozenset[int]]
"""Partitions by topic id; never with an empty set."""


class ClassicMember(NamedTuple):
    """A member of a group of the classic protocol.

    `protocols` are all it supports, in its order of preference, with its metadata for each.
    `assignment` is what the leader's plan gave it, empty before the plan came.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""


class ClassicGroup(NamedTuple):
    """A group of the classic protocol. `state` is the name of a GroupPhase.

    `generation` is 0 before the first rebalance; `protocol` and `leader` are None while there are
    no members. `state_since_ms` is wall-clock time: how long the group has been empty decides
    when its offsets expire (KIP-211).
    """

    group_id: str
    protocol_type: str | None
    generation: int
    protocol: str | None
    leader: str | None
    state: str
    state_since_ms: int
    members: tuple[ClassicMember, ...] = ()


class ConsumerMember(NamedTuple):
    """A member of a group of the consumer protocol (KIP-848).

    `state` is the name of a MemberPhase. `assigned` is what it owns at `member_epoch`;
    `pending_revocation` what it has still to give up. `target` is its part of the target
    assignment at the group's assignment epoch. `classic_*` are set for a member that speaks the
    classic protocol in this group (online migration): its session timeout and its protocols.
    """

    member_id: str
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    member_epoch: int
    previous_member_epoch: int
    state: str
    subscribed_names: frozenset[str] = frozenset()
    subscribed_regex: str | None = None
    server_assignor: str | None = None
    assigned: Assignment = NO_PARTITIONS
    pending_revocation: Assignment = NO_PARTITIONS
    target: Assignment = NO_PARTITIONS
    classic_session_timeout_ms: int | None = None
    classic_protocols: tuple[tuple[str, bytes], ...] = ()


class ConsumerGroup(NamedTuple):
    """A group of the consumer protocol (KIP-848).

    `group_epoch` grows with each change of members, subscriptions or topics;
    `assignment_epoch` is the group epoch that the target assignment was made for.
    """

    group_id: str
    group_epoch: int
    assignment_epoch: int
    assignor: str
    state_since_ms: int
    members: tuple[ConsumerMember, ...] = ()


class CommittedOffset(NamedTuple):
    """What a group has committed for one partition.

    `expire_ms` is set only where the client stated a retention (OffsetCommit 2-4).
    """

    offset: int
    leader_epoch: int
    metadata: str
    commit_ms: int
    expire_ms: int | None = None
