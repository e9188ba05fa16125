"""One partition hosted here: its role, its log, and those who wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trioq._native.batch import BatchHeader, peek, stamp_append_time
from trioq._native.partition_head import PartitionHead
from trioq.errors import (
    FencedLeaderEpoch,
    InvalidTimestamp,
    InvalidTxnState,
    KafkaError,
    KafkaStorageError,
    MessageTooLarge,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    OffsetNotAvailable,
    OffsetOutOfRange,
    PolicyViolation,
    UnknownLeaderEpoch,
)
from trioq.record.compression import Codec
from trioq.record.validate import check_produced, recompress
from trioq.replication.isr_state import IsrState
from trioq.replication.waiters import AckWaiter, ProgressListener
from trioq.types import FileRegion, TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.config import BrokerConfig, TopicConfig
    from trioq.metastore.image import PartitionImage
    from trioq.storage.log import Appended, Log

ACKS_ALL = -1
CONFIG_CODECS = {
    "uncompressed": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}


class ReadResult(NamedTuple):
    """What a fetch of one partition found; the region, if any, is the caller's to release."""

    region: FileRegion | None
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    diverging: tuple[int, int] | None
    """(epoch, end offset) where the reader's log parts from this one (KIP-595), or None."""


class Partition(PartitionHead):
    """The leader's side of one partition.

    Owned by the broker's loop: every method is a plain call made on its thread, but for
    `prepare`, which touches nothing here and may run in a worker thread. Lives from the
    image that assigns it to this broker until the one that takes it away.
    """

    __slots__ = (
        "_append_time",
        "_codec",
        "_decompressed_max_bytes",
        "_decompressed_max_ratio",
        "_isr",
        "_level",
        "_max_message_bytes",
        "_needs_keys",
        "_strict",
        "config",
        "leader_id",
        "local_id",
        "partition_epoch",
        "topic_id",
        "topic_partition",
    )

    log: Log
    _listeners: dict[ProgressListener, None]

    def __init__(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        log: Log,
        config: TopicConfig,
        broker_config: BrokerConfig,
    ) -> None:
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.log = log
        self._writer = log.log_dir.writer
        self.local_id = broker_config.node_id
        self.leader_id = -1
        self.partition_epoch = -1
        self._isr: IsrState | None = None
        self.apply_config(config, broker_config)
        log.on_progress = self._log_progressed

    # ---- role -------------------------------------------------------------------------

    def apply_config(self, config: TopicConfig, broker_config: BrokerConfig) -> None:
        """Follow a changed configuration; takes effect with the next request."""
        self.config = config
        if self.log.config is not config:
            self.log.apply_config(config)
        self._max_message_bytes = config.max_message_bytes
        self._append_time = config.message_timestamp_type == "LogAppendTime"
        self._before_max_ms = config.message_timestamp_before_max_ms
        self._after_max_ms = config.message_timestamp_after_max_ms
        self._strict = config.produce_batch_validation == "strict"
        self._needs_keys = "compact" in config.cleanup_policy
        self._codec = CONFIG_CODECS.get(config.compression_type)
        self._level = _compression_level(config)
        self._decompressed_max_bytes = broker_config.produce_decompressed_max_bytes
        self._decompressed_max_ratio = broker_config.produce_decompressed_max_ratio
        self._open_lane()

    def _open_lane(self) -> None:
        """Say what the produce lane may append by itself; see PartitionHead.

        To be called whenever the role, the in-sync replicas or the configuration changed.
        """
        isr, config = self._isr, self.config
        is_plain = not (self._append_time or self._needs_keys or self._codec is not None)
        self._takes_acks_one = is_plain and isr is not None
        self._takes_acks_all = (
            is_plain
            and isr is not None
            and len(isr.committed) >= config.min_insync_replicas
            and not self.acks_take_long
        )
        self._takes_compressed = not self._strict
        self._lane_max_bytes = min(self._max_message_bytes, config.segment_bytes)

    def apply_state(self, state: PartitionImage) -> None:
        """Follow the metastore's partition state; an older one than held is ignored.

        Raises:
            KafkaStorageError: the log could not take the new leader epoch.
        """
        if state.partition_epoch < self.partition_epoch:
            return
        self.partition_epoch = state.partition_epoch
        if state.leader == self.local_id and not self.log.failed:
            if not self.is_leader or state.leader_epoch != self.leader_epoch:
                self._lead(state)
            elif self._isr is not None:
                self._isr.decide(state.isr)
                self._open_lane()
                self._advance_high_watermark()
        else:
            self._step_down()
        self.leader_id = state.leader
        self.leader_epoch = state.leader_epoch

    def _lead(self, state: PartitionImage) -> None:
        self._refuse_waiters(NotLeaderOrFollower)
        self.log.assign_epoch(state.leader_epoch, self.log.log_end_offset)
        self._isr = IsrState(self.local_id, state.isr)
        self.is_leader = True
        self._is_end_known = False
        self._open_lane()
        self._advance_high_watermark()

    def _step_down(self) -> None:
        self.is_leader = False
        self._is_end_known = False
        self._isr = None
        self._open_lane()
        self._refuse_waiters(NotLeaderOrFollower)

    def close(self) -> None:
        """The partition is no longer hosted here: everyone waiting is told."""
        self._step_down()
        self.is_closed = True
        self.leader_id = -1
        self.log.on_progress = None

    # ---- appending --------------------------------------------------------------------

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
        appended = self.log.append(batch, header, leader_epoch=self.leader_epoch, now_ms=now_ms)
        if not appended.duplicate:
            self._bytes_since_progress += header.size_bytes
        return appended

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

    @property
    def acks_take_long(self) -> bool:
        """True if an acknowledgement needs more than this pass's write (so give it a deadline)."""
        isr = self._isr
        return (isr is not None and not isr.is_alone) or self.log.config.flush_policy == "commit"

    # ---- reading ----------------------------------------------------------------------

    def read(
        self,
        fetch_offset: int,
        max_bytes: int,
        *,
        min_one_batch: bool,
        read_committed: bool,
        current_leader_epoch: int,
        last_fetched_epoch: int,
    ) -> ReadResult:
        """Find what a consumer may read from `fetch_offset` on: whole batches below the high
        watermark, or below the last stable offset for read_committed.

        Raises:
            NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, OffsetOutOfRange,
            KafkaStorageError.
        """
        self.check_epoch(current_leader_epoch)
        log = self.log
        if last_fetched_epoch >= 0:
            epoch, end_offset = log.epoch_end_offset(last_fetched_epoch)
            if epoch < 0:
                raise OffsetOutOfRange(f"no leader epoch up to {last_fetched_epoch} is known here")
            if epoch < last_fetched_epoch or end_offset < fetch_offset:
                return ReadResult(
                    None,
                    log.high_watermark,
                    log.last_stable_offset,
                    log.log_start_offset,
                    (epoch, end_offset),
                )
        end = log.last_stable_offset if read_committed else log.high_watermark
        if log.log_start_offset <= fetch_offset and end <= fetch_offset <= log.log_end_offset:
            region = None
        else:
            region = log.read(fetch_offset, max_bytes, end_offset=end, min_one_batch=min_one_batch)
        return ReadResult(
            region, log.high_watermark, log.last_stable_offset, log.log_start_offset, None
        )

    def check_epoch(self, current_leader_epoch: int) -> None:
        """Fence a client whose view of the leadership differs (KIP-320); -1 skips the check."""
        if not self.is_leader:
            raise self._not_leader()
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
            if current_leader_epoch < self.leader_epoch:
                raise FencedLeaderEpoch
            raise UnknownLeaderEpoch

    def latest_offset(self, *, read_committed: bool) -> int:
        """The end of what a consumer may read.

        Raises:
            OffsetNotAvailable: the high watermark has not reached the start of this leader's
                epoch, so an older leader may have shown more (KIP-207).
        """
        log = self.log
        epoch_start = log.epoch_start_offset(self.leader_epoch)
        if epoch_start is not None and log.high_watermark < epoch_start:
            raise OffsetNotAvailable
        self._is_end_known = True
        return log.last_stable_offset if read_committed else log.high_watermark

    def add_listener(self, listener: ProgressListener) -> None:
        """Have `listener` told of all progress until it is removed."""
        self._listeners[listener] = None

    def remove_listener(self, listener: ProgressListener) -> None:
        """Undo `add_listener`; nothing happens if it is not there."""
        self._listeners.pop(listener, None)

    # ---- administration ---------------------------------------------------------------

    def delete_records(self, before_offset: int) -> int:
        """Forget everything below `before_offset` (-1: the high watermark).

        Returns:
            The log start offset afterwards.

        Raises:
            OffsetOutOfRange: above the high watermark, or negative but not -1.
            PolicyViolation: the topic is compacted and nothing else.
            NotLeaderOrFollower, KafkaStorageError.
        """
        if not self.is_leader:
            raise self._not_leader()
        if "delete" not in self.config.cleanup_policy:
            raise PolicyViolation(
                f"records of {self.topic_partition} cannot be deleted: its cleanup.policy is "
                f"{','.join(self.config.cleanup_policy)}"
            )
        high_watermark = self.log.high_watermark
        target = high_watermark if before_offset == -1 else before_offset
        if not 0 <= target <= high_watermark:
            raise OffsetOutOfRange(
                f"records can be deleted below the high watermark, {high_watermark}; "
                f"{before_offset} was asked for"
            )
        return self.log.delete_records(target)

    # ---- progress ---------------------------------------------------------------------

    def _not_leader(self) -> KafkaError:
        if self.log.failed:
            return KafkaStorageError(f"the log directory of {self.topic_partition} is offline")
        return NotLeaderOrFollower()

    def _log_progressed(self, log: Log) -> None:
        if log.failed:
            self.is_leader = False
            self._isr = None
            self._open_lane()
            self._refuse_waiters(KafkaStorageError)
            return
        if self._acks_one:
            self._acks_one.pass_offset(log.durable_end_offset)
        self._advance_high_watermark()

    def _advance_high_watermark(self) -> None:
        isr = self._isr
        if isr is None:
            return
        log = self.log
        high_watermark = isr.high_watermark(log.durable_end_offset)
        if high_watermark <= log.high_watermark:
            return
        log.set_high_watermark(high_watermark)
        self._acks_all.pass_offset(high_watermark)
        new_bytes, self._bytes_since_progress = self._bytes_since_progress, 0
        if self._listeners:
            for listener in tuple(self._listeners):
                listener.progressed(self, new_bytes)

    def _refuse_waiters(self, error: type[KafkaError]) -> None:
        self._acks_one.refuse_all(error)
        self._acks_all.refuse_all(error)
        for listener in tuple(self._listeners):
            listener.progressed(self, 0)


def _compression_level(config: TopicConfig) -> int | None:
    """The level for a compression.type that the broker applies itself; None where it has none."""
    return {
        "gzip": config.compression_gzip_level,
        "lz4": config.compression_lz4_level,
        "zstd": config.compression_zstd_level,
    }.get(config.compression_type)
