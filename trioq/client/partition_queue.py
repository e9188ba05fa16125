"""The batches of one partition in their order: open, waiting, in flight. Pure."""

from __future__ import annotations

from collections import deque

from trioq.client.cluster_state import NO_NODE
from trioq.client.idempotence_state import PartitionSequences
from trioq.client.producer_batch import Order, ProducerBatch


class PartitionQueue:
    """What a producer holds for one partition."""

    __slots__ = (
        "in_flight",
        "leader_epoch",
        "leader_id",
        "next_order",
        "not_before_s",
        "open",
        "partition",
        "sequences",
        "topic",
        "waiting",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.leader_id = NO_NODE
        self.leader_epoch = -1
        self.open: ProducerBatch | None = None
        """Takes records; behind all that wait."""
        self.waiting: deque[ProducerBatch] = deque()
        """Closed, by order; those in front may have been sent before."""
        self.in_flight: dict[ProducerBatch, None] = {}
        self.next_order = 0
        self.not_before_s = 0.0
        """When a retry may be made."""
        self.sequences = PartitionSequences()

    @property
    def is_empty(self) -> bool:
        return self.open is None and not self.waiting and not self.in_flight

    def take_order(self) -> Order:
        """The place of a new batch."""
        self.next_order += 1
        return (self.next_order,)

    def put_back(self, batch: ProducerBatch) -> None:
        """Have a batch wait again at its place."""
        behind = []
        while self.waiting and self.waiting[0].order < batch.order:
            behind.append(self.waiting.popleft())
        self.waiting.appendleft(batch)
        self.waiting.extendleft(reversed(behind))

    def has_earlier(self, batch: ProducerBatch) -> bool:
        """Whether a batch before this one is unresolved."""
        return any(other.order < batch.order for other in self.in_flight) or bool(
            self.waiting and self.waiting[0].order < batch.order
        )
