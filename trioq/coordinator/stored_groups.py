"""The groups of a slot, as they are read from the metastore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trioq import logs
from trioq.coordinator.offsets import OffsetTable
from trioq.coordinator.stored_group import HEAD, StoredNodes
from trioq.metastore.group_encoding import (
    decode_head,
    decode_members,
)
from trioq.metastore.group_layout import (
    ClassicGroup,
    ClassicMember,
    ConsumerMember,
    OffsetsKey,
    StoredGroup,
    StoredHead,
    StoredMember,
    group_id_of,
    members_node_name,
)
from trioq.metastore.layout import CorruptNode
from trioq.metastore.store import Node

_log = logs.get_logger(__name__)


@dataclass(slots=True)
class ReadGroup:
    """A group that is stored: what its nodes hold.

    `group` is None where its removal was not finished, or where it is damaged: `damage` then
    says what cannot be read.
    """

    group_id: str
    nodes: StoredNodes
    offsets: OffsetTable
    group: StoredGroup | None = None
    damage: CorruptNode | None = None


def read_groups(top: str, tree: Mapping[str, Node]) -> Iterator[ReadGroup]:
    """Every group in a tree that was read below the slot's node for groups, `top`.

    What is damaged concerns its group alone, and is logged.
    """
    below: dict[str, dict[str, Node]] = {}
    start = len(top) + 1
    for path, node in tree.items():
        name, _, child = path[start:].partition("/")
        if name:
            below.setdefault(name, {})[child] = node
    for name, nodes in below.items():
        path = f"{top}/{name}"
        try:
            group_id = group_id_of(path, name)
        except CorruptNode as damage:
            _log.error("stored group is left out", reason=str(damage))
            continue
        yield _read_group(path, group_id, nodes)


def _read_group(path: str, group_id: str, nodes: Mapping[str, Node]) -> ReadGroup:
    found = ReadGroup(group_id, StoredNodes(path), OffsetTable())
    found.nodes.existing.update(nodes)
    try:
        head_value = nodes[HEAD].value
        head = decode_head(path, group_id, head_value)
        if head.group is None:
            return found
        members, places = _read_members(path, head, nodes)
        for name, node in nodes.items():
            key = OffsetsKey.of(name)
            if key is not None:
                found.offsets.load(f"{path}/{name}", key, node.value)
    except CorruptNode as damage:
        _log.error(
            "stored group cannot be read: its members and commits are refused; restore the "
            "metastore from a backup, or delete the group",
            group=group_id,
            reason=str(damage),
        )
        found.offsets.clear()
        found.damage = damage
        return found
    found.nodes.loaded(head, head_value, places)
    found.group = head.group._replace(members=members)  # type: ignore[arg-type]
    return found


def _read_members(
    path: str, head: StoredHead, nodes: Mapping[str, Node]
) -> tuple[tuple[StoredMember, ...], dict[str, int]]:
    """The members in the shards that the head names, and the shard of each."""
    is_classic = isinstance(head.group, ClassicGroup)
    members: list[StoredMember] = []
    places: dict[str, int] = {}
    for shard in head.shards:
        name = members_node_name(head.bank, shard)
        where = f"{path}/{name}"
        if name not in nodes:
            raise CorruptNode(where, "it is missing")
        value = nodes[name].value
        some: tuple[StoredMember, ...]
        if is_classic:
            some = decode_members(where, value, ClassicMember)
        else:
            some = decode_members(where, value, ConsumerMember)
        for member in some:
            if member.member_id in places:
                raise CorruptNode(where, f"member {member.member_id!r} is there twice")
            places[member.member_id] = shard
        members += some
    return tuple(members), places
