"""What a leader does with the batches of producers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq._native.batch import BatchHeader, peek, stamp_append_time
from trioq.errors import (
    InvalidTimestamp,
    InvalidTxnState,
    MessageTooLarge,
    NotEnoughReplicas,
    NotLeaderOrFollower,
)
from trioq.record.validate import check_produced, recompress
from trioq.replication.replica import Replica
from trioq.replication.waiters import AckWaiter

if TYPE_CHECKING:
    from trioq.storage.log import Appended

ACKS_ALL = -1
SETTLES_S = 5.0
"""So long after a change of leaders may come what clients had sent before they heard of it."""


class ProducingSide(Replica):
    """Checks, prepares and appends batches, and tells who waits for them.

    `prepare` touches nothing here and may run in a worker thread.
    """

    __slots__ = ()

    def check_batch(self, records: memoryview) -> BatchHeader:
        """Check what a producer sent, as far as it can be without decompressing.

        Header, lengths, CRC, count and timestamps; of uncompressed batches every record.

        Args:
            records: one v2 batch exactly; borrowed until return.

        Raises:
            MessageTooLarge, InvalidTxnState, and what check_produced raises.
        """
        length = len(records)
        if length > self._max_message_bytes:
            raise MessageTooLarge(
                f"the batch has {length} bytes; max.message.bytes of {self.topic_partition.topic} "
                f"is {self._max_message_bytes}"
            )
        header = check_produced(records, strict=False, needs_keys=self._needs_keys)
        if header.is_transactional:
            raise InvalidTxnState("no transaction is open for this producer on this broker")
        return header

    def must_prepare(self, header: BatchHeader) -> bool:
        """True if `prepare` has to see the batch before `append_as_leader` may."""
        codec = header.codec
        if codec != 0 and (self._strict or self._needs_keys):
            return True
        return self._codec is not None and codec != self._codec

    def prepare(self, batch: bytes | bytearray) -> bytearray:
        """Decompress and check every record, and recompress where compression.type asks.

        Native work without the interpreter lock; made for a worker thread.

        Returns:
            The batch to append, the caller's own.

        Raises:
            InvalidRecord: records are malformed, or over produce.decompressed.max.bytes or
                .max.ratio.
            MessageTooLarge: the recompressed batch is over max.message.bytes.
        """
        max_bytes, max_ratio = self._decompressed_max_bytes, self._decompressed_max_ratio
        codec, level = self._codec, self._level
        header = check_produced(
            batch,
            strict=True,
            needs_keys=self._needs_keys,
            max_bytes=max_bytes,
            max_ratio=max_ratio,
        )
        if codec is None or header.codec == codec:
            return bytearray(batch)
        recompressed = recompress(batch, codec, level, max_bytes=max_bytes, max_ratio=max_ratio)
        if len(recompressed) > self._max_message_bytes:
            raise MessageTooLarge(
                f"the batch has {len(recompressed)} bytes after recompression with "
                f"{self.config.compression_type}; max.message.bytes is {self._max_message_bytes}"
            )
        return recompressed

    def append_as_leader(
        self, batch: memoryview, header: BatchHeader, *, acks: int, now_ms: int
    ) -> Appended:
        """Stage one checked batch at the end of the log; the pass's end writes it.

        Args:
            batch: writable; offsets and epoch are stamped into it, and it is borrowed until
                its bytes are written.
            header: what `check_batch` returned for it.

        Returns:
            The offsets given, or, for a duplicate, those of the original.

        Raises:
            NotLeaderOrFollower, NotEnoughReplicas, InvalidTimestamp, KafkaStorageError,
            OutOfOrderSequenceNumber, DuplicateSequenceNumber, InvalidProducerEpoch. Nothing is
            appended then.
        """
        isr = self._isr
        if isr is None:
            raise self._not_leader()
        if acks == ACKS_ALL and len(isr.committed) < self.config.min_insync_replicas:
            raise NotEnoughReplicas(
                f"{len(isr.committed)} in-sync replicas, min.insync.replicas is "
                f"{self.config.min_insync_replicas}"
            )
        if self._append_time:
            stamp_append_time(batch, 0, now_ms)
            header = peek(batch)
        else:
            self._check_timestamps(header, now_ms)
        if header.base_sequence > 0:
            self._check_follows(header)
        appended = self.log.append(batch, header, leader_epoch=self.leader_epoch, now_ms=now_ms)
        if not appended.duplicate:
            self._bytes_since_progress += header.size_bytes
        return appended

    def _check_follows(self, header: BatchHeader) -> None:
        """Refuse what leaves a gap in a producer's sequence soon after leaders have changed.

        Clients send several requests at once. When the first was refused, or lost with the term in
        which it waited, and the next comes after this broker leads again, it must not be taken: of
        a producer that is not known here it would be, as any sequence is, and librdkafka then holds
        the first for stored. Nor is it out of order, for which librdkafka begins a new epoch and
        stores what it had not heard of twice. Told of another leader, clients send all again, in
        order.

        Raises NotLeaderOrFollower.
        """
        clock = self.log.log_dir.clock
        if clock.monotonic_s() - self._resumed_s < SETTLES_S and self.log.leaves_gap(header):
            raise NotLeaderOrFollower(
                f"{self.topic_partition} is led here again since a moment ago; sequence "
                f"{header.base_sequence} of producer {header.producer_id} has to wait for those "
                "before it"
            )

    def _check_timestamps(self, header: BatchHeader, now_ms: int) -> None:
        if header.max_timestamp > now_ms + self._after_max_ms:
            raise InvalidTimestamp(
                f"timestamp {header.max_timestamp} is more than message.timestamp.after.max.ms "
                f"({self._after_max_ms}) after the broker's clock ({now_ms})"
            )
        if 0 <= header.base_timestamp < now_ms - self._before_max_ms:
            raise InvalidTimestamp(
                f"timestamp {header.base_timestamp} is more than message.timestamp.before.max.ms "
                f"({self._before_max_ms}) before the broker's clock ({now_ms})"
            )

    def await_acks(self, end_offset: int, acks: int, waiter: AckWaiter, index: int) -> None:
        """Have `waiter` told when everything below `end_offset` is as safe as `acks` asks.

        May tell it before returning (a duplicate of what is already safe).
        """
        if acks == ACKS_ALL:
            if self.log.high_watermark >= end_offset:
                waiter.acknowledged(index)
            else:
                self._acks_all.add(end_offset, waiter, index)
        elif self.log.durable_end_offset >= end_offset:
            waiter.acknowledged(index)
        else:
            self._acks_one.add(end_offset, waiter, index)
