"""Checking a partition directory or a whole data directory; what `trioq log verify` does.

Reads everything, changes nothing, holds a chunk at a time. Meant for a stopped broker: beside a
running one, the end of each last segment and its indexes may be caught in the middle of a write.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from trioq._native.batch import BatchHeader
from trioq.errors import TrioqError
from trioq.record.layout import NO_LEADER_EPOCH
from trioq.storage import checkpoints, identity
from trioq.storage.batch_audit import AuditedBatch, audit_batches
from trioq.storage.epoch_cache import EpochCache
from trioq.storage.producer_snapshot import CorruptSnapshot, decode_snapshot
from trioq.storage.txn_index import ENTRY_BYTES as TXN_ENTRY_BYTES
from trioq.storage.txn_index import CorruptTransactionIndex, decode_aborted
from trioq.storage.verify_index import REBUILT, OffsetIndexCheck, TimeIndexCheck
from trioq.storage.verify_report import Problem, Progress, Severity, VerifyReport

__all__ = ["NotALogDirectory", "Problem", "Progress", "Severity", "VerifyReport", "verify_dir"]

_PARTITION_NAME: Final = re.compile(r".+-[0-9]+")
_SEGMENT_NAME: Final = re.compile(r"[0-9]{20}\.log")
_PROGRESS_BYTES: Final = 4 << 20

_RESTORE: Final = "Restore this partition from another replica or a backup"
_CUT_OFF: Final = "The broker removes it at the next start after a crash"


class NotALogDirectory(TrioqError):
    """There is neither a partition nor a data directory at the path; the message names it."""


def verify_dir(
    path: str | Path, *, progress: Progress | None = None, allow_gaps: bool = False
) -> VerifyReport:
    """Check a partition directory, or every partition of a data directory.

    `allow_gaps` is for compacted topics, where offsets are missing by right.

    Raises:
        NotALogDirectory: nothing there to check.
        OSError: a file cannot be read.

    """
    path = Path(path)
    if not path.is_dir():
        raise NotALogDirectory(f"{path} is not a directory")
    partitions = [path]
    if not _is_partition(path):
        partitions = sorted(child for child in path.iterdir() if _is_partition(child))
        if not partitions and not (path / identity.META_PROPERTIES_FILE).exists():
            raise NotALogDirectory(
                f"{path} holds neither segments, nor partitions, nor "
                f"{identity.META_PROPERTIES_FILE}: name a partition or a data directory"
            )
    verifier = _Verifier(partitions, progress, allow_gaps=allow_gaps)
    offsets = {} if partitions == [path] else verifier.data_dir(path)
    for partition in partitions:
        start_offset = offsets.get(checkpoints.LOG_START_FILE, {}).get(partition.name, 0)
        end_offset = verifier.partition(partition, start_offset)
        verifier.checkpoints(path, offsets, partition.name, end_offset)
    return verifier.report


def _is_partition(path: Path) -> bool:
    """Segments make a partition directory, or its name and file of identity."""
    if not path.is_dir():
        return False
    if any(_SEGMENT_NAME.fullmatch(child.name) for child in path.iterdir()):
        return _PARTITION_NAME.fullmatch(path.name) is not None
    return (path / identity.PARTITION_METADATA_FILE).exists() and (
        _PARTITION_NAME.fullmatch(path.name) is not None
    )


class _Verifier:
    """One run."""

    def __init__(
        self, partitions: list[Path], progress: Progress | None, *, allow_gaps: bool
    ) -> None:
        self.report = VerifyReport()
        self._allow_gaps = allow_gaps
        self._progress = progress
        self._total_bytes = 0
        if progress is not None:
            self._total_bytes = sum(
                log.stat().st_size for partition in partitions for log in partition.glob("*.log")
            )

    def data_dir(self, path: Path) -> dict[str, dict[str, int]]:
        """Check the files of a data directory; offsets by checkpoint and partition directory."""
        meta = path / identity.META_PROPERTIES_FILE
        try:
            identity.LogDirIdentity.decode(meta.read_bytes(), meta.name)
        except FileNotFoundError:
            self.report.repairable(str(meta), 0, "is missing", "The broker writes it at its start")
        except identity.CorruptIdentity as error:
            self.report.damage(
                str(meta), 0, str(error), "Restore the file: without it the broker does not start"
            )
        offsets: dict[str, dict[str, int]] = {}
        for name in (
            checkpoints.RECOVERY_POINT_FILE,
            checkpoints.HIGH_WATERMARK_FILE,
            checkpoints.LOG_START_FILE,
            checkpoints.CLEANER_FILE,
        ):
            file = path / name
            try:
                found = checkpoints.decode_offsets(file.read_bytes(), name)
            except FileNotFoundError:
                continue
            except checkpoints.CorruptCheckpoint as error:
                self.report.repairable(
                    str(file), 0, str(error), "Delete it while the broker is stopped"
                )
                continue
            offsets[name] = {str(partition): offset for partition, offset in found.items()}
        return offsets

    def checkpoints(
        self, path: Path, offsets: dict[str, dict[str, int]], partition: str, end_offset: int
    ) -> None:
        """Compare the checkpoints of the data directory `path` with where a log ends."""
        for name, known in offsets.items():
            offset = known.get(partition, 0)
            if offset <= end_offset:
                continue
            what = f"{partition}: offset {offset}, but the log ends at {end_offset}"
            if name == checkpoints.RECOVERY_POINT_FILE:
                self.report.damage(
                    str(path / name), 0, f"{what}; what was synced is gone", _RESTORE
                )
            else:
                self.report.repairable(
                    str(path / name), 0, what, "The broker goes by the log's end at its next start"
                )

    def partition(self, path: Path, start_offset: int) -> int:
        """Check one partition directory, whose log starts there; returns its log end offset."""
        self.report.partitions += 1
        names = sorted(child.name for child in path.iterdir())
        metadata = path / identity.PARTITION_METADATA_FILE
        if metadata.name in names:
            try:
                identity.decode_partition_metadata(metadata.read_bytes(), metadata.name)
            except identity.CorruptIdentity as error:
                self.report.damage(
                    str(metadata), 0, str(error), "Restore the file, which says whose data this is"
                )
        bases = [int(name[:20]) for name in names if _SEGMENT_NAME.fullmatch(name)]
        epochs = self._epochs(path)
        latest_start = max((start for _, start in epochs.entries()), default=0) if epochs else 0
        check = _PartitionCheck(
            self.report, path, epochs, start_offset, allow_gaps=self._allow_gaps
        )
        for number, base in enumerate(bases):
            self._segment(check, path / f"{base:020d}.log", is_last=number == len(bases) - 1)
        end_offset = max(check.end_offset, 0)
        if latest_start > end_offset:
            self.report.repairable(
                str(path / checkpoints.LEADER_EPOCH_FILE),
                0,
                f"an epoch begins at offset {latest_start}, but the log ends at {end_offset}",
                REBUILT,
            )
        self._snapshots(path, names, end_offset)
        return end_offset

    def _segment(self, check: _PartitionCheck, log: Path, *, is_last: bool) -> None:
        segment = _SegmentCheck(self.report, check, log, is_last=is_last)
        file = str(log)
        done = self.report.log_bytes
        reported = 0
        with log.open("rb") as opened:
            fd = opened.fileno()
            size = os.fstat(fd).st_size
            for batch in audit_batches(fd, size):
                segment.batch(batch)
                position = batch.position + batch.size_bytes
                if self._progress is not None and position - reported >= _PROGRESS_BYTES:
                    reported = position
                    self._progress(file, done + position, self._total_bytes)
        segment.end(size)
        self.report.log_bytes += size
        self.report.segments += 1
        if self._progress is not None:
            self._progress(file, done + size, self._total_bytes)

    def _epochs(self, path: Path) -> EpochCache | None:
        file = path / checkpoints.LEADER_EPOCH_FILE
        try:
            return EpochCache.decode(file.read_bytes(), file.name)
        except FileNotFoundError:
            return None
        except checkpoints.CorruptCheckpoint as error:
            self.report.repairable(str(file), 0, str(error), REBUILT)
            return None

    def _snapshots(self, path: Path, names: list[str], end_offset: int) -> None:
        for name in names:
            stem, _, suffix = name.partition(".")
            if suffix != "snapshot" or not stem.isdigit():
                continue
            file = path / name
            if int(stem) > end_offset:
                self.report.repairable(
                    str(file), 0, f"is above the log's end, {end_offset}", "The broker removes it"
                )
            try:
                entries = decode_snapshot(file.read_bytes())
            except CorruptSnapshot as error:
                self.report.repairable(str(file), 0, str(error), REBUILT)
                continue
            last_offset = max((entry.last_offset for entry in entries), default=-1)
            if last_offset >= int(stem):
                self.report.repairable(
                    str(file),
                    0,
                    f"knows a batch at offset {last_offset}, above the snapshot's own offset",
                    REBUILT,
                )


class _PartitionCheck:
    """What holds from one segment to the next: offsets and leader epochs."""

    def __init__(
        self,
        report: VerifyReport,
        path: Path,
        epochs: EpochCache | None,
        start_offset: int,
        *,
        allow_gaps: bool,
    ) -> None:
        self._report = report
        self._epoch_file = str(path / checkpoints.LEADER_EPOCH_FILE)
        self._epochs = epochs
        self._start_offset = start_offset
        """Epochs are known from here on: DeleteRecords may begin the log inside of a batch."""
        self._allow_gaps = allow_gaps
        self._leader_epoch = -1
        self.end_offset = -1
        """Behind the last batch seen; -1 before the first."""

    def continues_at(self, file: str, position: int, base_offset: int) -> None:
        """A segment or a batch begins with `base_offset`."""
        expected = self.end_offset
        if expected < 0 or base_offset == expected:
            return
        if base_offset < expected:
            self._report.damage(
                file, position, f"offset {base_offset} again, after {expected - 1}", _RESTORE
            )
        elif not self._allow_gaps:
            self._report.damage(
                file,
                position,
                f"offsets {expected} to {base_offset - 1} are missing",
                f"{_RESTORE}, unless the topic is compacted (then allow gaps)",
            )

    def batch(self, file: str, position: int, header: BatchHeader) -> None:
        """A sound batch; `continues_at` has been told of it."""
        self.end_offset = header.next_offset
        epoch = header.leader_epoch
        if epoch == NO_LEADER_EPOCH:
            return
        if epoch < NO_LEADER_EPOCH:
            self._report.damage(
                file, position, f"leader epoch {epoch} at offset {header.base_offset}", _RESTORE
            )
        elif epoch < self._leader_epoch:
            self._report.damage(
                file,
                position,
                f"leader epoch {epoch} at offset {header.base_offset} follows {self._leader_epoch}",
                _RESTORE,
            )
        elif self._epochs is not None and header.last_offset >= self._start_offset:
            known = self._epochs.epoch_for_offset(max(header.base_offset, self._start_offset))
            if known != epoch:
                self._report.repairable(
                    self._epoch_file,
                    0,
                    f"says epoch {known} for offset {header.base_offset}, the batch says {epoch}",
                    REBUILT,
                )
                self._epochs = None  # the rest would say the same
        self._leader_epoch = max(self._leader_epoch, epoch)


class _SegmentCheck:
    """One segment: its batches, indexes and aborted transactions."""

    def __init__(
        self, report: VerifyReport, partition: _PartitionCheck, log: Path, *, is_last: bool
    ) -> None:
        self._report = report
        self._partition = partition
        self._log = log
        self._file = str(log)
        self._is_last = is_last
        self._base_offset = int(log.stem)
        self._is_readable = True
        self._offsets = self._times = None
        partition.continues_at(self._file, 0, self._base_offset)
        partition.end_offset = max(partition.end_offset, self._base_offset)
        if self._has(".index"):
            self._offsets = OffsetIndexCheck(report, log.with_suffix(".index"), self._base_offset)
        if self._has(".timeindex"):
            self._times = TimeIndexCheck(report, log.with_suffix(".timeindex"), self._base_offset)
        if self._has(".txnindex"):
            self._check_transactions(log.with_suffix(".txnindex"))

    def _has(self, suffix: str) -> bool:
        return self._log.with_suffix(suffix).exists()

    def batch(self, batch: AuditedBatch) -> None:
        """The next batch of the log file."""
        header = batch.header
        if batch.problem is not None:
            self._is_readable = False
            if batch.is_cut_off and self._is_last:
                self._report.repairable(
                    self._file, batch.position, f"the last batch is {batch.problem}", _CUT_OFF
                )
            else:
                rest = "" if header else f" ({batch.size_bytes} bytes to the end are unreadable)"
                self._report.damage(self._file, batch.position, batch.problem + rest, _RESTORE)
            if header is None:
                return
            if header.base_offset == self._partition.end_offset:
                self._partition.end_offset = header.next_offset
            return
        assert header is not None
        self._partition.continues_at(self._file, batch.position, header.base_offset)
        self._partition.batch(self._file, batch.position, header)
        self._report.batches += 1
        self._report.records += header.record_count
        if self._is_readable and self._offsets is not None:
            self._offsets.batch(batch.position, header)
        if self._is_readable and self._times is not None:
            self._times.batch(header)

    def end(self, size: int) -> None:
        """All batches have passed; indexes cannot be judged behind a damaged batch."""
        if not self._is_readable:
            return
        if self._offsets is not None:
            self._offsets.end(size)
        if self._times is not None:
            self._times.end(is_sealed=not self._is_last)
        if size and not self._is_last:
            for suffix in (".index", ".timeindex"):
                if not self._has(suffix):
                    self._report.repairable(
                        str(self._log.with_suffix(suffix)),
                        0,
                        "is missing",
                        "It is made anew from the log when it is needed",
                    )

    def _check_transactions(self, path: Path) -> None:
        data = path.read_bytes()
        leftover = len(data) % TXN_ENTRY_BYTES
        if leftover:
            self._report.repairable(
                str(path), len(data) - leftover, "the last entry is cut off", REBUILT
            )
        try:
            for transaction in decode_aborted(data):
                if transaction.last_offset < self._base_offset:
                    self._report.repairable(
                        str(path),
                        0,
                        f"an abort at offset {transaction.last_offset} is below this segment",
                        REBUILT,
                    )
                    return
        except CorruptTransactionIndex as error:
            self._report.repairable(str(path), 0, str(error), REBUILT)
