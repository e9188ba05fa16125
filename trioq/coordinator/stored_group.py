"""What the metastore holds of one group, and the writes that bring it up to date: pure.

A write is a plan of steps, each of them one multi. Most plans have one. A change of members that
does not fit takes several: it is written beside the old one, in the other bank of names, and
counts with the step that turns the group's head to that bank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from trioq.metastore import store
from trioq.metastore.group_encoding import (
    encode_head,
    encode_member,
    encode_members,
)
from trioq.metastore.group_layout import (
    MAX_SHARD_BYTES,
    MEMBERS_PER_SHARD,
    StoredGroup,
    StoredHead,
    StoredMember,
    members_node_name,
)
from trioq.metastore.write_chain import CHAIN_BYTES, CHAIN_OPERATIONS

STEP_OPERATIONS: Final = store.MAX_MULTI_OPERATIONS - CHAIN_OPERATIONS
STEP_BYTES: Final = store.MAX_MULTI_BYTES - CHAIN_BYTES

HEAD: Final = ""
"""The name of the group's own node among those below it."""

_OPERATION_BYTES: Final = 96
"""What an operation counts beside path and value: a little more than the store reckons."""


class Write(NamedTuple):
    """A node below the group's path to create or replace, or, without value, to delete."""

    name: str
    value: bytes | None


class Plan(NamedTuple):
    """Steps in order, and what is known of the group once all of them are durable."""

    steps: list[list[Write]]
    outcome: Outcome


class Outcome(NamedTuple):
    """The members as they are stored after a plan; see StoredNodes.settle."""

    head_value: bytes | None
    bank: int
    places: dict[str, int]
    encoded: dict[str, tuple[StoredMember, bytes]]


class StoredNodes:
    """The nodes of one group. Owned by the writer of the group's slot.

    `existing` are the names of the nodes that there are; kept by whoever writes.
    """

    __slots__ = ("_bank", "_encoded", "_head_value", "_places", "existing", "path")

    def __init__(self, path: str) -> None:
        """A group that is not stored."""
        self.path = path
        self.existing: set[str] = set()
        self._head_value: bytes | None = None
        self._bank = 0
        self._places: dict[str, int] = {}
        self._encoded: dict[str, tuple[StoredMember, bytes]] = {}

    @property
    def is_stored(self) -> bool:
        """True if the group's own node is there."""
        return HEAD in self.existing

    def loaded(self, head: StoredHead, head_value: bytes, members: dict[str, int]) -> None:
        """The group was read: its head, and in which shard each member was."""
        self._head_value = head_value
        self._bank = head.bank
        self._places = members

    def settle(self, outcome: Outcome) -> None:
        """A plan is durable."""
        self._head_value, self._bank, self._places, self._encoded = outcome

    def size_bytes(self, writes: Iterable[Write]) -> int:
        """What the writes count towards a multi's limit, at most."""
        prefix = len(self.path) + 1 + _OPERATION_BYTES
        return sum(prefix + len(name) + len(value or b"") for name, value in writes)

    def operation(self, write: Write) -> store.Operation:
        """The operation that carries out `write`, given which nodes exist."""
        path = f"{self.path}/{write.name}" if write.name else self.path
        if write.value is None:
            return store.Delete(path, store.ANY_VERSION)
        if write.name in self.existing:
            return store.Set(path, write.value, store.ANY_VERSION)
        return store.Create(path, write.value)

    def done(self, write: Write) -> None:
        """`write` is durable."""
        if write.value is None:
            self.existing.discard(write.name)
        else:
            self.existing.add(write.name)

    # ---- plans

    def plan(self, group: StoredGroup) -> Plan:
        """Store `group` with its members; a plan without steps if it is stored already."""
        encoded = {member.member_id: self._encode(member) for member in group.members}
        places = _placed(encoded, self._places)
        changed = {
            places[member_id]
            for member_id, (_, value) in encoded.items()
            if member_id not in self._encoded
            or self._encoded[member_id][1] is not value
            or self._places.get(member_id) != places[member_id]
        }
        changed |= {
            place for member_id, place in self._places.items() if places.get(member_id) != place
        }
        head_value = _head_of(group, self._bank, places)
        writes = self._shards(self._bank, places, encoded, only=changed)
        if head_value != self._head_value or not self.is_stored:
            writes.insert(0, Write(HEAD, head_value))
        outcome = Outcome(head_value, self._bank, places, encoded)
        if not writes:
            return Plan([], outcome)
        if len(writes) <= STEP_OPERATIONS and self.size_bytes(writes) <= STEP_BYTES:
            return Plan([writes], outcome)
        return self._plan_other_bank(group, encoded)

    def _plan_other_bank(
        self, group: StoredGroup, encoded: dict[str, tuple[StoredMember, bytes]]
    ) -> Plan:
        bank = 1 - self._bank
        places = _placed(encoded, {})
        head_value = _head_of(group, bank, places)
        writes = self._shards(bank, places, encoded, only=set(places.values()))
        if not self.is_stored:
            # What is written of it first does not count before the last step.
            writes.insert(0, Write(HEAD, encode_head(StoredHead(None))))
        steps = list(self._steps(writes))
        steps.append([Write(HEAD, head_value)])
        used = {write.name for write in writes}
        stale = sorted(name for name in self.existing if name.startswith("m") and name not in used)
        steps += self._steps([Write(name, None) for name in stale])
        return Plan(steps, Outcome(head_value, bank, places, encoded))

    def plan_removal(self) -> Plan:
        """Remove the group with everything below it."""
        removals = [Write(name, None) for name in sorted(self.existing, reverse=True)]
        steps = list(self._steps(removals))
        if len(steps) > 1:
            # From here on it does not count, however far the removal comes.
            steps.insert(0, [Write(HEAD, encode_head(StoredHead(None)))])
        return Plan(steps, Outcome(None, 0, {}, {}))

    def _encode(self, member: StoredMember) -> tuple[StoredMember, bytes]:
        known = self._encoded.get(member.member_id)
        if known is not None and (known[0] is member or known[0] == member):
            return known
        return member, encode_member(member)

    def _shards(
        self,
        bank: int,
        places: dict[str, int],
        encoded: dict[str, tuple[StoredMember, bytes]],
        *,
        only: set[int],
    ) -> list[Write]:
        values: dict[int, list[bytes]] = {shard: [] for shard in sorted(only)}
        for member_id, place in places.items():
            if place in values:
                values[place].append(encoded[member_id][1])
        writes: list[Write] = []
        for shard, members in values.items():
            name = members_node_name(bank, shard)
            if members:
                writes.append(Write(name, encode_members(members)))
            elif name in self.existing:
                writes.append(Write(name, None))
        return writes

    def _steps(self, writes: Sequence[Write]) -> Iterator[list[Write]]:
        step: list[Write] = []
        size_bytes = 0
        for write in writes:
            one_bytes = self.size_bytes((write,))
            if len(step) == STEP_OPERATIONS or size_bytes + one_bytes > STEP_BYTES:
                yield step
                step, size_bytes = [], 0
            step.append(write)
            size_bytes += one_bytes
        if step:
            yield step


def _head_of(group: StoredGroup, bank: int, places: dict[str, int]) -> bytes:
    bare = group._replace(members=())
    return encode_head(StoredHead(bare, bank, tuple(sorted(set(places.values())))))


def _placed(
    encoded: dict[str, tuple[StoredMember, bytes]], before: dict[str, int]
) -> dict[str, int]:
    """The shard of each member: where it was, as long as there is room, else the first with room.

    So the coming or going of one member changes one node.
    """
    counts: dict[int, int] = {}
    sizes: dict[int, int] = {}
    places: dict[str, int] = {}

    def fits(shard: int, size_bytes: int) -> bool:
        return counts.get(shard, 0) < MEMBERS_PER_SHARD and (
            sizes.get(shard, 0) + size_bytes <= MAX_SHARD_BYTES or not counts.get(shard)
        )

    def put(member_id: str, shard: int, size_bytes: int) -> None:
        places[member_id] = shard
        counts[shard] = counts.get(shard, 0) + 1
        sizes[shard] = sizes.get(shard, 0) + size_bytes

    homeless: list[tuple[str, int]] = []
    for member_id, (_, value) in encoded.items():
        shard = before.get(member_id)
        if shard is not None and fits(shard, len(value) + 1):
            put(member_id, shard, len(value) + 1)
        else:
            homeless.append((member_id, len(value) + 1))
    first = 0
    for member_id, size_bytes in homeless:
        while counts.get(first, 0) >= MEMBERS_PER_SHARD:
            first += 1
        shard = first
        while not fits(shard, size_bytes):
            shard += 1
        put(member_id, shard, size_bytes)
    return places
