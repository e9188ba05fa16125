"""Making one partition directory sound after an unclean stop; any thread, no shared state.

What lies in segments below the recovery point is on stable storage and is not read. From the
segment that holds the recovery point on, every batch's CRC and offsets are checked; the log ends
at the first batch that is cut off, damaged or out of place, and what follows is removed. Then the
directory is as after a clean stop: indexes, leader epochs and a producer snapshot at the log's
end are written, and everything is synced.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from trioq import logs
from trioq.storage.batch_scan import BatchScan
from trioq.storage.checkpoints import LEADER_EPOCH_FILE, CorruptCheckpoint
from trioq.storage.disk import Disk
from trioq.storage.epoch_cache import EpochCache
from trioq.storage.identity import PARTITION_METADATA_FILE
from trioq.storage.log_dir import LogDir
from trioq.storage.log_producers import end_marker, replay, snapshot_path, store_snapshot
from trioq.storage.producer_snapshot import CorruptSnapshot
from trioq.storage.producer_state import ProducerState
from trioq.storage.segment import FILE_SUFFIXES, LOG_SUFFIX, Segment, file_name
from trioq.storage.segment_swap import finish_swaps
from trioq.types import TopicPartition

INDEX_INTERVAL_BYTES = 4096
"""Of the indexes that recovery writes: the default of index.interval.bytes."""

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredLog:
    """What recovery found."""

    log_start_offset: int
    log_end_offset: int
    removed_bytes: int
    producers: ProducerState
    """The state at the log's end, with its full windows: better than the snapshot."""


class LogRecovery:
    """One run over one partition directory."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        recovery_point: int,
        log_start_offset: int,
        index_interval_bytes: int,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._recovery_point = recovery_point
        self._log_start_offset = log_start_offset
        self._interval_bytes = index_interval_bytes
        self._producers = ProducerState()
        self._epochs = EpochCache()
        self._epochs_found: bytes | None = None
        self._bases: list[int] = []
        self._snapshots: list[int] = []
        self._removed_bytes = 0
        self._end = 0

    def run(self) -> RecoveredLog:
        """Recover; raises OSError. Running it again after it was interrupted is fine."""
        finish_swaps(self._disk, self._directory)
        self._list_files()
        if not self._bases:
            return RecoveredLog(self._log_start_offset, self._log_start_offset, 0, self._producers)
        first = self._first_to_scan()
        self._end = self._bases[first]
        self._load_epochs()
        self._load_producers(first)
        for number in range(first, len(self._bases)):
            if not self._recover_segment(self._bases[number]):
                self._remove_segments(number + 1)
                break
        # What says whose the directory is may have been written just before the crash.
        self._disk.sync_file(f"{self._directory}/{PARTITION_METADATA_FILE}")
        self._write_derived()
        start = max(self._log_start_offset, self._bases[0])
        if start > self._end:
            # The start was moved into a tail that the crash took: begin again, empty, there.
            self._restart_at(start)
        return RecoveredLog(start, self._end, self._removed_bytes, self._producers)

    def _list_files(self) -> None:
        for name in self._disk.listdir(self._directory):
            stem, _, suffix = name.partition(".")
            if not stem.isdigit():
                continue
            if suffix == "log":
                self._bases.append(int(stem))
            elif suffix == "snapshot":
                self._snapshots.append(int(stem))
        self._bases.sort()
        self._snapshots.sort()

    def _first_to_scan(self) -> int:
        """The number of the segment that holds the recovery point, or of the last one."""
        for number, base in enumerate(self._bases):
            if base > self._recovery_point:
                return max(0, number - 1)
        return len(self._bases) - 1

    def _recover_segment(self, base_offset: int) -> bool:
        """Check one segment; False if the log ends in it."""
        if base_offset != self._end:
            log.warning(
                "log_gap",
                directory=self._directory,
                expected_offset=self._end,
                segment=base_offset,
                consequence="the log ends before the gap",
            )
            self._remove_segments(self._bases.index(base_offset))
            return False
        segment = Segment(self._directory, base_offset, size=0)
        segment.begin(0, 0)
        file = self._disk.open(segment.log_path)
        try:
            size = file.size()
            scan = BatchScan(file, 0, size, check_crc=True)
            reason = None
            for position, header in scan:
                reason = segment.misplaced(header, self._end)
                if reason is not None:
                    break
                segment.add(
                    header.size_bytes,
                    header.last_offset,
                    header.max_timestamp,
                    self._interval_bytes,
                )
                self._epochs.observe(header.leader_epoch, header.base_offset)
                if header.producer_id >= 0:
                    marker = None
                    if header.is_control:
                        marker = end_marker(file.pread(header.size_bytes, position))
                    self._producers.apply(header, header.base_offset, header.max_timestamp, marker)
                self._end = header.next_offset
            is_whole = segment.size == size
            if not is_whole:
                self._removed_bytes += size - segment.size
                log.warning(
                    "log_tail_removed",
                    file=segment.log_path,
                    position=segment.size,
                    removed_bytes=size - segment.size,
                    log_end_offset=self._end,
                    reason=reason or scan.reason or "the last batch is cut off",
                )
                file.truncate(segment.size)
            file.fdatasync()
        finally:
            file.close()
        segment.seal_times()
        segment.write_indexes(self._disk)
        for path in segment.index_paths:
            self._disk.sync_file(path)
        return is_whole

    def _remove_segments(self, number: int) -> None:
        """Remove the segments from `number` on: they do not follow what was found sound."""
        for base in reversed(self._bases[number:]):
            path = self._log_path(base)
            self._removed_bytes += self._disk.file_size(path)
            log.warning("segment_removed", file=path, log_end_offset=self._end)
            for suffix in FILE_SUFFIXES:
                self._disk.unlink(f"{self._directory}/{file_name(base, suffix)}")
        del self._bases[number:]

    def _load_epochs(self) -> None:
        """The epochs below the first offset to scan; from the batches if the file lacks some.

        It may: the log's start, which it is cut at, is not always on disk when it is.
        """
        path = f"{self._directory}/{LEADER_EPOCH_FILE}"
        start = max(self._log_start_offset, self._bases[0])
        try:
            self._epochs = EpochCache.decode(self._disk.read_file(path), path)
            self._epochs_found = self._epochs.encode()
        except (FileNotFoundError, CorruptCheckpoint):
            self._epochs.clear()
        self._epochs.truncate_from_end(self._end)
        if start < self._end and self._epochs.epoch_for_offset(start) < 0:
            self._epochs.clear()
            for base in self._bases:
                if base < self._end:
                    self._read_epochs(base)

    def _read_epochs(self, base: int) -> None:
        file = self._disk.open(self._log_path(base))
        try:
            for _, header in BatchScan(file, 0, file.size(), check_crc=False):
                self._epochs.observe(header.leader_epoch, header.base_offset)
        finally:
            file.close()

    def _load_producers(self, first: int) -> None:
        """The producer state at the start of segment number `first`."""
        start = self._log_start_offset
        for offset in reversed(self._snapshots):
            path = snapshot_path(self._directory, offset)
            if offset <= self._end:
                try:
                    self._producers.load(self._disk.read_file(path), offset)
                except CorruptSnapshot:
                    self._producers.clear()
                else:
                    start = offset
                    break
            self._disk.unlink(path)
        for number in range(first):
            if self._bases[number + 1] <= start:
                continue
            file = self._disk.open(
                f"{self._directory}/{file_name(self._bases[number], LOG_SUFFIX)}"
            )
            try:
                replay(self._producers, file, 0, file.size(), start, self._end)
            finally:
                file.close()

    def _restart_at(self, offset: int) -> None:
        self._remove_segments(0)
        self._disk.unlink(snapshot_path(self._directory, self._end))
        self._end = offset
        self._disk.open(self._log_path(offset), create=True).close()
        self._producers.clear()
        self._epochs.clear()
        self._write_derived()

    def _write_derived(self) -> None:
        store_snapshot(self._disk, self._directory, self._producers, self._end)
        epochs = self._epochs.encode()
        if epochs != self._epochs_found:
            path = f"{self._directory}/{LEADER_EPOCH_FILE}"
            self._disk.replace_file(path, epochs, sync=False)
            self._epochs_found = epochs
        self._disk.fsync_dir(self._directory)

    def _log_path(self, base_offset: int) -> str:
        return f"{self._directory}/{file_name(base_offset, LOG_SUFFIX)}"


def recover_log(log_dir: LogDir, topic_partition: TopicPartition) -> RecoveredLog:
    """Recover one partition of an opened log directory; any thread. Raises OSError."""
    recovered = LogRecovery(
        log_dir.disk,
        f"{log_dir.path}/{topic_partition}",
        recovery_point=log_dir.recovery_points.get(topic_partition, 0),
        log_start_offset=log_dir.log_starts.get(topic_partition, 0),
        index_interval_bytes=INDEX_INTERVAL_BYTES,
    ).run()
    log_dir.disk.fsync_dir(log_dir.path)
    return recovered


def recover_logs(work: list[tuple[LogDir, TopicPartition]], threads: int) -> None:
    """Recover many, in a pool of threads, and keep what was found in their log directories.

    Logs progress every second. A directory that fails goes offline.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only after a crash

    def recover(one: tuple[LogDir, TopicPartition]) -> RecoveredLog | OSError:
        try:
            return recover_log(*one)
        except OSError as error:
            return error

    started = told = perf_counter()
    log.info("recovering_logs", logs=len(work), reason="the last stop was not clean")
    with ThreadPoolExecutor(threads, thread_name_prefix="recover") as pool:
        for number, recovered in enumerate(pool.map(recover, work)):
            log_dir, topic_partition = work[number]
            if isinstance(recovered, OSError):
                log_dir.fail(recovered)
            else:
                log_dir.recovered[topic_partition] = recovered
            if perf_counter() - told > 1:
                told = perf_counter()
                log.info("recovering_logs", done=number + 1, logs=len(work))
    log.info("recovered_logs", logs=len(work), seconds=round(perf_counter() - started, 3))
