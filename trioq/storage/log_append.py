"""Appending to a log: staging, group writes, rolling, syncing."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from trioq._native.batch import BatchHeader
from trioq._native.log_tail import Staged, first_group
from trioq.errors import CorruptMessage, KafkaStorageError, MessageTooLarge
from trioq.storage.checkpoints import LEADER_EPOCH_FILE
from trioq.storage.log_config import LogConfig
from trioq.storage.log_dir_files import write_checkpoints
from trioq.storage.log_producers import write_snapshot
from trioq.storage.log_read import Edges
from trioq.storage.log_state import LogState, log
from trioq.storage.log_writer import SLOW_WRITE_S, GroupWrite, SyncRequest
from trioq.storage.segment import MAX_RELATIVE_OFFSET, Segment
from trioq.storage.segments import LEAST_BULK_BYTES


class Appended(NamedTuple):
    """Where a batch is, or, for a duplicate, where the original is."""

    base_offset: int
    last_offset: int
    append_time_ms: int
    """-1 unless the topic's timestamps are append times."""
    log_start_offset: int
    duplicate: bool


class AppendLog(LogState):
    """The write side of a log."""

    __slots__ = ()

    def apply_config(self, config: LogConfig) -> None:
        """Follow a changed topic configuration, from the next call on."""
        super().apply_config(config)
        if self.written_end_offset != self.synced_end_offset and not self.failed:
            self._plan_sync()

    # ---- appending ----

    def append(
        self, batch: memoryview, header: BatchHeader, *, leader_epoch: int, now_ms: int
    ) -> Appended:
        """Stage one validated batch at the log's end.

        Args:
            batch: writable, exactly one batch; offsets and epoch are stamped into it. Borrowed
                until it is written or the log failed (`is_borrowing`).
            header: of that batch.
            leader_epoch: the term of the leader that appends.
            now_ms: the broker's clock.

        Returns:
            The offsets given; of the original for a duplicate, which is not appended.

        Raises:
            OutOfOrderSequenceNumber, DuplicateSequenceNumber, InvalidProducerEpoch,
                InvalidTxnState: see ProducerState.check.
            MessageTooLarge: larger than a segment.
            DiskBacklog, RequestTimedOut: the disk stalls and the queue for it is full; see
                LogDir.refuse_append.
            KafkaStorageError: the log's directory is offline.
            Nothing is appended then.

        """
        self._check_append(header.size_bytes)
        producers = None
        if header.producer_id >= 0:
            producers = self.judging_producers
            duplicate = producers.check(header)
            if duplicate is not None:
                return Appended(
                    duplicate.base_offset,
                    duplicate.last_offset,
                    duplicate.timestamp_ms if header.timestamp_type else -1,
                    self.log_start_offset,
                    True,
                )
        base_offset = self._stage(batch, header, leader_epoch)
        if producers is not None:
            producers.stage(header, base_offset, header.max_timestamp)
        append_time_ms = now_ms if header.timestamp_type else -1
        last_offset = base_offset + header.last_offset_delta
        return Appended(base_offset, last_offset, append_time_ms, self.log_start_offset, False)

    def leaves_gap(self, header: BatchHeader) -> bool:
        """True if sequences before this batch's are missing here, as far as is known.

        Raises KafkaStorageError.
        """
        return header.producer_id >= 0 and self.judging_producers.leaves_gap(header)

    def _check_append(self, size_bytes: int) -> None:
        """Raise what keeps a batch of that size from being appended now, if anything does."""
        if self.failed:
            raise self.offline_error()
        if size_bytes > self.config.segment_bytes:
            raise MessageTooLarge(
                f"the batch has {size_bytes} bytes; segment.bytes of {self.topic_partition.topic} "
                f"is {self.config.segment_bytes}"
            )
        if self.log_dir.is_backed_up:
            self.log_dir.refuse_append()

    def write_group(self) -> bool:
        """Write what is staged, one gathered write per segment.

        Returns:
            True when nothing borrowed is held any more (written, or the log failed); False when
            the group went to the log dir's thread, or waits for one that did.

        """
        if not self._staged:
            return self._writing is None
        if self._writing is not None:
            return False
        try:
            if self._write_ordinary(SLOW_WRITE_S, LEAST_BULK_BYTES, MAX_RELATIVE_OFFSET):
                self._progressed()
                return True
            is_written = self._write_staged()
        except OSError as error:
            self.log_dir.fail(error)
            return True
        except KafkaStorageError:
            return True  # what a new segment needs of the old one could not be read: offline now
        except CorruptMessage as error:
            self._fail_corrupt(error)
            return True
        return is_written

    def _write_staged(self) -> bool:
        """Write all that is staged inline, or hand over its first group; see `write_group`."""
        writer = self.log_dir.writer
        start_offset = self.written_end_offset
        while self._staged:
            segment = self._segment_for(self._staged[0])
            group, length = first_group(
                self._staged,
                self.config.segment_bytes - segment.size,
                segment.base_offset + MAX_RELATIVE_OFFSET,
            )
            shared = self.log_dir.files.file_of(segment)
            if writer.is_threaded:
                shared.retain()
                self._writing = GroupWrite(self, segment, shared, group, segment.size, length)
                del self._staged[: len(group)]
                writer.hand_over(self._writing)
                break
            self.segments.reserve(segment, length, self.config)
            writer.write(shared, group, segment.size, length)
            del self._staged[: len(group)]
            self._wrote(segment, group, length)
        if self.written_end_offset != start_offset:
            self._progressed()
        return self._writing is None

    def _segment_for(self, staged: Staged | BatchHeader) -> Segment:
        """The active segment, made or rolled so that the batch fits. Raises OSError."""
        segments = self.segments
        config = self.config
        now_ms = self.log_dir.clock.now_ms()
        if not segments.exists:
            if self.log_dir.is_checkpoint_stale:
                write_checkpoints(self.log_dir)
            segments.create(self.topic_id)
            self.log_dir.writer.request_sync(self)
            return segments.add(staged.base_offset, now_ms, config.segment_jitter_ms)
        segment = segments.items[-1]
        if not segment.is_open_for_append:
            self.log_dir.indexes.open_for_append(segment, config.index_interval_bytes)
        if segment.is_full(
            staged.size_bytes, staged.last_offset, config.segment_bytes, config.segment_index_bytes
        ) or segment.is_aged(staged.max_timestamp, now_ms, config.segment_ms):
            return self._roll(staged.base_offset)
        return segment

    def _wrote(self, segment: Segment, group: list[Staged], length: int) -> None:
        """The bytes of `group` are in the file: now everything derived may move."""
        if segment.size == segment.synced_size:
            self._unsynced.append(segment)
            if self.config.flush_policy == "commit":
                segment.pin(self.log_dir.files)
        segment.add_group(group, self.config.index_interval_bytes)
        first, last = group[0], group[-1]
        self._note_epochs(first, last, group)
        self.written_end_offset = last.last_offset + 1
        self.log_dir.unwritten_bytes -= length
        if self._producers is not None:
            self._producers.commit(self.written_end_offset)
        if self._edges is None:
            self._edges = Edges()
        self._edges.add(self.written_end_offset, segment)

    def _note_epochs(self, first: Staged, last: Staged, group: list[Staged]) -> None:
        if first.leader_epoch < 0:
            return
        epochs = self.epochs
        if epochs.latest_epoch >= last.leader_epoch:
            return
        for one in group:
            if one.leader_epoch > epochs.latest_epoch:
                epochs.assign(one.leader_epoch, one.base_offset)
                self._epochs_changed = True
        if self._unborn_epoch is not None and self._unborn_epoch[0] <= epochs.latest_epoch:
            self._unborn_epoch = None

    def write_completed(self, write: GroupWrite) -> None:
        """A group that went to the thread is in the file (called by the writer)."""
        if write.is_void or self.failed:
            return
        self._writing = None
        self._wrote(write.segment, write.group, write.length)
        self._progressed()
        if self._staged:
            self.write_group()

    def _progressed(self) -> None:
        if self.written_end_offset != self.synced_end_offset:
            self._plan_sync()
        self.tell_progress()

    def roll(self) -> None:
        """Close the active segment and begin a new one at the log's end; nothing if it is empty.

        Nothing may be staged. Raises KafkaStorageError, and CorruptMessage where files are damaged.
        """
        if self.failed:
            raise self.offline_error()
        assert not self.is_borrowing, "roll while batches are staged"
        if not self.segments.exists or self.log_end_offset == self.segments.items[-1].base_offset:
            return
        try:
            active = self.segments.items[-1]
            self.log_dir.indexes.open_for_append(active, self.config.index_interval_bytes)
            self._roll(self.log_end_offset)
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error

    def _roll(self, base_offset: int) -> Segment:
        segments = self.segments
        segments.seal(segments.items[-1])
        write_snapshot(segments, self.producers, base_offset)
        self.log_dir.disk.fault_point("roll.sealed")
        segment = segments.add(
            base_offset, self.log_dir.clock.now_ms(), self.config.segment_jitter_ms
        )
        # Whatever the policy: a sealed segment is synced, so that recovery need not read it.
        self.log_dir.writer.request_sync(self)
        return segment

    # ---- syncing ----

    def _plan_sync(self) -> None:
        policy = self.config.flush_policy
        if policy == "commit":
            self.log_dir.writer.request_sync(self)
        elif policy == "interval":
            if self.written_end_offset - self.synced_end_offset >= self.config.flush_messages:
                self.log_dir.writer.request_sync(self)
            else:
                due_s = self.log_dir.clock.monotonic_s() + self.config.flush_ms / 1000
                self.log_dir.ask_interval_sync(self, due_s)

    def begin_sync(self, *, everything: bool = False) -> SyncRequest | None:
        """What has to be synced now; None when nothing does (called by the writer, and to close).

        With flush.policy=os that is the sealed segments, unless `everything` is asked for.
        """
        if self.failed or not self.segments.exists:
            return None
        self.log_dir.interval_due_s.pop(self, None)
        segments = self.segments
        active = segments.items[-1]
        whole = everything or self.config.flush_policy != "os"
        syncing = [one for one in self._unsynced if whole or one is not active]
        for segment in syncing:
            segment.pin(self.log_dir.files)
        parts = []
        for segment in syncing:
            shared = self.log_dir.files.file_of(segment)
            shared.retain()
            parts.append((segment, shared, segment.size))
        documents = []
        if self._epochs_changed:
            documents.append((f"{segments.directory}/{LEADER_EPOCH_FILE}", self.epochs.encode()))
            self._epochs_changed = False
        if segments.unsynced_metadata is not None:
            documents.append(segments.unsynced_metadata)
            segments.unsynced_metadata = None
        directories = []
        if segments.names_changed or documents:
            directories.append(segments.directory)
            segments.names_changed = False
        if segments.directory_is_new:
            directories.append(self.log_dir.path)
            segments.directory_is_new = False
        end_offset = self.written_end_offset if whole else active.base_offset
        if (
            not (parts or directories or segments.unsynced_indexes)
            and end_offset <= self.synced_end_offset
        ):
            return None
        return SyncRequest(
            self,
            self.truncations,
            max(end_offset, self.synced_end_offset),
            parts,
            list(segments.unsynced_indexes),
            documents,
            directories,
        )

    def sync_completed(self, sync: SyncRequest) -> None:
        """What `begin_sync` said is on stable storage (called by the writer)."""
        if self.failed or sync.truncations != self.truncations:
            return
        for segment in sync.indexes:
            if segment in self.segments.unsynced_indexes:
                self.segments.unsynced_indexes.remove(segment)
        for segment, _, size in sync.parts:
            segment.synced_size = min(max(segment.synced_size, size), segment.size)
            if segment.synced_size == segment.size and segment in self._unsynced:
                self._unsynced.remove(segment)
                segment.unpin()
        if sync.end_offset > self.synced_end_offset:
            self.synced_end_offset = sync.end_offset
            self.tell_progress()

    # ---- failing ----

    def fail(self) -> None:
        """The log's directory is offline: forget what was never written (called by LogDir.fail).

        `log_end_offset` goes back to what was written, which is all that may have been
        acknowledged.
        """
        if self.failed:
            return
        self.failed = True
        was_writing = self.is_borrowing or self.has_staged
        self._forget_unwritten()
        if was_writing and self.segments.exists:
            active = self.segments.items[-1]
            if active.shared is not None and active.size >= 0:
                with suppress(OSError):
                    active.shared.file.truncate(active.size)
        for segment in self._unsynced:
            segment.unpin()
        self._unsynced.clear()

    def _fail_corrupt(self, error: CorruptMessage) -> None:
        log.error(
            "log_corrupt",
            log=str(self.topic_partition),
            error=str(error),
            consequence="the partition answers KAFKA_STORAGE_ERROR until the broker is restarted",
        )
        self.fail()
        self.tell_progress()

    def _forget_unwritten(self) -> None:
        """Drop what is staged or on its way to the file."""
        if self._writing is not None:
            self._writing.is_void = True
            self.log_dir.unwritten_bytes -= self._writing.length
            self._writing = None
        self.log_dir.unwritten_bytes -= sum(staged.size_bytes for staged in self._staged)
        self._staged.clear()
        self.log_dir.dirty.pop(self, None)
        if self._producers is not None:
            self._producers.rollback(self.written_end_offset)
        self.log_end_offset = self.written_end_offset
