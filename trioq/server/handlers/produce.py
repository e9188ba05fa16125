"""Produce (key 0), versions 3-11 (0-2 are advertised for old clients' sake: UNSUPPORTED_VERSION).

Behaviour:
- one v2 batch per partition; header, lengths, CRC and sequence are always checked, the
  records of uncompressed batches too, those of compressed ones with
  produce.batch.validation=strict
- acks=1 is answered when the batch is written (synced with flush.policy=commit), acks=-1 when
  every in-sync replica has it, acks=0 not at all: an error then closes the connection
- while a disk stalls and the queue for it is full, the request waits, and its connection is not
  read from; REQUEST_TIMED_OUT when the disk takes nothing for ten seconds
- a duplicate of one of a producer's last five batches is answered with its first offsets
  (KIP-98)
- each partition succeeds or fails for itself

Version notes: 5 log_start_offset; 7 zstd; 8 error_message (KIP-467); 9 flexible; 10 who leads now
where it is another (KIP-951); 11 adds what concerns transactions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from trioq._native.hot_request import SingleBatch, read_single_batch
from trioq.errors import (
    InvalidRecord,
    InvalidRequiredAcks,
    KafkaError,
    RequestTimedOut,
    UnsupportedCompressionType,
    UnsupportedVersion,
)
from trioq.record.compression import Codec
from trioq.server.handlers.partition_lookup import require_partition
from trioq.server.leader_hints import LEADER_CHANGES, endpoints_of, leader_of
from trioq.storage.log_dir import DiskBacklog
from trioq.wire.api_keys import ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceResponse,
    ProduceResponseCurrentLeader,
    ProduceResponseNodeEndpoint,
    ProduceResponsePartition,
    ProduceResponseTopic,
)

if TYPE_CHECKING:
    from trioq._native.batch import BatchHeader
    from trioq._native.response_ring import ReadyAnswer
    from trioq.metastore.image import ClusterImage
    from trioq.replication.partition import Partition
    from trioq.server.context import Context, Request
    from trioq.server.deadlines import Deadline
    from trioq.server.slot import Slot

FIRST_VERSION_WITH_BATCHES = 3
FIRST_VERSION_WITH_ZSTD = 7
FIRST_VERSION_WITH_LEADERS = 10
ACKS_NONE = 0
ACKS_ALL = -1


def handle_produce(ctx: Context, request: Request, slot: Slot) -> None:
    """Stage 1: check and stage every batch; the slot is completed when they are safe.

    Raises DiskBacklog, with nothing done, when a disk cannot take the request now.
    """
    single = read_single_batch(request.body, request.position, request.end, request.api_version)
    if single is None or single.acks == ACKS_NONE or not _take_single(ctx, request, slot, single):
        _take_all(ctx, request, slot)


def _take_single(ctx: Context, request: Request, slot: Slot, single: SingleBatch) -> bool:
    """The request of one batch, which most are, as `_take_all` does it, in fewer steps.

    False, with nothing done, for what is not so simple: other errors than those of staging,
    batches to be prepared.
    """
    acks = single.acks
    records = single.records
    partition = ctx.partitions.find(single.topic, single.partition)
    if partition is None or not partition.is_leader or not records or acks not in (1, ACKS_ALL):
        return False
    try:
        header = partition.check_batch(records)
    except KafkaError:
        return False
    if partition.must_prepare(header) or (
        request.api_version < FIRST_VERSION_WITH_ZSTD and header.codec == Codec.ZSTD
    ):
        return False
    try:
        appended = partition.append_as_leader(records, header, acks=acks, now_ms=ctx.clock.now_ms())
    except KafkaError as error:
        _refuse_single(ctx, slot, partition, error)
        return True
    frame = single.answer(
        slot.correlation_id,
        appended.base_offset,
        appended.append_time_ms,
        appended.log_start_offset,
    )
    waiter = _SingleAnswer(ctx, slot, partition, frame)
    if acks == ACKS_ALL and partition.acks_take_long:
        waiter.wait_until(ctx.clock.monotonic_s() + max(0, single.timeout_ms) / 1000)
    partition.await_acks(appended.last_offset + 1, acks, waiter, 0)
    return True


def _refuse_single(ctx: Context, slot: Slot, partition: Partition, error: KafkaError) -> None:
    slot.complete_frame(refused_frame(ctx, slot, partition, error))


def refused_frame(
    ctx: Context, entry: Slot | ReadyAnswer, partition: Partition, error: KafkaError
) -> bytes:
    """The whole response to a request of one batch, which was not appended, or is lost."""
    topic, number = partition.topic_partition
    answer = ProduceResponsePartition(
        index=number, base_offset=-1, error_code=error.code, error_message=str(error)
    )
    response = ProduceResponse(
        responses=[ProduceResponseTopic(name=topic, partition_responses=[answer])]
    )
    api_version = entry.api_version
    if error.code in LEADER_CHANGES and api_version >= FIRST_VERSION_WITH_LEADERS:
        _tell_leaders(response, ctx.image, entry.connection.listener_name)
    (frame,) = response_frame(ApiKey.PRODUCE, api_version, entry.correlation_id, response)
    assert isinstance(frame, bytes), "no records are in it"
    return frame


def _tell_leaders(response: ProduceResponse, image: ClusterImage, listener_name: str) -> None:
    """Add who leads now where that is what went wrong (KIP-951)."""
    leaders = set()
    for topic in response.responses:
        for answer in topic.partition_responses:
            now = leader_of(image, topic.name, answer.index)
            if answer.error_code in LEADER_CHANGES and now is not None:
                leader_id, leader_epoch = now
                answer.current_leader = ProduceResponseCurrentLeader(
                    leader_id=leader_id, leader_epoch=leader_epoch
                )
                leaders.add(leader_id)
    response.node_endpoints = [
        ProduceResponseNodeEndpoint(
            node_id=one.node_id, host=one.host, port=one.port, rack=one.rack
        )
        for one in endpoints_of(image, leaders, listener_name)
    ]


class _SingleAnswer:
    """The answer to a request of one batch, ready to go once the batch is safe. An AckWaiter."""

    __slots__ = ("_ctx", "_deadline", "_frame", "_is_over", "_partition", "_slot")

    def __init__(self, ctx: Context, slot: Slot, partition: Partition, frame: bytes) -> None:
        self._ctx = ctx
        self._slot = slot
        self._partition = partition
        self._frame = frame
        self._deadline: Deadline | None = None
        self._is_over = False

    def wait_until(self, when_s: float) -> None:
        """Answer that it took too long, unless it is safe by then."""
        self._deadline = self._ctx.deadlines.add(when_s, self._timed_out)

    def acknowledged(self, index: int) -> None:  # noqa: ARG002
        """See trioq.replication.waiters.AckWaiter."""
        if self._ends():
            self._slot.complete_frame(self._frame)

    def refused(self, index: int, error: type[KafkaError]) -> None:  # noqa: ARG002
        """See trioq.replication.waiters.AckWaiter."""
        if self._ends():
            _refuse_single(self._ctx, self._slot, self._partition, error())

    def _timed_out(self) -> None:
        self._is_over = True
        self._deadline = None
        _refuse_single(self._ctx, self._slot, self._partition, RequestTimedOut())

    def _ends(self) -> bool:
        """False if its time was over before."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return not self._is_over


def _take_all(ctx: Context, request: Request, slot: Slot) -> None:
    """Any request: every partition succeeds or fails for itself."""
    message = request.decode(ProduceRequest)
    produce = _Produce(ctx, slot, message.acks, message.timeout_ms)
    if request.api_version < FIRST_VERSION_WITH_BATCHES:
        produce.refuse_everything(message, UnsupportedVersion)
        return
    if message.acks not in (ACKS_ALL, ACKS_NONE, 1):
        produce.refuse_everything(message, InvalidRequiredAcks)
        return
    to_prepare: list[tuple[ProduceResponsePartition, Partition, bytes]] = []
    now_ms = ctx.clock.now_ms()
    for topic in message.topic_data:
        answers = produce.add_topic(topic.name)
        for data in topic.partition_data:
            answer = ProduceResponsePartition(index=data.index, base_offset=-1)
            answers.append(answer)
            records = cast("memoryview | None", data.records)  # decoding borrows
            try:
                partition = require_partition(ctx, topic.name, data.index)
                if not records:
                    raise InvalidRecord("the request holds no batch for this partition")
                header = partition.check_batch(records)
                if header.codec == Codec.ZSTD and request.api_version < FIRST_VERSION_WITH_ZSTD:
                    raise UnsupportedCompressionType("zstd needs Produce version 7")
                if partition.must_prepare(header):
                    # The receive buffer is another's after this pass.
                    to_prepare.append((answer, partition, bytes(records)))
                else:
                    produce.append(answer, partition, records, header, now_ms)
            except KafkaError as error:
                produce.refuse(answer, error)
    if to_prepare:
        request.start_task(partial(_append_prepared, produce, to_prepare))
    else:
        produce.staged()


async def _append_prepared(
    produce: _Produce, batches: list[tuple[ProduceResponsePartition, Partition, bytes]]
) -> None:
    """Decompress or recompress in a worker thread, then stage.

    A barrier: later requests of the connection wait, so its batches keep their order.
    """
    for answer, partition, batch in batches:
        try:
            prepared = await trio.to_thread.run_sync(partition.prepare, batch)
            view = memoryview(prepared)
            header = partition.check_batch(view)
            produce.append(answer, partition, view, header, produce.ctx.clock.now_ms())
        except DiskBacklog as error:
            produce.refuse(answer, RequestTimedOut(str(error)))
        except KafkaError as error:
            produce.refuse(answer, error)
    produce.staged()
    produce.ctx.log_dirs.end_pass()


class _Produce:
    """One produce request under way: its answer and what it still waits for.

    An AckWaiter: `index` is the position in `_answers`. Completed exactly once, when the
    last batch is acknowledged or refused, or by its deadline (acks=-1).
    """

    __slots__ = (
        "_acks",
        "_answers",
        "_deadline",
        "_has_moved",
        "_is_staged",
        "_outstanding",
        "_slot",
        "_timeout_ms",
        "_topics",
        "ctx",
    )

    def __init__(self, ctx: Context, slot: Slot, acks: int, timeout_ms: int) -> None:
        self.ctx = ctx
        self._slot = slot
        self._acks = acks
        self._timeout_ms = timeout_ms
        self._topics: list[ProduceResponseTopic] = []
        self._answers: list[ProduceResponsePartition | None] = []
        self._outstanding = 0
        self._is_staged = False
        self._has_moved = False
        self._deadline: Deadline | None = None

    def add_topic(self, name: str) -> list[ProduceResponsePartition]:
        """The list that takes the answers of a topic's partitions."""
        topic = ProduceResponseTopic(name=name, partition_responses=[])
        self._topics.append(topic)
        return topic.partition_responses

    def refuse_everything(self, message: ProduceRequest, error: type[KafkaError]) -> None:
        """Answer every partition of the request with `error`."""
        for topic in message.topic_data:
            answers = self.add_topic(topic.name)
            for data in topic.partition_data:
                answer = ProduceResponsePartition(index=data.index, base_offset=-1)
                answers.append(answer)
                self.refuse(answer, error())
        self.staged()

    def refuse(self, answer: ProduceResponsePartition, error: KafkaError) -> None:
        """Answer one partition with `error`; nothing of it was appended."""
        answer.error_code = error.code
        answer.error_message = str(error)
        if error.code in LEADER_CHANGES:
            self._has_moved = True
        if self._acks == ACKS_NONE:
            self._slot.close(f"produce with acks=0 failed: {error.kafka_name}: {error}")

    def append(
        self,
        answer: ProduceResponsePartition,
        partition: Partition,
        batch: memoryview,
        header: BatchHeader,
        now_ms: int,
    ) -> None:
        """Stage one checked batch and wait for it.

        Raises what append_as_leader raises; DiskBacklog for the request's first batch only.
        """
        acks = self._acks
        try:
            appended = partition.append_as_leader(batch, header, acks=acks, now_ms=now_ms)
        except DiskBacklog as error:
            if self._outstanding:
                raise RequestTimedOut(str(error)) from error
            raise
        answer.base_offset = appended.base_offset
        answer.log_append_time_ms = appended.append_time_ms
        answer.log_start_offset = appended.log_start_offset
        index = len(self._answers)
        self._answers.append(answer)
        self._outstanding += 1
        if acks == ACKS_ALL and self._deadline is None and partition.acks_take_long:
            self._deadline = self.ctx.deadlines.add(
                self.ctx.clock.monotonic_s() + max(0, self._timeout_ms) / 1000,
                self._timed_out,
            )
        partition.await_acks(appended.last_offset + 1, acks, self, index)

    def staged(self) -> None:
        """Everything that can be staged is: complete as soon as nothing is outstanding."""
        self._is_staged = True
        if self._acks == ACKS_NONE:
            self._slot.discard()
        elif not self._outstanding:
            self._complete()

    def acknowledged(self, index: int) -> None:
        """See trioq.replication.waiters.AckWaiter."""
        self._settle(index)

    def refused(self, index: int, error: type[KafkaError]) -> None:
        """See trioq.replication.waiters.AckWaiter."""
        answer = self._answers[index]
        if answer is not None:
            answer.base_offset = -1
            self.refuse(answer, error())
        self._settle(index)

    def _settle(self, index: int) -> None:
        if self._answers[index] is None:
            return  # its request has timed out
        self._answers[index] = None
        self._outstanding -= 1
        if self._is_staged and not self._outstanding:
            self._complete()

    def _timed_out(self) -> None:
        for index, answer in enumerate(self._answers):
            if answer is not None:
                answer.base_offset = -1
                answer.error_code = RequestTimedOut.code
                self._answers[index] = None
        self._outstanding = 0
        self._deadline = None
        if self._is_staged:
            self._complete()

    def _complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._acks != ACKS_NONE:
            response = ProduceResponse(responses=self._topics)
            if self._has_moved and self._slot.api_version >= FIRST_VERSION_WITH_LEADERS:
                _tell_leaders(response, self.ctx.image, self._slot.connection.listener_name)
            self._slot.complete(response)
