"""What is stored of groups, damaged: each group is read or refused, and works if it was read."""

from __future__ import annotations

import functools
import json
import math
import uuid
from collections.abc import Callable, Iterator

from tests.fuzz.target import Choices, Target, seeded
from tests.machines.consumer_group_support import FakeTopics
from trioq.coordinator.consumer_requests import ConsumerGroupSettings
from trioq.coordinator.group_requests import GroupSettings
from trioq.coordinator.offset_requests import NewOffset
from trioq.coordinator.offsets import changes_of, value_of
from trioq.coordinator.restoring import Damaged, restore_classic, restore_consumer
from trioq.coordinator.stored_group import HEAD, StoredNodes, Write
from trioq.coordinator.stored_groups import read_groups
from trioq.metastore import group_layout as groups
from trioq.metastore.group_layout import ClassicGroup
from trioq.metastore.store import Node

_TOP = "/slots/3/groups"
_ORDERS = uuid.UUID(int=1)


def _stored() -> list[groups.StoredGroup]:
    metadata = b"\0\0\0\0\0\1\0\6orders\xff\xff\xff\xff"
    members = tuple(
        groups.ClassicMember(
            f"m{number}", "one" if number else None, "c", "/h", 5_000, 6_000,
            (("range", metadata), ("sticky", metadata)), b"plan",
        )
        for number in range(3)
    )  # fmt: skip
    owned = {_ORDERS: frozenset({0, 1, 5})}
    consumers = tuple(
        groups.ConsumerMember(
            f"m{number}", f"i{number}", "rack", "c", "/h", 5_000, 4, 3, state,
            frozenset({"orders"}), "or.*", "uniform", owned if number == 0 else {},
            {}, owned if number == 0 else {},
        )
        for number, state in enumerate(("Stable", "UnreleasedPartitions"))
    )  # fmt: skip
    return [
        ClassicGroup("busy", "consumer", 7, "range", "m0", "Stable", 5, members[:2]),
        ClassicGroup("idle", None, 0, None, None, "Empty", 5),
        groups.ConsumerGroup("new", 4, 4, "uniform", 5, consumers),
    ]


@functools.cache
def sound_tree() -> dict[str, bytes]:
    """Three groups as they are written: values by path."""
    tree = {_TOP: b""}
    for group in _stored():
        nodes = StoredNodes(f"{_TOP}/{groups.group_node_name(group.group_id)}")
        writes = [write for step in nodes.plan(group).steps for write in step]
        changes = changes_of(
            [NewOffset(_ORDERS, number, 5, 1, "note") for number in range(3)], 9, 10
        )
        for key, entries in changes.items():
            value = value_of({number: entry for number, entry in entries.items() if entry})
            writes.append(Write(key.node_name, value))
        for name, value in writes:
            assert value is not None
            tree[nodes.path + (f"/{name}" if name != HEAD else "")] = value
    return tree


def check_groups(data: bytes) -> None:
    """Change values, bytes of them or fields, as the input says; read everything; use it."""
    choices = Choices(data)
    tree = dict(sound_tree())
    paths = sorted(tree)
    damaged = set()
    while not choices.is_used_up:
        path = paths[choices.byte() % len(paths)]
        damaged.add(path)
        kind = choices.byte()
        value = bytearray(tree[path])
        if kind % 4 == 0:
            tree[path] = _other_field(bytes(value), choices)
            continue
        at = choices.number(2) % (len(value) + 1)
        if kind % 4 == 1:
            del value[at:]
        else:
            new = choices.take(1 + kind % 8)
            value[at : at + len(new)] = new
        tree[path] = bytes(value)
    found = {}
    for one in read_groups(_TOP, {path: Node(value, 0) for path, value in tree.items()}):
        found[one.group_id] = one
        if one.group is not None:
            _use(one.group)
            assert one.offsets.fetch(None) is not None
            one.nodes.plan(one.group)
        one.nodes.plan_removal()
    for group in _stored():
        path = f"{_TOP}/{group.group_id}"
        if not any(one == path or one.startswith(path + "/") for one in damaged):
            assert found[group.group_id].group == group
            assert found[group.group_id].offsets.count() == 3


def _other_field(value: bytes, choices: Choices) -> bytes:
    """The value with one field of its JSON replaced."""
    try:
        data = json.loads(value)
    except ValueError:
        return value
    holder = data
    while isinstance(holder, dict | list) and holder:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[choices.byte() % len(keys)]
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and choices.byte() % 2:
            holder = inner
            continue
        others = [None, 0, -1, 2**70, 1.5, "", "m1", "Stable", "Dead", [], {}, [1], True, "AA=="]
        holder[key] = others[choices.byte() % len(others)]
        break
    return json.dumps(data).encode()


def _use(stored: groups.StoredGroup) -> None:
    """Restore the machine and let time and events come over it."""
    topics = FakeTopics(orders=6)
    try:
        if isinstance(stored, ClassicGroup):
            classic = restore_classic(stored, GroupSettings(), 10.0)
        else:
            consumer = restore_consumer(stored, ConsumerGroupSettings(), 10.0, None)
    except Damaged:
        return
    if isinstance(stored, ClassicGroup):
        classic.describe()
        classic.subscribed_topics()
        classic.snapshot()
        for member in stored.members:
            classic.heartbeat(member.member_id, member.instance_id, stored.generation, 11.0)
        _pass_time(classic.next_deadline_s, classic.on_time)
        classic.snapshot()
    else:
        consumer.describe()
        consumer.subscribed_topics(topics)
        consumer.topics_changed(topics)
        for member in stored.members:
            consumer.classic_heartbeat(member.member_id, None, member.member_epoch, 11.0)
        _pass_time(consumer.next_deadline_s, consumer.on_time)
        consumer.snapshot()


def _pass_time(
    next_deadline_s: Callable[[], float], on_time: Callable[[float, int], object]
) -> None:
    """Let time pass until nothing more happens."""
    for _ in range(100):
        if next_deadline_s() == math.inf:
            return
        on_time(max(next_deadline_s(), 11.0), 12)
    raise AssertionError(f"something is due at {next_deadline_s()} for ever")


def _seeds() -> Iterator[bytes]:
    chance = seeded("groups")
    yield b""
    for path in range(len(sound_tree())):
        for kind in range(4):
            yield bytes([path, kind]) + chance.randbytes(8)
    for _ in range(200):
        yield chance.randbytes(12)


TARGETS = (Target("groups", check_groups, _seeds, 120),)
