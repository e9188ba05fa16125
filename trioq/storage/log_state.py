"""The state of one partition's log: its offsets, epochs and producers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from trioq import logs
from trioq._native.log_tail import LogTail
from trioq.errors import KafkaStorageError
from trioq.storage.batch_scan import BatchScan
from trioq.storage.checkpoints import LEADER_EPOCH_FILE, CorruptCheckpoint
from trioq.storage.epoch_cache import UNDEFINED, EpochCache
from trioq.storage.log_config import LogConfig
from trioq.storage.log_dir import LogDir
from trioq.storage.log_producers import load_producers, recent_producers
from trioq.storage.log_read import Edges
from trioq.storage.producer_state import ProducerState
from trioq.storage.segment import Segment
from trioq.storage.segments import Segments
from trioq.types import TopicId, TopicPartition

if TYPE_CHECKING:
    from trioq.storage.log import Log
    from trioq.storage.log_writer import GroupWrite

log = logs.get_logger(__name__)


class LogState(LogTail):
    """What a log knows; the classes over it, up to `Log`, add what it does."""

    __slots__ = (
        "_epochs",
        "_epochs_changed",
        "_unborn_epoch",
        "_unsynced",
        "cleaned_end_offset",
        "config",
        "on_progress",
        "on_start_moved",
        "segments",
        "topic_id",
        "topic_partition",
        "truncations",
    )

    _producers: ProducerState | None
    log_dir: LogDir

    def __init__(
        self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
        log_dir: LogDir,
        segments: Segments,
        *,
        log_start_offset: int = 0,
        log_end_offset: int = 0,
        high_watermark: int = 0,
        cleaned_end_offset: int = 0,
        producers: ProducerState | None = None,
    ) -> None:
        """Everything below `log_end_offset` is on stable storage; the others are clamped to it."""
        super().__init__(log_dir)
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.config = config
        self.segments = segments
        self.log_start_offset = log_start_offset
        self.high_watermark = min(max(high_watermark, log_start_offset), log_end_offset)
        self.cleaned_end_offset = min(cleaned_end_offset, log_end_offset)
        """Compaction has been through with everything below; 0 where there was none."""
        self.log_end_offset = log_end_offset
        self.written_end_offset = log_end_offset
        self.synced_end_offset = log_end_offset
        self.failed = log_dir.error is not None
        self.on_progress: Callable[[Log], None] | None = None
        self.on_start_moved: Callable[[Log], None] | None = None
        self._writing: GroupWrite | None = None
        self._unsynced: list[Segment] = []
        self._producers = producers
        self._are_windows_whole = log_end_offset == 0
        self._epochs: EpochCache | None = None
        self._epochs_changed = False
        self._unborn_epoch: tuple[int, int] | None = None
        self._edges: Edges | None = None
        log_dir.logs[cast("Log", self)] = None
        self.truncations = 0
        """Counts truncations: a sync that began before one says nothing about what came after."""

    def __repr__(self) -> str:
        return f"Log({self.topic_partition}, {self.log_start_offset}..{self.log_end_offset})"

    # ---- offsets ----

    @property
    def last_stable_offset(self) -> int:
        """Where readers of committed data stop: the first record of an undecided transaction."""
        unstable = self.producers.first_unstable_offset()
        if unstable is None or unstable > self.high_watermark:
            return self.high_watermark
        return max(unstable, self.log_start_offset)

    @property
    def durable_end_offset(self) -> int:
        """The end of what an acknowledgement or the high watermark may rest on."""
        if self.config.flush_policy == "commit":
            return self.synced_end_offset
        return self.written_end_offset

    @property
    def recovery_point(self) -> int:
        """Everything below is on stable storage, indexes too, and needs no check after a crash."""
        unsynced = self.segments.unsynced_indexes
        if unsynced:
            return min(self.synced_end_offset, unsynced[0].base_offset)
        return self.synced_end_offset

    @property
    def has_staged(self) -> bool:
        """True while something appended is not written."""
        return self.log_end_offset != self.written_end_offset

    @property
    def is_borrowing(self) -> bool:
        """True while memory given to `append` is still needed."""
        return bool(self._staged) or self._writing is not None

    @property
    def size_bytes(self) -> int:
        """Bytes of the log files. Raises KafkaStorageError."""
        try:
            return self.segments.size_bytes()
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error

    def set_high_watermark(self, offset: int) -> None:
        """Move the high watermark forward, never beyond what is durable."""
        assert self.high_watermark <= offset <= self.durable_end_offset, (
            f"{self!r}: high watermark {self.high_watermark} to {offset}, "
            f"durable {self.durable_end_offset}"
        )
        self.high_watermark = offset
        if self._producers is not None:
            self._producers.on_high_watermark(offset)

    def apply_config(self, config: LogConfig) -> None:
        """Follow a changed topic configuration, from the next call on."""
        self.config = config
        self.segments.interval_bytes = config.index_interval_bytes

    def tell_progress(self) -> None:
        """Tell who listens that an end moved or the log failed."""
        if self.on_progress is not None:
            self.on_progress(cast("Log", self))

    def offline_error(self) -> KafkaStorageError:
        """What is raised once the log has failed."""
        return KafkaStorageError(f"the log directory of {self.topic_partition} is offline")

    # ---- producers ----

    @property
    def producers(self) -> ProducerState:
        """The producer state, loaded at first use.

        Raises KafkaStorageError when it cannot be read, and CorruptMessage.
        """
        producers = self._producers
        if producers is None:
            try:
                producers = load_producers(
                    self.segments, self.log_start_offset, self.written_end_offset
                )
            except OSError as error:
                self.log_dir.fail(error)
                raise self.offline_error() from error
            producers.on_high_watermark(self.high_watermark)
            self._producers = producers
        return producers

    @property
    def judging_producers(self) -> ProducerState:
        """The producer state with whole windows: what a batch is judged by. Raises as `producers`.

        Apart from `producers` because it reads the end of the log at its first use.
        """
        producers = self.producers
        if not self._are_windows_whole:
            self._are_windows_whole = True
            try:
                producers.widen(recent_producers(self.segments))
            except OSError as error:
                self.log_dir.fail(error)
                raise self.offline_error() from error
        return producers

    def expire_producers(self, now_ms: int, expiration_ms: int) -> int:
        """Forget idle producers; returns how many. Does nothing while the state is not loaded."""
        if self._producers is None:
            return 0
        return self._producers.remove_expired(now_ms, expiration_ms)

    # ---- leader epochs ----

    @property
    def epochs(self) -> EpochCache:
        """The epochs of what is written, loaded at first use; rebuilt when the file is damaged."""
        epochs = self._epochs
        if epochs is None:
            try:
                epochs = self._load_epochs()
            except OSError as error:
                self.log_dir.fail(error)
                raise self.offline_error() from error
            self._epochs_changed |= epochs.truncate_from_end(self.written_end_offset)
            self._epochs_changed |= epochs.truncate_from_start(self.log_start_offset)
            self._epochs = epochs
        return epochs

    def forget_epochs(self) -> None:
        """The log begins anew: what the epochs say is of batches that are gone."""
        self._epochs = EpochCache()
        self._epochs_changed = True

    def _load_epochs(self) -> EpochCache:
        segments = self.segments
        if not segments.exists:
            return EpochCache()
        path = f"{segments.directory}/{LEADER_EPOCH_FILE}"
        try:
            epochs = EpochCache.decode(self.log_dir.disk.read_file(path), path)
            start_offset = max(self.log_start_offset, segments.items[0].base_offset)
            is_empty = self.written_end_offset <= start_offset
            if is_empty or epochs.epoch_for_offset(start_offset) >= 0:
                return epochs
            reason = f"no epoch for offset {start_offset}"
        except FileNotFoundError:
            reason = "missing"
        except CorruptCheckpoint as error:
            reason = str(error)
        if self.written_end_offset > self.log_start_offset:
            log.warning("leader_epochs_rebuilt", log=str(self.topic_partition), reason=reason)
        epochs = EpochCache()
        for segment in segments.items:
            shared, size = self.log_dir.indexes.file_and_size(segment)
            for _, header in BatchScan(shared.file, 0, size, check_crc=False):
                epochs.observe(header.leader_epoch, header.base_offset)
        self._epochs_changed = True
        return epochs

    @property
    def latest_epoch(self) -> int:
        """The epoch of the log's end: assigned, or that of the last batch; -1 for none."""
        if self._unborn_epoch is not None:
            return self._unborn_epoch[0]
        return self.epochs.latest_epoch

    def assign_epoch(self, leader_epoch: int, start_offset: int) -> None:
        """A leader's term begins at `start_offset`, the log's end.

        Costs nothing until a batch of the term is written: before that, a restart may forget it.
        """
        if self._unborn_epoch is not None and self._unborn_epoch[0] >= leader_epoch:
            return
        if self._epochs is not None and self._epochs.latest_epoch >= leader_epoch:
            return
        self._unborn_epoch = (leader_epoch, start_offset)

    def epoch_start_offset(self, leader_epoch: int) -> int | None:
        """Where a term began; None when it is not known here."""
        unborn = self._unborn_epoch
        if unborn is not None and unborn[0] == leader_epoch:
            return unborn[1]
        for epoch, start_offset in self.epochs.entries():
            if epoch == leader_epoch:
                return start_offset
        return None

    def epoch_end_offset(self, leader_epoch: int) -> tuple[int, int]:
        """The largest known epoch <= `leader_epoch`, and where it ends; (-1, -1) for none."""
        epochs = self.epochs
        unborn = self._unborn_epoch
        if unborn is None or unborn[0] <= epochs.latest_epoch:
            return epochs.end_offset_for(leader_epoch, self.log_end_offset)
        if leader_epoch == unborn[0]:
            return leader_epoch, self.log_end_offset
        if leader_epoch > unborn[0] or leader_epoch < 0:
            return UNDEFINED
        if len(epochs) == 0:
            return leader_epoch, unborn[1]
        if leader_epoch < epochs.latest_epoch:
            return epochs.end_offset_for(leader_epoch, unborn[1])
        return epochs.latest_epoch, unborn[1]
