"""Appending what a leader's log holds to a follower's: the same bytes, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.record.layout import HEADER, HEADER_BYTES
from trioq.storage.log_append import AppendLog
from trioq.storage.log_producers import end_marker
from trioq.storage.log_read import Edges
from trioq.storage.log_state import log
from trioq.storage.segment import MAX_RELATIVE_OFFSET

if TYPE_CHECKING:
    from trioq._native.batch import BatchHeader
    from trioq._native.replica_run import ReplicaRun
    from trioq.storage.segment import Segment


class ReplicaLog(AppendLog):
    """The write side of a log as a follower uses it."""

    __slots__ = ()

    def append_replica(
        self, records: memoryview, *, leader_epoch: int, gaps_below: int
    ) -> str | None:
        """Append the whole batches in `records`, unchanged, and write them.

        A batch that `records` cuts off at its end is left out. While the disk stalls the batches
        are copied and go to the log dir's thread (`has_staged` then says so): `records` is
        borrowed until this returns and no longer. Nothing may be staged before.

        Args:
            records: batches of the leader's log from this log's end on.
            leader_epoch: the term of the leader; no batch may be of a later one.
            gaps_below: gaps between offsets, which compaction leaves, are taken where the batch
                behind begins below this.

        Returns:
            What is wrong with the first batch that is not sound, or not what comes next; those
            before it are appended. None when all were taken.

        Raises:
            KafkaStorageError: the log's directory is, or went, offline.
            CorruptMessage: a file of this log is damaged.

        """
        from trioq._native.replica_run import check_run  # noqa: PLC0415  for followers only

        if self.failed:
            raise self.offline_error()
        assert not self.has_staged, "append_replica while batches are staged"
        run = check_run(
            records,
            end_offset=self.log_end_offset,
            latest_epoch=self.epochs.latest_epoch,
            leader_epoch=leader_epoch,
            gaps_below=gaps_below,
        )
        try:
            if run.first_gap >= 0 and "compact" not in self.config.cleanup_policy:
                log.warning(
                    "replica_gap",
                    log=str(self.topic_partition),
                    offset=run.first_gap,
                    explanation="the leader's log lacks the offsets before it: right if the topic "
                    "was compacted once, else records are lost",
                )
            if run.size_bytes:
                self._append_run(records, run)
        except OSError as error:
            self.log_dir.fail(error)
            raise self.offline_error() from error
        finally:
            run.release()
        return run.fault

    @staticmethod
    def first_batch(records: memoryview) -> tuple[int, int] | None:
        """First and last offset that the first batch claims; None when its header is cut off."""
        if len(records) < HEADER_BYTES:
            return None
        fields = HEADER.unpack_from(records)
        return fields[0], fields[0] + fields[6]

    def forget_unborn_epoch(self) -> None:
        """No batch was written in the term that was assigned last, and none will be."""
        self._unborn_epoch = None

    def _append_run(self, records: memoryview, run: ReplicaRun) -> None:
        writer = self.log_dir.writer
        if run.has_producers:
            _ = self.producers  # loaded up to here, before the log grows
        position = 0
        while position < run.size_bytes:
            if writer.is_threaded:
                self._stage_rest(records, run, position)
                break
            segment = self._segment_for(run.header(position))
            end = run.part_end(
                position,
                self.config.segment_bytes - segment.size,
                segment.base_offset + MAX_RELATIVE_OFFSET,
            )
            shared = self.log_dir.files.file_of(segment)
            self.segments.reserve(segment, end - position, self.config)
            writer.write(shared, [records[position:end]], segment.size, end - position)
            self.log_dir.disk.fault_point("replica.written")
            self._wrote_run(run, position, end, segment)
            position = end
        if position:
            self._progressed()

    def _wrote_run(self, run: ReplicaRun, position: int, end: int, segment: Segment) -> None:
        """The bytes of [position, end) are in the file: now everything derived may move."""
        if segment.size == segment.synced_size:
            self._unsynced.append(segment)
            if self.config.flush_policy == "commit":
                segment.pin(self.log_dir.files)
        end_offset = segment.add_run(run, position, end, self.config.index_interval_bytes)
        for epoch, start_offset in run.epochs:
            if start_offset < end_offset and epoch > self.epochs.latest_epoch:
                self.epochs.assign(epoch, start_offset)
                self._epochs_changed = True
        if run.has_producers:
            run.apply_producers(self.producers, position, end, self._apply_control)
        self.log_end_offset = self.written_end_offset = end_offset
        if self._edges is None:
            self._edges = Edges()
        self._edges.add(end_offset, segment)

    def _apply_control(self, header: BatchHeader, batch: bytes) -> None:
        self.producers.apply(header, header.base_offset, header.max_timestamp, end_marker(batch))

    def _stage_rest(self, records: memoryview, run: ReplicaRun, position: int) -> None:
        """Have the thread write the batches from `position` on, from a copy of their own."""
        run.stage(self, bytearray(records[position : run.size_bytes]))
        if run.has_producers:
            producers = self.producers
            while position < run.size_bytes:
                header = run.header(position)
                marker = None
                if header.is_control and header.producer_id >= 0:
                    batch = records[position : position + header.size_bytes]
                    marker = end_marker(bytes(batch))
                producers.stage(header, header.base_offset, header.max_timestamp, marker)
                position += header.size_bytes
        self.write_group()
