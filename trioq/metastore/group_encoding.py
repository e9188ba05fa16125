"""How what is kept of groups is written: values to JSON without spaces, bytes as base64.

Members and offsets are encoded one by one and joined, so that who changes one of a shard need not
encode the others again. Decoding raises CorruptNode for whatever was not written here.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable
from typing import Any, Final

from trioq.metastore import layout
from trioq.metastore.group_layout import (
    PARTITIONS_PER_SHARD,
    ClassicGroup,
    ClassicMember,
    CommittedOffset,
    ConsumerGroup,
    Member,
    StoredHead,
    StoredMember,
)
from trioq.metastore.layout import encode_json
from trioq.types import TopicId


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
