"""What of groups is kept in the metastore: one class per kind of value, with its encoding.

    /slots/<n>/groups/<group>                            StoredHead: a group without its members
    /slots/<n>/groups/<group>/m<bank>-<k>                up to 100 members
    /slots/<n>/groups/<group>/o-<topic id>-<k>           committed offsets of partitions
                                                         256 k .. 256 k + 255

A group's name in a path is percent-encoded. Of the members' nodes only those that the head names
count: a group whose change does not fit into one multi is written to the other bank first, and
then the head turns to that bank. Values are JSON without spaces, bytes as base64.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from trioq.metastore import layout
from trioq.metastore.layout import CorruptNode, encode_json
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


# ---- encoding


def encode_head(head: StoredHead) -> bytes:
    """The value of a group's node."""
    group = head.group
    data: dict[str, Any]
    if group is None:
        data = {"kind": "removing"}
    else:
        data = group._asdict()
        del data["group_id"], data["members"]
        data["kind"] = "classic" if isinstance(group, ClassicGroup) else "consumer"
        data["bank"] = head.bank
        data["shards"] = head.shards
    return encode_json(data).encode()


def decode_head(path: str, group_id: str, value: bytes) -> StoredHead:
    """The head in the node at `path`. Raises CorruptNode."""

    def of(data: Any) -> StoredHead:
        kind = data.pop("kind")
        if kind == "removing":
            return StoredHead(None)
        bank, shards = _number(data.pop("bank")), tuple(map(_number, data.pop("shards")))
        group_class = {"classic": ClassicGroup, "consumer": ConsumerGroup}[kind]
        group = group_class(group_id, **data)
        for name, field in zip(group._fields, group, strict=True):
            _check_field(name, field)
        return StoredHead(group, bank, shards)

    return layout.decode_node(path, value, of)


def encode_member(member: StoredMember) -> bytes:
    """One member, to be joined with others by `encode_members`."""
    data = member._asdict()
    if isinstance(member, ClassicMember):
        data["protocols"] = _encode_protocols(member.protocols)
        data["assignment"] = _encode_bytes(member.assignment)
    else:
        data["classic_protocols"] = _encode_protocols(member.classic_protocols)
        data["subscribed_names"] = sorted(member.subscribed_names)
        for name in _ASSIGNMENTS:
            data[name] = {
                topic_id.hex: _runs(partitions) for topic_id, partitions in data[name].items()
            }
    return encode_json(data).encode()


def encode_members(encoded: Iterable[bytes]) -> bytes:
    """The value of a shard of members, each encoded already."""
    return b'{"members":[%b]}' % b",".join(encoded)


def decode_members(path: str, value: bytes, member_class: type[Member]) -> tuple[Member, ...]:
    """The members in the node at `path`. Raises CorruptNode."""

    def of(data: Any) -> tuple[Member, ...]:
        return tuple(_member_of(member, member_class) for member in data["members"])

    return layout.decode_node(path, value, of)


def _member_of(data: dict[str, Any], member_class: type[Member]) -> Member:
    if member_class is ClassicMember:
        data["protocols"] = _decode_protocols(data["protocols"])
        data["assignment"] = _decode_bytes(data["assignment"])
    else:
        data["classic_protocols"] = _decode_protocols(data["classic_protocols"])
        data["subscribed_names"] = frozenset(map(_text, data["subscribed_names"]))
        for name in _ASSIGNMENTS:
            data[name] = {
                TopicId(topic_id): _of_runs(runs) for topic_id, runs in data[name].items()
            }
    member = member_class(**data)
    for name, field in zip(member._fields, member, strict=True):
        _check_field(name, field)
    return member


def encode_offset(partition: int, committed: CommittedOffset) -> bytes:
    """One partition's entry, to be joined with others by `encode_offsets`."""
    offset, leader_epoch, metadata, commit_ms, expire_ms = committed
    quoted = _quote(metadata) if metadata else '""'
    expiry = "" if expire_ms is None else f",{expire_ms}"
    return f"[{partition},{offset},{leader_epoch},{quoted},{commit_ms}{expiry}]".encode()


def encode_offsets(encoded: Iterable[bytes]) -> bytes:
    """The value of a shard of offsets, each encoded already."""
    return b'{"offsets":[%b]}' % b",".join(encoded)


def decode_offsets(path: str, value: bytes, shard: int) -> dict[int, CommittedOffset]:
    """The offsets in the node at `path`, by partition. Raises CorruptNode."""
    first = shard * PARTITIONS_PER_SHARD

    def of(data: Any) -> dict[int, CommittedOffset]:
        offsets: dict[int, CommittedOffset] = {}
        for partition, offset, leader_epoch, metadata, commit_ms, *expiry in data["offsets"]:
            if not first <= _number(partition) < first + PARTITIONS_PER_SHARD or len(expiry) > 1:
                raise ValueError(f"partition {partition} is not of this shard")
            expire_ms = _number(expiry[0]) if expiry else None
            offsets[partition] = CommittedOffset(
                _number(offset),
                _number(leader_epoch, 32),
                _text(metadata),
                _number(commit_ms),
                expire_ms,
            )
        return offsets

    return layout.decode_node(path, value, of)


_quote: Final = json.JSONEncoder(ensure_ascii=False).encode

_ASSIGNMENTS: Final = ("assigned", "pending_revocation", "target")
_CONVERTED: Final = frozenset(
    {"members", "protocols", "assignment", "classic_protocols", "subscribed_names", *_ASSIGNMENTS}
)
_OPTIONAL: Final = frozenset(
    {
        "protocol_type", "protocol", "leader", "instance_id", "rack_id", "subscribed_regex",
        "server_assignor", "classic_session_timeout_ms",
    }
)  # fmt: skip
_NUMBERS: Final = frozenset(
    {
        "generation", "state_since_ms", "rebalance_timeout_ms", "session_timeout_ms",
        "group_epoch", "assignment_epoch", "member_epoch", "previous_member_epoch",
        "classic_session_timeout_ms",
    }
)  # fmt: skip


def _check_field(name: str, field: object) -> None:
    """Raise TypeError or ValueError where a decoded field is of another type than declared."""
    if name in _CONVERTED or (field is None and name in _OPTIONAL):
        return
    if name in _NUMBERS:
        _number(field, 64 if name == "state_since_ms" else 32)
    else:
        _text(field)


def _number(value: Any, bits: int = 64) -> int:
    """A number that the protocol can carry in a field of that many bits."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a number")
    if not -1 << (bits - 1) <= value < 1 << (bits - 1):
        raise ValueError(f"{value} does not fit into {bits} bits")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    value.encode()
    return value


def _runs(partitions: Iterable[int]) -> list[int]:
    """Numbers as runs: where each begins, and how many there are in it."""
    runs: list[int] = []
    for number in sorted(partitions):
        if runs and number == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += (number, 1)
    return runs


def _of_runs(runs: Any) -> frozenset[int]:
    numbers: set[int] = set()
    for first, length in zip(runs[::2], runs[1::2], strict=True):
        if not 0 < _number(length) <= layout.MAX_CHILDREN:
            raise ValueError(f"a run of {length} partitions")
        numbers.update(range(_number(first), first + length))
    return frozenset(numbers)


def _encode_bytes(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _decode_bytes(value: str) -> bytes:
    return binascii.a2b_base64(value, strict_mode=True)


def _encode_protocols(protocols: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
    return [(name, _encode_bytes(metadata)) for name, metadata in protocols]


def _decode_protocols(protocols: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((_text(name), _decode_bytes(metadata)) for name, metadata in protocols)
