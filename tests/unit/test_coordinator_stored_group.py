"""What is written of a group: few nodes for small changes, all or nothing for large ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioq.coordinator.offsets import value_of
from trioq.coordinator.stored_group import (
    HEAD,
    STEP_BYTES,
    STEP_OPERATIONS,
    StoredNodes,
    Write,
)
from trioq.coordinator.stored_groups import read_groups
from trioq.metastore import group_layout as groups
from trioq.metastore import store
from trioq.metastore.group_layout import ClassicGroup, ClassicMember, ConsumerGroup, ConsumerMember
from trioq.metastore.store import Node
from trioq.metastore.write_chain import CHAIN_BYTES, CHAIN_OPERATIONS

TOP = "/slots/1/groups"


def member(number: int, *, size: int = 10, assignment: bytes = b"") -> ClassicMember:
    metadata = bytes([number % 256]) * size
    return ClassicMember(f"m{number}", None, "c", "h", 1, 2, (("range", metadata),), assignment)


def group(*members: ClassicMember, generation: int = 1) -> ClassicGroup:
    return ClassicGroup("g", "consumer", generation, "range", "m0", "Stable", 5, members)


class Kept:
    """A group's nodes in a store that is a dict; each step is checked against a multi's limits."""

    def __init__(self) -> None:
        self.tree = {TOP: Node(b"", 0)}
        self.nodes = StoredNodes(f"{TOP}/g")

    def apply(self, step: list[Write]) -> None:
        assert len(step) <= STEP_OPERATIONS
        assert self.nodes.size_bytes(step) <= STEP_BYTES
        operations = [self.nodes.operation(write) for write in step]
        store.check_multi([store.Check("/slots/1", 1)] * CHAIN_OPERATIONS + operations)
        assert sum(map(store.operation_bytes, operations)) + CHAIN_BYTES <= store.MAX_MULTI_BYTES
        for operation in operations:
            path = operation.path
            if isinstance(operation, store.Create):
                assert path not in self.tree
                assert store.parent_of(path) in self.tree
                self.tree[path] = Node(operation.value, 0)
            elif isinstance(operation, store.Set):
                self.tree[path] = Node(operation.value, self.tree[path].version + 1)
            else:
                assert not any(other.startswith(path + "/") for other in self.tree)
                del self.tree[path]
        for write in step:
            self.nodes.done(write)

    def write(self, wanted: groups.StoredGroup) -> int:
        plan = self.nodes.plan(wanted)
        for step in plan.steps:
            self.apply(step)
        self.nodes.settle(plan.outcome)
        return len(plan.steps)

    def read(self) -> groups.StoredGroup | None:
        found = list(read_groups(TOP, self.tree))
        if not found:
            return None
        assert found[0].damage is None
        return found[0].group

    def restart(self) -> None:
        (found,) = read_groups(TOP, self.tree)
        self.nodes = found.nodes


def same(read: groups.StoredGroup | None, wanted: groups.StoredGroup) -> bool:
    """Members are kept in no particular order."""
    if read is None or read._replace(members=()) != wanted._replace(members=()):
        return False
    return {one.member_id: one for one in read.members} == {
        one.member_id: one for one in wanted.members
    }


def test_a_new_group_is_one_step():
    kept = Kept()
    wanted = group(*map(member, range(150)))
    assert kept.write(wanted) == 1
    assert same(kept.read(), wanted)
    assert kept.nodes.existing == {HEAD, "m0-0", "m0-1"}


def test_what_is_stored_already_is_not_written():
    kept = Kept()
    kept.write(group(*map(member, range(3))))
    assert kept.nodes.plan(group(*map(member, range(3)))).steps == []


def test_a_member_that_changes_is_one_shard():
    kept = Kept()
    kept.write(group(*map(member, range(250))))
    changed = [member(number, assignment=b"x" * (number == 120)) for number in range(250)]
    ((write,),) = kept.nodes.plan(group(*changed)).steps
    assert write.name == "m0-1"


def test_a_member_that_leaves_does_not_move_the_others():
    kept = Kept()
    kept.write(group(*map(member, range(250))))
    rest = [member(number) for number in range(250) if number != 0]
    ((write,),) = kept.nodes.plan(group(*rest)).steps
    assert write.name == "m0-0"
    kept.write(group(*rest))
    joined = group(*rest, member(300))
    ((write,),) = kept.nodes.plan(joined).steps
    assert write.name == "m0-0", "a new member takes the free place"


def test_a_shard_without_members_is_deleted():
    kept = Kept()
    kept.write(group(*map(member, range(150))))
    rest = group(*map(member, range(100)))
    kept.write(rest)
    assert same(kept.read(), rest)
    assert kept.nodes.existing == {HEAD, "m0-0"}


def test_safety_18_a_large_change_is_many_multis_and_counts_with_the_last():
    """A reader between any two steps sees the group before or after, never a mixture."""
    kept = Kept()
    small = group(*map(member, range(3)))
    large = group(*(member(number, size=9_000) for number in range(200)), generation=2)
    kept.write(small)
    for wanted, before in ((large, small), (small, large), (large, small)):
        plan = kept.nodes.plan(wanted)
        counts = [same(kept.read(), before)]
        for step in plan.steps:
            kept.apply(step)
            assert same(kept.read(), before) or same(kept.read(), wanted)
            counts.append(same(kept.read(), wanted))
        kept.nodes.settle(plan.outcome)
        assert same(kept.read(), wanted)
    assert len(plan.steps) > 2


def test_a_new_large_group_is_none_until_it_is_whole():
    kept = Kept()
    large = group(*(member(number, size=9_000) for number in range(200)))
    plan = kept.nodes.plan(large)
    for step in plan.steps[:-1]:
        kept.apply(step)
        assert kept.read() is None
    kept.apply(plan.steps[-1])
    assert same(kept.read(), large)


def test_a_large_change_that_was_cut_off_leaves_nothing_in_the_way():
    kept = Kept()
    small = group(*map(member, range(3)))
    large = group(*(member(number, size=9_000) for number in range(200)), generation=2)
    kept.write(small)
    for steps in range(1, len(kept.nodes.plan(large).steps)):
        for step in kept.nodes.plan(large).steps[:steps]:
            kept.apply(step)
        kept.restart()
        assert kept.read() is not None
        kept.write(small)
        assert same(kept.read(), small)
    kept.write(large)
    assert same(kept.read(), large)
    assert len(kept.nodes.existing) < 20, "what is left over is deleted"


def test_a_group_that_changes_its_protocol_is_one_step():
    kept = Kept()
    kept.write(group(*map(member, range(3))))
    consumers = tuple(
        ConsumerMember(f"m{number}", None, None, "c", "h", 1, 2, 3, "Stable") for number in range(4)
    )
    wanted = ConsumerGroup("g", 2, 2, "uniform", 5, consumers)
    assert kept.write(wanted) == 1
    assert same(kept.read(), wanted)


@pytest.mark.parametrize("offset_shards", [0, 3, 1_200])
def test_a_removal_takes_everything_along(offset_shards):
    kept = Kept()
    kept.write(group(*map(member, range(3))))
    for number in range(offset_shards):
        name = f"o-{number:032x}-0"
        kept.apply([Write(name, value_of({0: b'[0,1,0,"",5]'}))])
    plan = kept.nodes.plan_removal()
    for step in plan.steps:
        before = kept.read()
        kept.apply(step)
        assert before is not None or kept.read() is None, "it does not come back"
    assert kept.tree == {TOP: Node(b"", 0)}
    assert (len(plan.steps) > 1) == (offset_shards > STEP_OPERATIONS)


sizes = st.sampled_from([1, 500, 20_000, 100_000])
memberships = st.dictionaries(st.integers(0, 30), sizes, max_size=12)


@settings(max_examples=60)
@given(st.lists(st.tuples(memberships, st.booleans()), min_size=1, max_size=6))
def test_any_history_of_members_is_read_back(history):
    kept = Kept()
    for generation, (membership, restarts) in enumerate(history):
        wanted = group(
            *(member(number, size=size) for number, size in membership.items()),
            generation=generation,
        )
        kept.write(wanted)
        assert same(kept.read(), wanted)
        if restarts:
            kept.restart()
