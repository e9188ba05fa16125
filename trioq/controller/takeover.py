"""What the one broker of an embedded metastore does at start, before it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from trioq.controller.election_state import state_after_start
from trioq.controller.topic_plan import removal
from trioq.controller.write_chain import WriteChain
from trioq.metastore import feed, layout, store
from trioq.metastore.layout import CorruptNode, PartitionState, TopicNode

_GROUP: Final = 400
"""Operations per group of a bulk write; states are small, so bytes are no limit."""


async def take_over_alone(
    metastore: store.Metastore, broker_id: int, broker_epoch: int
) -> WriteChain:
    """Become the controller of the cluster in which this is the only broker.

    In one bulk write: the controller epoch is raised, every partition gets a new leader
    epoch under this broker (SAFETY 4), every coordination slot a new slot epoch, and what a
    creation or deletion of a topic left unfinished is removed. With the embedded store that is
    one transaction: after a crash or cancellation it happened as a whole or not. Followers
    read everything again.

    Raises what the metastore raises, and CorruptNode.
    """
    epoch = await metastore.get(layout.CONTROLLER_EPOCH)
    tree = await metastore.read_tree(layout.TOPIC_IDS)
    claim = layout.ControllerEpoch(broker_id).encode()
    groups: list[Sequence[store.Operation]] = [
        (
            store.Set(layout.CONTROLLER_EPOCH, claim, epoch.version),
            store.Create(layout.CONTROLLER_LEADER, claim, ephemeral=True),
        )
    ]
    changes = [
        *_changes(tree, broker_id, broker_epoch),
        *await _slot_claims(metastore, broker_id, broker_epoch),
    ]
    groups += [changes[start : start + _GROUP] for start in range(0, len(changes), _GROUP)]
    groups.append((feed.reload_entry(),))
    await metastore.bulk(groups)
    return WriteChain(metastore, epoch.version + 1)


def _changes(
    tree: Mapping[str, store.Node], broker_id: int, broker_epoch: int
) -> Iterator[store.Operation]:
    for top, topic, states in topics_in(tree):
        yield from leftovers(top, topic, states)
        for number in range(topic.partitions if topic.live else 0):
            path = f"{top}/{number}"
            if number not in states:
                raise CorruptNode(path, "it is missing")
            node = states[number]
            state = state_after_start(decode_state(path, node), broker_id, broker_epoch)
            yield store.Set(path, state.encode(), node.version)


async def _slot_claims(
    metastore: store.Metastore, broker_id: int, broker_epoch: int
) -> list[store.Operation]:
    """Become the leader of every slot: a new version of its node is the next slot epoch."""
    (node,) = await metastore.get_many((layout.SLOTS,))
    if node is None:
        raise CorruptNode(layout.SLOTS, "it is missing")
    slots = layout.decode_node(layout.SLOTS, node.value, layout.Slots.of)
    paths = [layout.slot_path(slot) for slot in range(slots.number)]
    claim = layout.SlotState(broker_id, broker_epoch).encode()
    claims: list[store.Operation] = []
    for path, held in zip(paths, await metastore.get_many(paths), strict=True):
        if held is None:
            raise CorruptNode(path, "it is missing")
        claims.append(store.Set(path, claim, held.version))
    return claims


def leftovers(
    top: str, topic: TopicNode, states: Mapping[int, store.Node]
) -> list[store.Operation]:
    """The removal of what an unfinished creation, growth or deletion left of a topic."""
    if not topic.live:
        return removal(top, states)
    return [
        store.Delete(f"{top}/{number}", store.ANY_VERSION)
        for number in states
        if number >= topic.partitions
    ]


def topics_in(
    tree: Mapping[str, store.Node],
) -> Iterator[tuple[str, TopicNode, dict[int, store.Node]]]:
    """Each topic in a tree read below TOPIC_IDS: its path, its node, its states by number.

    Raises CorruptNode.
    """
    states: dict[str, dict[int, store.Node]] = {}
    topics: dict[str, TopicNode] = {}
    for path, node in tree.items():
        depth = path.count("/")
        if depth == 4:
            topics[path] = layout.decode_node(path, node.value, TopicNode.of)
            states.setdefault(path, {})
        elif depth == 5:
            top, _, number = path.rpartition("/")
            try:
                states.setdefault(top, {})[int(number)] = node
            except ValueError as error:
                raise CorruptNode(path, error) from error
    for top, topic in topics.items():
        yield top, topic, states[top]


def decode_state(path: str, node: store.Node) -> PartitionState:
    """The state in the node at `path`. Raises CorruptNode."""
    return layout.decode_node(path, node.value, partial(PartitionState.of, version=node.version))
