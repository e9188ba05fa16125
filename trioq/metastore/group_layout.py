"""What of groups is kept in the metastore, and where: one class per kind of value.

    /slots/<n>/groups/<group>                            StoredHead: a group without its members
    /slots/<n>/groups/<group>/m<bank>-<k>                up to 100 members
    /slots/<n>/groups/<group>/o-<topic id>-<k>           committed offsets of partitions
                                                         256 k .. 256 k + 255

A group's name in a path is percent-encoded. Of the members' nodes only those that the head names
count: a group whose change does not fit into one multi is written to the other bank first, and
then the head turns to that bank. How values are written is in group_encoding.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from trioq.metastore import layout
from trioq.metastore.layout import CorruptNode
from trioq.types import TopicId

MEMBERS_PER_SHARD: Final = 100
PARTITIONS_PER_SHARD: Final = 256

MAX_GROUP_ID_BYTES: Final = 249
MAX_MEMBER_BYTES: Final = 160 * 1024
"""What a member's encoded value may count, so that a shard of one always fits into a multi."""

MAX_SHARD_BYTES: Final = 448 * 1024
"""What a shard's value may count, so that it fits into a multi together with the group's head."""

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
    """A group of the classic protocol. `state` is the value of a GroupPhase, such as "Stable".

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


StoredGroup = ClassicGroup | ConsumerGroup
StoredMember = ClassicMember | ConsumerMember
Member = TypeVar("Member", ClassicMember, ConsumerMember)


class StoredHead(NamedTuple):
    """A group's own node: the group (its `members` empty), and where its members are.

    `shards` are the numbers of the shards in `bank`. `group` is None while the group is being
    removed: whatever is left of it does not count.
    """

    group: StoredGroup | None
    bank: int = 0
    shards: tuple[int, ...] = ()


# ---- names and paths


_SAFE: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*")
_SAFE_BYTES: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-~."
)


def group_node_name(group_id: str) -> str:
    """A group's name in a path: percent-encoded, never "." or ".."."""
    if _SAFE.fullmatch(group_id):
        return group_id
    raw = group_id.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _SAFE_BYTES else f"%{byte:02X}" for byte in raw)
    return name.replace(".", "%2E", 1) if name.startswith(".") else name


def group_id_of(path: str, name: str) -> str:
    """The group whose name in a path is `name`. Raises CorruptNode naming `path`."""
    if "%" not in name:
        return name
    try:
        raw = re.sub(rb"%([0-9A-F]{2})", lambda hit: bytes([int(hit[1], 16)]), name.encode())
        group_id = raw.decode("utf-8", "surrogatepass")
    except ValueError as error:
        raise CorruptNode(path, error) from error
    if group_node_name(group_id) != name:
        raise CorruptNode(path, "its name is no encoded group id")
    return group_id


def group_path(slot: int, group_id: str) -> str:
    """Where the group's StoredHead is, with its members and offsets below."""
    return f"{layout.slot_groups_path(slot)}/{group_node_name(group_id)}"


def members_node_name(bank: int, shard: int) -> str:
    """The name, below its group's node, of a shard of members."""
    return f"m{bank}-{shard}"


class OffsetsKey(NamedTuple):
    """A shard of committed offsets: partitions `shard` * 256 and the 255 after it."""

    topic_id: TopicId
    shard: int

    @property
    def node_name(self) -> str:
        """Its name below its group's node."""
        return f"o-{self.topic_id.hex}-{self.shard}"

    @classmethod
    def of(cls, name: str) -> OffsetsKey | None:
        """The key of the node called `name`; None if it is none of offsets."""
        parts = _OFFSETS_NAME.fullmatch(name)
        return None if parts is None else cls(TopicId(parts[1]), int(parts[2]))


_OFFSETS_NAME: Final = re.compile(r"o-([0-9a-f]{32})-(0|[1-9][0-9]{0,6})", re.ASCII)
