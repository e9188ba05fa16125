"""The metastore operations that create, grow and delete a topic: pure.

A plan is a list of steps, each of them one multi. Most plans have one. A topic whose
partitions do not fit takes several, ordered so that clients see the change only with one
of them: a topic is not live until its last step, partitions do not count until the
topic's node says so, and a topic to delete stops being live first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from trioq.controller.write_chain import WRITE_BYTES, WRITE_OPERATIONS
from trioq.metastore import layout
from trioq.metastore.image import TopicImage
from trioq.metastore.layout import PartitionState, TopicClaim, TopicNode
from trioq.metastore.store import ANY_VERSION, Create, Delete, Operation, Set, operation_bytes
from trioq.types import TopicId

_SHARED_PARTITIONS: Final = 100
"""Partitions of several topics that share a multi."""


class Plan(NamedTuple):
    """Steps to write in order; `topic_id` is the topic to tidy if a later one fails."""

    steps: list[list[Operation]]
    topic_id: TopicId | None


def creation(topic_id: TopicId, node: TopicNode, states: Sequence[PartitionState]) -> Plan:
    """The creation of a topic; a claim that exists fails the last step with NodeExists."""
    claim = Create(TopicClaim.path(node.name), TopicClaim(node.name, topic_id).encode())
    path = layout.topic_path(topic_id)
    creates = list(_state_creates(topic_id, states, 0))
    at_once = [claim, Create(path, node.encode()), *creates]
    if _fits(at_once):
        return Plan([at_once], None)
    draft = Create(path, node._replace(live=False).encode())
    return Plan([*chunks([draft, *creates]), [claim, Set(path, node.encode(), 0)]], topic_id)


def growth(topic: TopicImage, states: Sequence[PartitionState]) -> Plan:
    """The addition of partitions after a topic's last one."""
    old = len(topic.partitions)
    node = TopicNode(topic.name, old + len(states), config=topic.config)
    raise_count = Set(layout.topic_path(topic.topic_id), node.encode(), topic.version)
    creates = list(_state_creates(topic.topic_id, states, old))
    if _fits([raise_count, *creates]):
        return Plan([[raise_count, *creates]], None)
    return Plan([*chunks(creates), [raise_count]], topic.topic_id)


def deletion(topic: TopicImage) -> Plan:
    """The deletion of a topic with everything below it."""
    path = layout.topic_path(topic.topic_id)
    unclaim = Delete(TopicClaim.path(topic.name), ANY_VERSION)
    removals = removal(path, range(len(topic.partitions)))
    if _fits([unclaim, *removals]):
        return Plan([[unclaim, *removals]], None)
    node = TopicNode(topic.name, len(topic.partitions), live=False, config=topic.config)
    retire = Set(path, node.encode(), topic.version)
    return Plan([[unclaim, retire], *chunks(removals)], topic.topic_id)


def reconfiguration(topic: TopicImage, overrides: dict[str, str]) -> Plan:
    """The replacement of a topic's own configs."""
    node = TopicNode(topic.name, len(topic.partitions), config=overrides)
    path = layout.topic_path(topic.topic_id)
    return Plan([[Set(path, node.encode(), topic.version)]], None)


def removal(path: str, numbers: Iterable[int]) -> list[Operation]:
    """The deletion of the partitions' states, then of the topic's node at `path`."""
    states: list[Operation] = [Delete(f"{path}/{number}", ANY_VERSION) for number in numbers]
    return [*states, Delete(path, ANY_VERSION)]


def shared(plans: Sequence[tuple[int, Plan]]) -> Iterator[list[tuple[int, Plan]]]:
    """Numbered plans in groups: those of one step share a multi, longer ones stand alone."""
    group: list[tuple[int, Plan]] = []
    operations = size_bytes = 0
    for number, plan in plans:
        if len(plan.steps) > 1:
            yield [(number, plan)]
            continue
        (step,) = plan.steps
        step_bytes = sum(map(operation_bytes, step))
        full = operations + len(step) > 3 * _SHARED_PARTITIONS or (
            size_bytes + step_bytes > WRITE_BYTES
        )
        if group and full:
            yield group
            group, operations, size_bytes = [], 0, 0
        group.append((number, plan))
        operations += len(step)
        size_bytes += step_bytes
    if group:
        yield group


def _state_creates(
    topic_id: TopicId, states: Sequence[PartitionState], first: int
) -> Iterator[Operation]:
    for number, state in enumerate(states, first):
        yield Create(layout.partition_path(topic_id, number), state.encode())


def _fits(operations: Sequence[Operation]) -> bool:
    return (
        len(operations) <= WRITE_OPERATIONS and sum(map(operation_bytes, operations)) <= WRITE_BYTES
    )


def chunks(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """`operations` in order, in as few steps as the limits of a write allow."""
    chunk: list[Operation] = []
    size_bytes = 0
    for operation in operations:
        one_bytes = operation_bytes(operation)
        if len(chunk) == WRITE_OPERATIONS or size_bytes + one_bytes > WRITE_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(operation)
        size_bytes += one_bytes
    if chunk:
        yield chunk
