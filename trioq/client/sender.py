"""Sends a producer's batches: one task per broker that leads partitions, and their helpers."""

from __future__ import annotations

import random
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

import anyio

from trioq.client.accumulator_state import AccumulatorState
from trioq.client.address import HostPort
from trioq.client.cluster import Cluster
from trioq.client.cluster_state import NO_NODE, Node
from trioq.client.connection import Connection, PendingCall
from trioq.client.idempotence_state import IdempotenceState
from trioq.client.partition_queue import PartitionQueue
from trioq.client.produce_request import new_request, seal
from trioq.client.produce_verdicts import Verdict
from trioq.client.producer_batch import ProducerBatch, Written
from trioq.client.producer_settings import ProducerSettings
from trioq.client.retry import is_retriable
from trioq.client.settlement import Settlement
from trioq.client.tasks import BackgroundTasks
from trioq.errors import ConnectionFailed, TrioqError, UnknownTopicOrPartition, error_class
from trioq.record.compression import Codec
from trioq.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceResponse,
    ProduceResponsePartition,
)

LANE: Final = "produce"
_TICK_S: Final = 1.0
_THREAD_BYTES: Final = 32 * 1024
"""From this size on a batch is compressed in a thread."""
_ZSTD_SINCE: Final = 7
_NO_TIMEOUT: Final = 60_000


class Sent(NamedTuple):
    """A batch in flight."""

    queue: PartitionQueue
    batch: ProducerBatch


class Sender:
    """Runs in the producer's task group; the machines decide, this does the I/O."""

    def __init__(
        self,
        cluster: Cluster,
        settings: ProducerSettings,
        accumulator: AccumulatorState,
        idempotence: IdempotenceState | None,
        settlement: Settlement,
        tasks: BackgroundTasks,
    ) -> None:
        self.fatal: TrioqError | None = None
        """Why nothing can be sent any more."""

        self._cluster = cluster
        self._metadata = cluster.metadata
        self._settings = settings
        self._accumulator = accumulator
        self._idempotence = idempotence
        self._settlement = settlement
        self._tasks = tasks
        self._request_timeout_s = cluster.settings.request_timeout_s
        self._wake: anyio.Event | None = None
        self._identity_needed = anyio.Event()
        self._served: set[int] = set()

    def start(self) -> None:
        """Start the tasks."""
        self._tasks.start_soon(self._follow_metadata)
        self._tasks.start_soon(self._keep_time)
        if self._idempotence is not None:
            self._identity_needed.set()
            self._tasks.start_soon(self._keep_identity)

    def signal(self) -> None:
        """Have the tasks look for work; costs little when they are at it already."""
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def changed(self) -> anyio.Event:
        """The event of the next `signal`."""
        if self._wake is None:
            self._wake = anyio.Event()
        return self._wake

    def resolve(self, topic: str) -> None:
        """Find out the partitions of a topic, then route its records, or fail them."""
        self._tasks.start_soon(self._resolve, topic)

    # ---- metadata ---------------------------------------------------------------------

    async def _resolve(self, name: str) -> None:
        try:
            info = await self._metadata.topic(
                name, may_create=True, timeout_s=self._settings.delivery_timeout_ms / 1000
            )
        except TrioqError as error:
            if is_retriable(error) and not isinstance(error, UnknownTopicOrPartition):
                self._settlement.not_routed_in_time(name, str(error))
            else:
                self._settlement.failed_unrouted(name, error)
            return
        self._accumulator.set_partitions(name, info.partitions, monotonic())
        self._serve_leaders()

    async def _follow_metadata(self) -> None:
        while True:
            await self._metadata.changed()
            state = self._metadata.state
            now_s = monotonic()
            for name in list(self._accumulator.topics):
                info = state.topics.get(name)
                if info is None:
                    self._accumulator.forget(name)
                elif not info.error_code:
                    self._accumulator.set_partitions(name, info.partitions, now_s)
            self._serve_leaders()

    def _serve_leaders(self) -> None:
        for topic in self._accumulator.topics.values():
            for queue in topic.queues:
                node_id = queue.leader_id
                if node_id != NO_NODE and node_id not in self._served:
                    self._served.add(node_id)
                    self._tasks.start_soon(self._serve, node_id)

    # ---- time -------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Give up what is overdue, and ask for leaders where there are none."""
        while True:
            now_s = monotonic()
            self._settlement.expire(now_s)
            wait_s = _TICK_S
            for queue in self._accumulator.active:
                if queue.leader_id == NO_NODE:
                    self._metadata.want(queue.topic, may_create=True)
                    self._metadata.request_refresh()
                first = queue.waiting[0] if queue.waiting else queue.open
                if first is not None:
                    wait_s = min(wait_s, first.deadline_s - now_s)
            for unrouted in self._accumulator.unrouted.values():
                wait_s = min(wait_s, unrouted.deadline_s - now_s)
            await anyio.sleep(max(wait_s, 0.001))

    # ---- identity ---------------------------------------------------------------------

    async def _keep_identity(self) -> None:
        """Get a producer id at the start, and another when the epochs of one are used up."""
        idempotence = self._idempotence
        assert idempotence is not None
        failures = 0
        while True:
            await self._identity_needed.wait()
            self._identity_needed = anyio.Event()
            while idempotence.needs_identity and self.fatal is None:
                try:
                    response = await self._cluster.call_any(
                        InitProducerIdRequest(transaction_timeout_ms=_NO_TIMEOUT),
                        InitProducerIdResponse,
                    )
                    if response.error_code:
                        raise error_class(response.error_code)("no producer id was given")
                    idempotence.identified(response.producer_id, response.producer_epoch)
                    failures = 0
                except TrioqError as error:
                    if not is_retriable(error):
                        self._end(error)
                        break
                    failures += 1
                    await anyio.sleep(self._retry_delay_s(failures))
            self.signal()

    def _retry_delay_s(self, failures: int) -> float:
        return self._cluster.backoff.delay_s(failures, random.random())  # noqa: S311

    def _end(self, error: TrioqError) -> None:
        """Nothing can be sent any more."""
        self.fatal = error
        self._settlement.fail_all(error)

    # ---- sending ----------------------------------------------------------------------

    async def _serve(self, node_id: int) -> None:
        """Send what is due to one broker, over one connection after the other."""
        failures = 0
        while True:
            changed = self.changed()
            if not self._has_work(node_id):
                if node_id not in self._metadata.state.nodes:
                    self._served.discard(node_id)
                    return
                await changed.wait()
                continue
            try:
                connection = await self._cluster.connection(node_id, LANE)
            except ConnectionFailed as error:
                failures += 1
                self._note(node_id, str(error))
                await anyio.sleep(self._retry_delay_s(failures))
            except TrioqError as error:
                self._fail_node(node_id, error)
                await anyio.sleep(self._retry_delay_s(1))
            else:
                failures = 0
                await self._feed(node_id, connection)

    def _has_work(self, node_id: int) -> bool:
        return any(
            queue.leader_id == node_id and (queue.waiting or queue.open)
            for queue in self._accumulator.active
        )

    def _note(self, node_id: int, reason: str) -> None:
        for queue in self._accumulator.active:
            batch = queue.waiting[0] if queue.waiting else queue.open
            if queue.leader_id == node_id and batch is not None:
                batch.last_failure = reason

    def _fail_node(self, node_id: int, error: TrioqError) -> None:
        """The broker cannot be talked to, and another attempt would not change that."""
        for queue in list(self._accumulator.active):
            if queue.leader_id == node_id:
                for batch in (*queue.waiting, queue.open):
                    if batch is not None:
                        self._settlement.failed(queue, batch, error)

    async def _feed(self, node_id: int, connection: Connection) -> None:
        """Send over `connection` for as long as it can be used."""
        while connection.is_usable(anyio.current_time()):
            if not connection.has_room:
                await connection.wait_for_room()
                continue
            changed = self.changed()
            now_s = monotonic()
            sent, due_s = self._drain(node_id, now_s)
            if sent:
                await self._send(node_id, connection, sent)
            elif due_s is None:
                await changed.wait()
            else:
                with anyio.move_on_after(due_s - now_s):
                    await changed.wait()

    def _drain(self, node_id: int, now_s: float) -> tuple[list[Sent], float | None]:
        """Batches for one request, in flight from now on; without any, when the next is due."""
        accumulator, idempotence = self._accumulator, self._idempotence
        if idempotence is not None and idempotence.needs_identity:
            self._identity_needed.set()
            return [], None
        sent: list[Sent] = []
        room_bytes = self._settings.max_request_bytes
        next_s: float | None = None
        for queue in list(accumulator.active):
            if queue.leader_id != node_id:
                continue
            batch = accumulator.next_due(queue, now_s)
            if batch is None:
                due_s = accumulator.due_at_s(queue)
                if due_s is not None and due_s > now_s:
                    next_s = due_s if next_s is None else min(next_s, due_s)
                continue
            if sent and batch.reserved_bytes > room_bytes:
                break
            if idempotence is not None and not idempotence.prepare(
                queue.sequences, batch, queue.waiting, len(queue.in_flight)
            ):
                continue
            room_bytes -= batch.reserved_bytes
            accumulator.sent(queue, batch)
            sent.append(Sent(queue, batch))
        if idempotence is not None and idempotence.needs_identity:
            self._identity_needed.set()  # the last epoch of the one at hand was used up
        return sent, next_s

    async def _send(self, node_id: int, connection: Connection, sent: list[Sent]) -> None:
        settings = self._settings
        try:
            for _, batch in sent:
                if settings.codec is Codec.NONE or batch.reserved_bytes < _THREAD_BYTES:
                    seal(batch, settings)
                else:
                    await anyio.to_thread.run_sync(seal, batch, settings)
            # What was given up meanwhile is not sent.
            sent = [pair for pair in sent if pair.batch.outcome is None]
            at_least = _ZSTD_SINCE if settings.codec is Codec.ZSTD else 0
            version = connection.version_of(ProduceRequest, at_least=at_least)
            request = new_request(
                [batch for _, batch in sent],
                acks=settings.required_acks,
                timeout_ms=self._cluster.settings.request_timeout_ms,
            )
            if settings.required_acks:
                connection.begin(
                    request,
                    ProduceResponse,
                    version,
                    timeout_s=self._request_timeout_s,
                    on_end=partial(self._ended, node_id, connection, sent),
                )
            else:
                connection.tell(request, version)
        except TrioqError as error:
            now_s = monotonic()
            for queue, batch in sent:
                if is_retriable(error):
                    self._settlement.unsent(queue, batch, error, now_s)
                else:
                    self._settlement.failed(queue, batch, error)
            return
        self._settlement.counts.requests += 1
        if not settings.required_acks:
            for queue, batch in sent:
                self._settlement.written(queue, batch, Written(-1, -1))

    def _ended(
        self,
        node_id: int,
        connection: Connection,
        sent: list[Sent],
        pending: PendingCall[ProduceResponse],
    ) -> None:
        """Settle the batches of a request by its answer, in the order of the requests.

        The order matters: numbers given anew go on from the last batch that was acknowledged.
        """
        now_s = monotonic()
        try:
            response = connection.result(pending)
        except ConnectionFailed as error:
            self._metadata.request_refresh()
            for queue, batch in sent:
                if batch.outcome is None:
                    self._settlement.lost(queue, batch, error, now_s)
            return
        answers = {
            (topic.name, partition.index): partition
            for topic in response.responses
            for partition in topic.partition_responses
        }
        nodes = {
            node.node_id: Node(node.node_id, HostPort(node.host, node.port), node.rack)
            for node in response.node_endpoints
        }
        for queue, batch in sent:
            if batch.outcome is not None:
                continue  # the producer gave everything up meanwhile
            answer = answers.get((batch.topic, batch.partition))
            if answer is None:
                failure = ConnectionFailed(f"{connection.address} left a partition unanswered")
                self._settlement.lost(queue, batch, failure, now_s)
                continue
            verdict = self._settlement.answered(queue, batch, answer, now_s)
            if verdict is Verdict.RETRY_ELSEWHERE:
                self._find_leader(node_id, queue, answer, nodes)

    def _find_leader(
        self,
        node_id: int,
        queue: PartitionQueue,
        answer: ProduceResponsePartition,
        nodes: dict[int, Node],
    ) -> None:
        """Go on with the leader that the answer names (KIP-951), or ask for it."""
        leader = answer.current_leader
        if leader is not None and self._metadata.leader_moved(
            queue.topic,
            queue.partition,
            leader.leader_id,
            leader.leader_epoch,
            nodes.get(leader.leader_id),
        ):
            queue.leader_id = leader.leader_id
            queue.not_before_s = 0.0
            self._serve_leaders()
            self.signal()
            return
        if queue.leader_id == node_id:
            queue.leader_id = NO_NODE
        self._metadata.want(queue.topic, may_create=True)
        self._metadata.leader_is_not(queue.topic, queue.partition, node_id)
