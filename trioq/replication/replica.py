"""What the sides of a partition share: its log, its configuration, who leads it, who listens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from trioq._native.partition_head import PartitionHead
from trioq.errors import (
    FencedLeaderEpoch,
    KafkaError,
    KafkaStorageError,
    NotLeaderOrFollower,
    UnknownLeaderEpoch,
)
from trioq.record.compression import Codec
from trioq.replication.isr_state import IsrState
from trioq.replication.waiters import (
    JoinWatcher,
    ProgressListener,
    ReplicaListener,
    SettleWatcher,
)
from trioq.types import FileRegion, TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.config import BrokerConfig, TopicConfig
    from trioq.metastore.layout import PartitionState
    from trioq.storage.log import Log

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
    end_offset: int
    """Where there is nothing more for this reader: for consumers the high watermark."""
    diverging: tuple[int, int] | None = None
    """(epoch, end offset) where the reader's log parts from this one (KIP-595), or None."""
    preferred: int = -1
    """The replica that the consumer should read from instead (KIP-392), or -1."""


class Replica(PartitionHead):
    """This broker's replica of a partition, as LeaderSide and FollowerSide know it.

    They add methods, no attributes; Partition is both, and says which one acts. Owned by the
    broker's loop: plain calls on its thread, but where stated.
    """

    __slots__ = (
        "_append_time",
        "_codec",
        "_decompressed_max_bytes",
        "_decompressed_max_ratio",
        "_isr",
        "_leader_high_watermark",
        "_level",
        "_max_message_bytes",
        "_needs_keys",
        "_replica_listeners",
        "_resumed_s",
        "_strict",
        "_told_end_offset",
        "broker_epoch",
        "config",
        "join_watcher",
        "leader_id",
        "local_id",
        "settle_watcher",
        "state",
        "term",
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
        self.broker_epoch = -1
        """Of this broker's registration; nothing is led before it."""
        self.leader_id = -1
        self.state: PartitionState | None = None
        """The latest partition state that was applied."""
        self.term = 0
        """Changes with every change of role, leader or leader epoch."""
        self._resumed_s = -math.inf
        """Monotonic: when this term as leader began, where others went before it here."""
        self.join_watcher: JoinWatcher | None = None
        """Told of followers that may join the ISR, and of a log that failed; None on a broker that
        is no member of a cluster."""
        self.settle_watcher: SettleWatcher | None = None
        """Told when a fetch may state where this replica stands; None where nobody fetches."""
        self._isr: IsrState | None = None
        self._leader_high_watermark = -1
        """What the leader of this term said last."""
        self._replica_listeners: dict[ReplicaListener, None] = {}
        self._told_end_offset = -1
        self.apply_config(config, broker_config)

    @property
    def partition_epoch(self) -> int:
        """The version of the state that was applied last; -1 before the first."""
        return -1 if self.state is None else self.state.partition_epoch

    @property
    def is_follower(self) -> bool:
        """The log is to follow that of another broker, `leader_id`."""
        return not (
            self.is_leader
            or self.is_closed
            or self.log.failed
            or self.leader_id in {-1, self.local_id}
        )

    # ---- configuration ------------------------------------------------------------------

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
        if isr is not None:
            isr.least = min(config.min_insync_replicas, len(isr.state.replicas))
        is_plain = not (self._append_time or self._needs_keys or self._codec is not None)
        self._takes_acks_one = is_plain and isr is not None
        self._takes_acks_all = (
            is_plain and isr is not None and len(isr.committed) >= config.min_insync_replicas
        )
        self._acks_all_wait = self.acks_take_long
        self._takes_compressed = not self._strict
        self._lane_max_bytes = min(self._max_message_bytes, config.segment_bytes)

    @property
    def acks_take_long(self) -> bool:
        """True if an acknowledgement needs more than this pass's write (so give it a deadline)."""
        isr = self._isr
        return (isr is not None and not isr.is_alone) or self.log.config.flush_policy == "commit"

    # ---- fencing ------------------------------------------------------------------------

    def check_epoch(self, current_leader_epoch: int) -> None:
        """Fence a client whose view of the leadership differs (KIP-320); -1 skips the check.

        Raises NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, KafkaStorageError.
        """
        if not self.is_leader:
            raise self._not_leader()
        self._fence(current_leader_epoch)

    def _fence(self, current_leader_epoch: int) -> None:
        if current_leader_epoch >= 0 and current_leader_epoch != self.leader_epoch:
            if current_leader_epoch < self.leader_epoch:
                raise FencedLeaderEpoch
            raise UnknownLeaderEpoch

    def _not_leader(self) -> KafkaError:
        if self.log.failed:
            return KafkaStorageError(f"the log directory of {self.topic_partition} is offline")
        return NotLeaderOrFollower()

    # ---- who listens --------------------------------------------------------------------

    def add_listener(self, listener: ProgressListener) -> None:
        """Have `listener` told of all that consumers may read, until it is removed."""
        self._listeners[listener] = None

    def remove_listener(self, listener: ProgressListener) -> None:
        """Undo `add_listener`; nothing happens if it is not there."""
        self._listeners.pop(listener, None)

    def _tell_consumers(self, new_bytes: int) -> None:
        """`new_bytes` more can be read by consumers; 0: the state changed."""
        for listener in tuple(self._listeners):
            listener.progressed(self, new_bytes)


def _compression_level(config: TopicConfig) -> int | None:
    """The level for a compression.type that the broker applies itself; None where it has none."""
    return {
        "gzip": config.compression_gzip_level,
        "lz4": config.compression_lz4_level,
        "zstd": config.compression_zstd_level,
    }.get(config.compression_type)
