"""The log of one partition: append, write, sync, read; the offsets that say what is safe.

    log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset
    synced_end_offset <= written_end_offset <= log_end_offset

`append` stages a batch: it has its offsets, and the next append sees it, but nothing is promised.
`write_group`, at the end of a pass, writes what is staged (or hands it to the log dir's thread);
only then do indexes and epochs move and the producers' entries become final. What an
acknowledgement or the high watermark may rest on is `durable_end_offset`.
"""

from __future__ import annotations

from trioq.errors import CorruptMessage, KafkaStorageError, OffsetOutOfRange
from trioq.storage.batch_scan import batch_edge
from trioq.storage.log_append import Appended
from trioq.storage.log_dir_files import write_checkpoints
from trioq.storage.log_producers import write_snapshot
from trioq.storage.log_read import (
    ColdPlace,
    TimestampedOffset,
    cold_place,
    find_max_timestamp,
    find_timestamp,
    read_region,
)
from trioq.storage.log_replica import ReplicaLog
from trioq.storage.log_writer import SyncRequest
from trioq.storage.retention import retired_segments
from trioq.types import FileRegion

__all__ = ["Appended", "Log"]


class Log(ReplicaLog):
    """One partition's log. Owned by the broker's loop: plain calls on its thread only.

    A log that was never written has no directory; one that is not used holds no descriptor.
    After an OSError of its directory it has `failed`, for good, and raises KafkaStorageError.
    `on_progress(log)` is called when `written_end_offset` or `synced_end_offset` moved, and when
    the log failed; `on_start_moved(log)` when retention has moved `log_start_offset`.
    """

    __slots__ = ()

    # ---- reading ----

    def read(
        self, offset: int, max_bytes: int, *, end_offset: int, min_one_batch: bool
    ) -> FileRegion | None:
        """Whole batches from the one that holds `offset` up to `end_offset`, of one segment.

        Args:
            offset: where to start; the first batch may begin below it.
            max_bytes: bound of the region's length, cut at a batch edge.
            end_offset: exclusive; nothing beyond what is written is given anyway.
            min_one_batch: give one batch even if it is larger than `max_bytes`.

        Returns:
            A region whose file is retained for the caller; None when there is nothing to give.

        Raises:
            OffsetOutOfRange: below the log's start or above its end.
            KafkaStorageError: the log's directory is offline.
            CorruptMessage: the file holds no batch where one should be.

        """
        if self.failed:
            raise self.offline_error()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(
                f"offset {offset} is outside {self.log_start_offset} to {self.log_end_offset}"
            )
        written_end_offset = self.written_end_offset
        end_offset = min(end_offset, written_end_offset)
        if offset >= end_offset:
            return None
        try:
            return read_region(
                self.segments,
                self._edges,
                offset,
                max_bytes,
                end_offset=end_offset,
                written_end_offset=written_end_offset,
                min_one_batch=min_one_batch,
            )
        except OSError as error:
            raise self._read_failed(error) from error

    def cold_place(self, offset: int, max_bytes: int) -> ColdPlace | None:
        """What `read` would wait for the disk for, if it is known: see log_read.cold_place.

        Raises KafkaStorageError.
        """
        if self.failed or not self.log_start_offset <= offset < self.written_end_offset:
            return None
        if self._edges is not None and self._edges.find(offset) is not None:
            return None
        try:
            return cold_place(self.segments, offset, max_bytes)
        except OSError as error:
            raise self._read_failed(error) from error

    def offset_for_timestamp(self, target_ms: int, end_offset: int) -> TimestampedOffset | None:
        """The first record below `end_offset` with a timestamp >= `target_ms`; None if none has.

        Opens compressed batches. Raises KafkaStorageError, CorruptMessage, InvalidRecord.
        """
        if self.failed:
            raise self.offline_error()
        end_offset = min(end_offset, self.written_end_offset)
        try:
            return find_timestamp(self.segments, target_ms, self.log_start_offset, end_offset)
        except OSError as error:
            raise self._read_failed(error) from error

    def max_timestamp(self, end_offset: int) -> TimestampedOffset | None:
        """The first record below `end_offset` with the greatest timestamp; None without records.

        Raises as `offset_for_timestamp`.
        """
        if self.failed:
            raise self.offline_error()
        end_offset = min(end_offset, self.written_end_offset)
        try:
            return find_max_timestamp(self.segments, self.log_start_offset, end_offset)
        except OSError as error:
            raise self._read_failed(error) from error

    def _read_failed(self, error: OSError) -> KafkaStorageError:
        self.log_dir.fail(error)
        return self.offline_error()

    # ---- removing ----

    def truncate_to(self, offset: int) -> None:
        """Drop the batch that holds `offset` and all after it, with everything derived from them.

        Regions already given keep the bytes that they were given. On stable storage when this
        returns. What was staged and not written may go even if it lies below `offset`.

        Raises KafkaStorageError, and CorruptMessage where the files do not hold what they should.
        """
        if self.failed:
            raise self.offline_error()
        if offset >= self.log_end_offset:
            return
        try:
            if offset < self.log_start_offset:
                self._restart(offset)
            else:
                self._truncate(offset)
            self._lower_checkpoint()
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error
        self.tell_progress()

    def _truncate(self, offset: int) -> None:
        is_writing = self._writing is not None
        self._forget_unwritten()
        if offset >= self.written_end_offset and not is_writing:
            return
        segments = self.segments
        segments.drop_swap()
        end_offset = self.written_end_offset
        self.truncations += 1
        delay_ms = self.config.file_delete_delay_ms
        cut = segments.items[-1], segments.items[-1].size
        if offset < end_offset:
            place = segments.locate(offset)
            if place is None:
                raise CorruptMessage(f"{self!r} holds nothing at {offset}: its files are too short")
            edge = batch_edge(segments.file(place.segment), place.position)
            assert edge is not None
            # Where compaction left a hole at `offset`, that batch is beyond it.
            end_offset = min(edge.base_offset, offset)
            if end_offset < self.log_start_offset:
                self._restart(self.log_start_offset)
                return
            number = segments.number_at(offset)
            cut = segments.items[number], place.position
            if place.segment is not cut[0]:
                cut = cut[0], cut[0].size
            for segment in reversed(segments.items[number + 1 :]):
                segments.retire(segment, delay_ms)
            segments.retire_snapshots(end_offset + 1, None, delay_ms)
            if segments.names_changed:
                self.log_dir.disk.fsync_dir(segments.directory)
        for segment in self._unsynced:
            segment.unpin()
        segments.cut(*cut)
        self.log_dir.disk.fault_point("truncate.cut")
        self._unsynced = [
            one for one in self._unsynced if one is not cut[0] and one in segments.items
        ]
        self._move_end(end_offset)

    def _restart(self, offset: int) -> None:
        """Drop everything; the log is empty and begins at `offset`."""
        self._forget_unwritten()
        self.truncations += 1
        segments = self.segments
        segments.drop_swap()
        for segment in self._unsynced:
            segment.unpin()
        self._unsynced.clear()
        for segment in reversed(tuple(segments.items)):
            segments.retire(segment, self.config.file_delete_delay_ms)
        segments.retire_snapshots(0, None, self.config.file_delete_delay_ms)
        if not self.log_dir.disk.exists(segments.directory):
            segments.create(self.topic_id)
        segments.add(offset, self.log_dir.clock.now_ms(), self.config.segment_jitter_ms)
        self.log_dir.disk.fsync_dir(segments.directory)
        self.log_start_offset = offset
        self.log_dir.start_offsets_changed = True
        self.forget_epochs()
        self._move_end(offset)
        self.synced_end_offset = self.high_watermark = offset

    def restart_at(self, offset: int) -> None:
        """Drop everything and begin again, empty, at `offset`: what a follower does that lies
        below its leader's log start. Raises KafkaStorageError.
        """
        if self.failed:
            raise self.offline_error()
        try:
            self._restart(offset)
            self._lower_checkpoint()
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error
        self.tell_progress()

    def _lower_checkpoint(self) -> None:
        """What is appended from now on is not synced, nor compacted: no checkpoint may say so."""
        log_dir = self.log_dir
        if (
            log_dir.recovery_points.get(self.topic_partition, 0) > self.synced_end_offset
            or log_dir.cleaned_ends.get(self.topic_partition, 0) > self.cleaned_end_offset
        ):
            write_checkpoints(log_dir)

    def _move_end(self, end_offset: int) -> None:
        """Take everything derived from the log along to its new, lower end."""
        self._edges = None
        self._producers = None
        self._are_windows_whole = end_offset == 0
        if self._unborn_epoch is not None and self._unborn_epoch[1] > end_offset:
            self._unborn_epoch = None
        self.log_end_offset = self.written_end_offset = end_offset
        self.synced_end_offset = min(self.synced_end_offset, end_offset)
        self.high_watermark = min(self.high_watermark, end_offset)
        self.cleaned_end_offset = min(self.cleaned_end_offset, end_offset)
        self._epochs_changed |= self.epochs.truncate_from_end(end_offset)

    def delete_records(self, offset: int) -> int:
        """Move the log's start to `offset`; segments wholly below it are removed.

        Returns the log's start. Raises OffsetOutOfRange above the high watermark, and
        KafkaStorageError.
        """
        if self.failed:
            raise self.offline_error()
        if offset > self.high_watermark:
            raise OffsetOutOfRange(f"offset {offset} is above the high watermark")
        if offset > self.log_start_offset:
            self.log_start_offset = offset
            self.log_dir.start_offsets_changed = True
            self._retire_guarded(0)
        return self.log_start_offset

    def delete_retired_segments(self, now_ms: int, *, at_most: int | None = None) -> int:
        """Remove what retention.ms, retention.bytes and the log's start no longer keep.

        Only below the high watermark, and only the `at_most` oldest. Returns how many segments
        were removed. Raises KafkaStorageError, and CorruptMessage where files are damaged.
        """
        if self.failed or not self.segments.exists:
            return 0
        try:
            count = retired_segments(
                self.segments,
                self.config,
                now_ms,
                high_watermark=self.high_watermark,
                log_end_offset=self.log_end_offset,
                at_most=at_most,
            )
        except OSError as error:
            raise self._read_failed(error) from error
        if count == len(self.segments.items):
            if self.is_borrowing:
                count -= 1
            else:
                self.roll()
        return self._retire_guarded(count)

    def _retire_guarded(self, count: int) -> int:
        try:
            return self._retire(count)
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error

    def _retire(self, count: int) -> int:
        """Remove the first `count` segments, and more that lie below the log's start."""
        segments = self.segments
        delay_ms = self.config.file_delete_delay_ms
        retired = 0
        while len(segments.items) > 1 and (
            retired < count or segments.items[1].base_offset <= self.log_start_offset
        ):
            segment = segments.items[0]
            if segment in self._unsynced:
                self._unsynced.remove(segment)
                segment.unpin()
            segments.retire(segment, delay_ms)
            retired += 1
        if retired:
            first = segments.items[0].base_offset
            segments.retire_snapshots(0, first, delay_ms)
            self._edges = None
            if first > self.log_start_offset:
                self.log_start_offset = first
                self.log_dir.start_offsets_changed = True
                if self.on_start_moved is not None:
                    self.on_start_moved(self)
        if segments.exists:
            self._epochs_changed |= self.epochs.truncate_from_start(self.log_start_offset)
        return retired

    def segments_replaced(self) -> None:
        """Compaction has put a segment in the place of others: nothing remembered points there."""
        self._edges = None

    # ---- closing ----

    def flush(self) -> None:
        """Sync everything that is written, on the calling thread. Raises KafkaStorageError."""
        if self.failed:
            raise self.offline_error()
        sync = self.begin_sync(everything=True)
        if sync is None:
            return
        try:
            sync.execute(self.log_dir.disk)
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error
        else:
            self.sync_completed(sync)
        finally:
            sync.release()

    def settle(self) -> SyncRequest | None:
        """Write what lets the next start trust this log as it is; what is left is to sync.

        Nothing may be staged. Raises OSError, KafkaStorageError, CorruptMessage.
        """
        assert not self.is_borrowing, "settle while batches are staged"
        segments = self.segments
        if self.failed or not segments.exists:
            return None
        active = segments.items[-1]
        if active.is_open_for_append:
            segments.seal(active)
        end_offset = self.written_end_offset
        if end_offset not in segments.snapshots:
            producers = self.producers  # loaded, perhaps from a snapshot that goes now
            segments.retire_snapshots(active.base_offset + 1, end_offset, 0)
            write_snapshot(segments, producers, end_offset)
            segments.names_changed = True
        return self.begin_sync(everything=True)

    def settle_and_sync(self) -> None:
        """`settle`, and sync on the calling thread. Raises OSError."""
        sync = self.settle()
        if sync is not None:
            try:
                sync.execute(self.log_dir.disk)
                self.sync_completed(sync)
            finally:
                sync.release()

    def close(self, *, clean: bool = True) -> None:
        """Give everything back; with `clean`, written, settled and synced first.

        Raises KafkaStorageError; all is given back then too.
        """
        try:
            if clean and not self.failed:
                self.write_group()
                self.settle_and_sync()
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._forget_unwritten()
        for segment in self._unsynced:
            segment.unpin()
        self._unsynced.clear()
        for segment in self.segments.items:
            self.log_dir.files.forget(segment)
            self.log_dir.indexes.forget(segment)
        self.log_dir.writer.forget(self)
        self.log_dir.interval_due_s.pop(self, None)
        self.log_dir.logs.pop(self, None)
        self.failed = True
