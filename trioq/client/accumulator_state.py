"""Records become batches, and batches wait for their broker. Pure: no I/O, no clock.

Memory is taken from the producer's buffer in steps as an open batch grows, and given back when
the batch is settled. A batch is due when it is closed, when it has lingered, when somebody waits
for it, when the producer is flushed, or when the buffer is full.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from trioq._native.batch import peek
from trioq._native.murmur2 import key_partition
from trioq._native.send_path import Delivery, TopicRoute
from trioq.client.cluster_state import NO_NODE, PartitionInfo
from trioq.client.partition_queue import PartitionQueue
from trioq.client.producer_batch import (
    Outcome,
    ProducerBatch,
    Split,
    Written,
    batch_of,
    open_batch,
)
from trioq.client.producer_settings import ProducerSettings
from trioq.client.unrouted import HEADER_BYTES, Failed, NewRecord, Unrouted
from trioq.errors import (
    BufferFull,
    ClientUsageError,
    MessageTooLarge,
    RecordTooLarge,
    TrioqError,
)
from trioq.record.producing import split

FIRST_STEP_BYTES: Final = 16 * 1024
_STEP_FACTOR: Final = 8
_KEPT_FROM_BYTES: Final = 128 * 1024
_KEPT_BUFFERS: Final = 8
"""Buffers of large batches that are used again: memory that is mapped already is cheaper."""


class TopicQueues:
    """The partitions of one topic, once they are known."""

    __slots__ = ("name", "queues", "route")

    def __init__(self, name: str, partition_count: int, *, hashes_keys: bool) -> None:
        self.name = name
        self.queues = [PartitionQueue(name, partition) for partition in range(partition_count)]
        self.route = TopicRoute(partition_count, hashes_keys=hashes_keys)


class AccumulatorState:
    """All records that are not settled, and the memory they take.

    `routes` is what the native path appends by; it is kept here. `draw(n)` is a random number
    from range(n).
    """

    def __init__(
        self,
        settings: ProducerSettings,
        routes: dict[str, TopicRoute],
        *,
        on_ready: Callable[[], None],
        on_new_topic: Callable[[str], None],
        on_room: Callable[[], None],
        draw: Callable[[int], int] = random.randrange,
    ) -> None:
        self.used_bytes = 0
        self.topics: dict[str, TopicQueues] = {}
        self.unrouted: dict[str, Unrouted] = {}
        self.active: dict[PartitionQueue, None] = {}
        """Partitions with batches, those that were served longest ago first."""
        self.flushes = 0
        """Tasks that wait in `flush`: meanwhile nothing lingers."""
        self.is_starved = False
        """Somebody was turned away for lack of memory: nothing lingers until there is some."""
        self._settings = settings
        self._routes = routes
        self._on_ready = on_ready
        self._on_new_topic = on_new_topic
        self._on_room = on_room
        self._draw = draw
        self._linger_s = settings.linger_ms / 1000
        self._batch_bytes = min(settings.batch_bytes, settings.max_request_bytes)
        self._first_step_bytes = min(FIRST_STEP_BYTES, self._batch_bytes)
        self._hashes_keys = settings.partitioner is None
        self._buffers: list[bytearray] = []

    # ---- records come in --------------------------------------------------------------

    def append(self, record: NewRecord, now_s: float) -> Delivery:
        """Queue one record, by all the rules; raises BufferFull, RecordTooLarge, TypeError,
        ClientUsageError. Nothing was queued then.
        """
        topic = self.topics.get(record.topic)
        if topic is None:
            return self._append_unrouted(record, now_s)
        return self._append_routed(topic, record, now_s, forced=False)

    def _append_unrouted(self, record: NewRecord, now_s: float) -> Delivery:
        size_bytes = record.size_bytes()
        if size_bytes + HEADER_BYTES > self._settings.max_request_bytes:
            raise RecordTooLarge(
                f"a record of {size_bytes} bytes for {record.topic}: at most "
                f"{self._settings.max_request_bytes} are allowed (max_request_bytes)"
            )
        self._take(size_bytes)
        unrouted = self.unrouted.get(record.topic)
        if unrouted is None:
            deadline_s = now_s + self._settings.delivery_timeout_ms / 1000
            unrouted = self.unrouted[record.topic] = Unrouted(record.topic, deadline_s)
            self._on_new_topic(record.topic)
        return unrouted.add(record, size_bytes)

    def _append_routed(
        self, topic: TopicQueues, record: NewRecord, now_s: float, *, forced: bool
    ) -> Delivery:
        partition = self._partition(topic, record)
        queue = topic.queues[partition]
        while True:
            batch = queue.open
            fresh = batch is None
            if batch is None:
                batch = self._opened(queue, now_s, forced=forced)
            index = self._filled(batch, record)
            if index >= 0:
                if batch.size_bytes > batch.reserved_bytes:
                    self.used_bytes += batch.size_bytes - batch.reserved_bytes
                    batch.reserved_bytes = batch.size_bytes
                if fresh:
                    self._install(topic, queue, batch)
                return Delivery(batch, index)
            if batch.batch_bytes < self._batch_bytes:
                self._grow(batch, forced=forced)
            else:
                self.close(queue)
                if record.key is None and record.partition is None:
                    partition = self._partition(topic, record)
                    queue = topic.queues[partition]

    def _filled(self, batch: ProducerBatch, record: NewRecord) -> int:
        try:
            index = batch.append(record.key, record.value, record.headers, record.timestamp_ms)
        except MessageTooLarge as error:
            self.used_bytes -= batch.reserved_bytes
            raise RecordTooLarge(
                f"{batch.topic}-{batch.partition}: {error} (max_request_bytes)"
            ) from error
        except (TypeError, ValueError, BufferError):
            if not batch.record_count:
                self.used_bytes -= batch.reserved_bytes
            raise
        return index

    def _opened(self, queue: PartitionQueue, now_s: float, *, forced: bool) -> ProducerBatch:
        self._take(self._first_step_bytes, forced=forced)
        return open_batch(
            queue.topic,
            queue.partition,
            order=queue.take_order(),
            first_bytes=self._first_step_bytes,
            max_bytes=self._settings.max_request_bytes,
            buffer=self._buffers.pop() if self._buffers else None,
            now_s=now_s,
            deadline_s=now_s + self._settings.delivery_timeout_ms / 1000,
        )

    def _install(self, topic: TopicQueues, queue: PartitionQueue, batch: ProducerBatch) -> None:
        queue.open = batch
        batch.on_awaited = self._hurry
        topic.route.batches[queue.partition] = batch
        self.active[queue] = None
        self._on_ready()

    def _grow(self, batch: ProducerBatch, *, forced: bool) -> None:
        step_bytes = min(_STEP_FACTOR * batch.batch_bytes, self._batch_bytes)
        more_bytes = max(step_bytes - batch.reserved_bytes, 0)
        self._take(more_bytes, forced=forced)
        batch.reserved_bytes += more_bytes
        batch.allow(step_bytes)

    def _take(self, size_bytes: int, *, forced: bool = False) -> None:
        room_bytes = self._settings.buffer_bytes - self.used_bytes
        if size_bytes > room_bytes and self.used_bytes and not forced:
            self.is_starved = True
            self._on_ready()
            raise BufferFull(
                f"the producer's buffer of {self._settings.buffer_bytes} bytes is full: await "
                "`send` or `flush`, or raise buffer_bytes"
            )
        self.used_bytes += size_bytes

    def _hurry(self, batch: ProducerBatch) -> None:
        if not batch.is_hurried:
            batch.is_hurried = True
            self._on_ready()

    # ---- partitions -------------------------------------------------------------------

    def _partition(self, topic: TopicQueues, record: NewRecord) -> int:
        count = len(topic.queues)
        partition = record.partition
        if partition is None and self._settings.partitioner is not None:
            key = None if record.key is None else bytes(record.key)
            value = None if record.value is None else bytes(record.value)
            partition = self._settings.partitioner(topic.name, key, value, count)
        if partition is not None:
            if 0 <= partition < count:
                return partition
            raise ClientUsageError(f"{topic.name} has no partition {partition}: there are {count}")
        if record.key is not None:
            return key_partition(record.key, count)
        if topic.route.sticky < 0:
            topic.route.sticky = self._another(topic)
        return topic.route.sticky

    def _another(self, topic: TopicQueues) -> int:
        """A random partition with a leader if there is one, for records without a key."""
        led = [queue.partition for queue in topic.queues if queue.leader_id != NO_NODE]
        return led[self._draw(len(led))] if led else self._draw(len(topic.queues))

    def set_partitions(self, name: str, partitions: Sequence[PartitionInfo], now_s: float) -> None:
        """Take up a topic's partitions and leaders; records that waited for them are routed."""
        topic = self.topics.get(name)
        if topic is None or len(topic.queues) < len(partitions):
            topic = self._resized(topic, name, len(partitions))
        for queue in topic.queues[len(partitions) :]:  # another topic of the same name has fewer
            queue.leader_id = NO_NODE
        if all(queue.is_empty for queue in topic.queues[len(partitions) :]):
            topic = self._resized(topic, name, len(partitions))
        for info in partitions:
            queue = topic.queues[info.partition]
            queue.leader_id = info.leader_id
            queue.leader_epoch = info.leader_epoch
        unrouted = self.unrouted.pop(name, None)
        if unrouted is not None:
            self.used_bytes -= unrouted.size_bytes
            unrouted.route(lambda record: self._append_routed(topic, record, now_s, forced=True))
        self._on_ready()

    def _resized(self, former: TopicQueues | None, name: str, count: int) -> TopicQueues:
        if former is not None and len(former.queues) == count:
            return former
        topic = TopicQueues(name, count, hashes_keys=self._hashes_keys)
        if former is not None:
            for queue in former.queues[:count]:
                topic.queues[queue.partition] = queue
                topic.route.batches[queue.partition] = queue.open
        self.topics[name] = topic
        self._routes[name] = topic.route
        return topic

    def forget(self, name: str) -> bool:
        """Drop a topic that has no records under way; False if it has."""
        topic = self.topics.get(name)
        if topic is not None:
            if not all(queue.is_empty for queue in topic.queues):
                return False
            del self.topics[name]
            self._routes.pop(name, None)
        return True

    def fail_unrouted(self, name: str, error: TrioqError) -> Failed:
        """Give up the records that wait for a topic's partitions."""
        unrouted = self.unrouted.pop(name)
        self._free(unrouted.size_bytes)
        return unrouted.fail(error)

    # ---- batches go out ---------------------------------------------------------------

    def close(self, queue: PartitionQueue) -> None:
        """Have the open batch of a partition take no more records."""
        batch = queue.open
        if batch is None:
            return
        queue.open = None
        batch.count = batch.record_count
        self.used_bytes -= batch.reserved_bytes - batch.size_bytes
        batch.reserved_bytes = batch.size_bytes
        queue.waiting.append(batch)
        route = self.topics[queue.topic].route
        route.batches[queue.partition] = None
        if route.sticky == queue.partition:
            route.sticky = -1
        self._on_ready()

    def due_at_s(self, queue: PartitionQueue) -> float | None:
        """When the first batch of a partition may be sent; None if nothing waits for time alone."""
        if queue.waiting:
            return queue.not_before_s
        batch = queue.open
        if batch is None:
            return None
        if self.flushes or self.is_starved or batch.is_hurried:
            return queue.not_before_s
        return max(batch.opened_s + self._linger_s, queue.not_before_s)

    def next_due(self, queue: PartitionQueue, now_s: float) -> ProducerBatch | None:
        """The batch to send next, closed if it was open; it stays in its queue."""
        if len(queue.in_flight) >= self._settings.batches_in_flight:
            return None
        due_s = self.due_at_s(queue)
        if due_s is None or due_s > now_s:
            return None
        if not queue.waiting:
            self.close(queue)
        return queue.waiting[0]

    def sent(self, queue: PartitionQueue, batch: ProducerBatch) -> None:
        """The first batch that waits is in flight."""
        first = queue.waiting.popleft()
        assert first is batch, "batches are sent in their order"
        queue.in_flight[batch] = None
        batch.attempts += 1
        self.active.pop(queue, None)
        self.active[queue] = None

    def put_back(self, queue: PartitionQueue, batch: ProducerBatch, not_before_s: float) -> None:
        """A batch in flight has to be sent again, not before the given time."""
        queue.in_flight.pop(batch, None)
        queue.put_back(batch)
        queue.not_before_s = max(queue.not_before_s, not_before_s)
        self._on_ready()

    def split(self, queue: PartitionQueue, batch: ProducerBatch) -> None:
        """A batch in flight was too large: two with its records take its place."""
        queue.in_flight.pop(batch, None)
        data = batch.data
        assert data is not None
        halves = split(data, level=self._settings.compression_level)
        parts: list[tuple[int, ProducerBatch]] = []
        start = 0
        for number, half in enumerate(halves):
            count = peek(half).record_count
            part = batch_of(batch, half, count, (*batch.order, number))
            parts.append((start, part))
            start += count
        for _, part in reversed(parts):
            queue.put_back(part)
            self.used_bytes += part.reserved_bytes
        self.settle(queue, batch, Split(tuple(parts)))
        for _, part in parts:
            part.on_awaited = batch.on_awaited

    def settle(self, queue: PartitionQueue, batch: ProducerBatch, outcome: Outcome) -> None:
        """A batch, wherever it is, is done with."""
        if queue.in_flight.pop(batch, 0) == 0:
            if batch in queue.waiting:
                queue.waiting.remove(batch)
            elif queue.open is batch:
                self.close(queue)
                queue.waiting.remove(batch)
        if queue.is_empty:
            self.active.pop(queue, None)
        self._free(batch.reserved_bytes)
        if batch.data is not None and isinstance(outcome, Written):
            self._keep(batch.data)
        batch.settle(outcome)
        self._on_ready()

    def _keep(self, buffer: bytearray) -> None:
        """Keep the memory of a large batch that was sent for another one."""
        if len(buffer) < _KEPT_FROM_BYTES or len(self._buffers) >= _KEPT_BUFFERS:
            return
        try:
            buffer.append(0)
        except BufferError:  # the transport has not let go of it yet
            return
        self._buffers.append(buffer)

    def _free(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        self._on_room()
        self.is_starved = False

    def overdue(self, now_s: float) -> Iterable[tuple[PartitionQueue, ProducerBatch]]:
        """Batches that are not in flight and whose time is over."""
        for queue in self.active:
            for batch in (*queue.waiting, queue.open):
                if batch is None or batch.deadline_s > now_s:
                    break
                yield queue, batch

    def unsettled(self) -> list[ProducerBatch]:
        """Every batch that is not settled, open ones included."""
        return [
            batch
            for queue in self.active
            for batch in (*queue.in_flight, *queue.waiting, queue.open)
            if batch is not None
        ]
