"""What becomes of batches: written, sent again, split, given up. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trioq import logs
from trioq.client.accumulator_state import AccumulatorState
from trioq.client.idempotence_state import IdempotenceState, Repair
from trioq.client.partition_queue import PartitionQueue
from trioq.client.produce_verdicts import Verdict, judge
from trioq.client.producer_batch import ProducerBatch, Written
from trioq.client.unrouted import Failed
from trioq.errors import DeliveryTimeout, TrioqError, error_class
from trioq.wire.messages.produce import ProduceResponsePartition

_log = logs.get_logger(__name__)

_UNNOTICED_FAILURES: Final = 1000
"""How many failures are kept; of more, the oldest are only logged."""


@dataclass(slots=True)
class Counts:
    """What happened so far; see ProducerStatistics."""

    records_written: int = 0
    records_failed: int = 0
    batches_written: int = 0
    batches_failed: int = 0
    retries: int = 0
    splits: int = 0
    requests: int = 0


class Settlement:
    """Decides by the answers; `idempotence` is None for a producer without sequence numbers.

    Failures that nobody was waiting for are kept until `take_failure`, the first of them.
    """

    def __init__(
        self,
        accumulator: AccumulatorState,
        idempotence: IdempotenceState | None,
        *,
        retry_delay_s: Callable[[int], float],
        delivery_timeout_ms: int,
    ) -> None:
        self.counts = Counts()
        self._unnoticed: deque[tuple[ProducerBatch | Failed, TrioqError]] = deque(
            maxlen=_UNNOTICED_FAILURES
        )
        self._accumulator = accumulator
        self._idempotence = idempotence
        self._retry_delay_s = retry_delay_s
        self._delivery_timeout_ms = delivery_timeout_ms

    def answered(
        self,
        queue: PartitionQueue,
        batch: ProducerBatch,
        answer: ProduceResponsePartition,
        now_s: float,
    ) -> Verdict:
        """Do what an answer demands of a batch in flight."""
        verdict = judge(answer.error_code, batch.count, is_idempotent=self._idempotence is not None)
        match verdict:
            case Verdict.WRITTEN:
                self.written(queue, batch, Written(answer.base_offset, answer.log_append_time_ms))
            case Verdict.WRITTEN_BEFORE:
                self.written(queue, batch, Written(-1, -1))
            case Verdict.SPLIT:
                self._split(queue, batch)
            case Verdict.FAIL:
                self.failed(queue, batch, _refusal(batch, answer))
            case _:
                if verdict is Verdict.RETRY_UNCERTAIN:
                    batch.is_uncertain = True
                elif verdict is Verdict.PRODUCER_UNKNOWN or (
                    verdict is Verdict.OUT_OF_ORDER and not self._is_expected_gap(queue, batch)
                ):
                    queue.sequences.need(Repair.NEW_EPOCH)
                self._again(queue, batch, error_class(answer.error_code).kafka_name, now_s)
        return verdict

    def _is_expected_gap(self, queue: PartitionQueue, batch: ProducerBatch) -> bool:
        """Whether the batch that is missing before this one is known to be: it will come yet."""
        return queue.has_earlier(batch) or bool(queue.sequences.repair)

    def lost(
        self, queue: PartitionQueue, batch: ProducerBatch, failure: TrioqError, now_s: float
    ) -> None:
        """No answer came to a batch in flight."""
        batch.is_uncertain = True
        self._again(queue, batch, str(failure), now_s)

    def unsent(
        self, queue: PartitionQueue, batch: ProducerBatch, failure: TrioqError, now_s: float
    ) -> None:
        """A batch that counted as in flight was not handed over to a connection."""
        self._again(queue, batch, str(failure), now_s)

    def _again(
        self, queue: PartitionQueue, batch: ProducerBatch, reason: str, now_s: float
    ) -> None:
        batch.last_failure = reason
        self.counts.retries += 1
        self._accumulator.put_back(queue, batch, now_s + self._retry_delay_s(batch.attempts))

    def _split(self, queue: PartitionQueue, batch: ProducerBatch) -> None:
        self.counts.splits += 1
        queue.sequences.gave_up(batch)
        self._accumulator.split(queue, batch)

    def written(self, queue: PartitionQueue, batch: ProducerBatch, outcome: Written) -> None:
        """The broker has it."""
        self.counts.records_written += batch.count
        self.counts.batches_written += 1
        queue.sequences.acked(batch)
        self._accumulator.settle(queue, batch, outcome)

    def failed(self, queue: PartitionQueue, batch: ProducerBatch, error: TrioqError) -> None:
        """Give a batch up, wherever it is."""
        count = batch.count or batch.record_count
        self.counts.records_failed += count
        self.counts.batches_failed += 1
        if not batch.is_awaited:
            self._unnoticed.append((batch, error))
            _log.warning(
                "records not written",
                topic=batch.topic,
                partition=batch.partition,
                records=count,
                reason=str(error),
            )
        queue.sequences.gave_up(batch)
        self._accumulator.settle(queue, batch, error)

    def failed_unrouted(self, name: str, error: TrioqError) -> None:
        """Give up the records of a topic whose partitions are not known."""
        unrouted = self._accumulator.unrouted.get(name)
        if unrouted is None:
            return
        self.counts.records_failed += len(unrouted)
        if not unrouted.is_awaited:
            _log.warning(
                "records not written", topic=name, records=len(unrouted), reason=str(error)
            )
        failed = self._accumulator.fail_unrouted(name, error)
        if not failed.is_awaited:
            self._unnoticed.append((failed, error))

    def expire(self, now_s: float) -> None:
        """Give up what waits for longer than the delivery timeout."""
        for queue, batch in list(self._accumulator.overdue(now_s)):
            error = DeliveryTimeout(
                f"{batch.topic}-{batch.partition}: not acknowledged within "
                f"{self._delivery_timeout_ms} ms (delivery_timeout_ms); last: {batch.last_failure}"
            )
            self.failed(queue, batch, error)
        for name, unrouted in list(self._accumulator.unrouted.items()):
            if unrouted.deadline_s <= now_s:
                self.not_routed_in_time(name, "no answer came")

    def not_routed_in_time(self, name: str, reason: str) -> None:
        """The partitions of a topic did not become known within the delivery timeout."""
        error = DeliveryTimeout(
            f"{name}: its partitions were not known within {self._delivery_timeout_ms} ms "
            f"(delivery_timeout_ms); last: {reason}"
        )
        self.failed_unrouted(name, error)

    def fail_all(self, error: TrioqError) -> None:
        """Give up everything."""
        for name in list(self._accumulator.unrouted):
            self.failed_unrouted(name, error)
        for queue in list(self._accumulator.active):
            for batch in (*queue.in_flight, *queue.waiting, queue.open):
                if batch is not None:
                    self.failed(queue, batch, error)

    def take_failure(self) -> TrioqError | None:
        """The first failure that nobody has been told since, once."""
        unnoticed = [error for failed, error in self._unnoticed if not failed.is_awaited]
        self._unnoticed.clear()
        return unnoticed[0] if unnoticed else None


def _refusal(batch: ProducerBatch, answer: ProduceResponsePartition) -> TrioqError:
    kind = error_class(answer.error_code)
    reason = answer.error_message or (kind.__doc__ or "").strip()
    details = "; ".join(
        f"record {error.batch_index}: {error.batch_index_error_message or 'refused'}"
        for error in answer.record_errors
    )
    more = f" ({details})" if details else ""
    return kind(f"{batch.topic}-{batch.partition}: {reason}{more}")
