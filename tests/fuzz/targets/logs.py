"""A data directory with damaged files: opened, recovered, read, written, closed, opened again.

Nothing may raise what is not documented, nothing may go on for ever, and what is not damaged is
not lost.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.sample_log import (
    CONFIG,
    DERIVED_SUFFIXES,
    damaged,
    disk_of,
    random_scripts,
    sound_files,
)
from tests.fuzz.target import Choices, Raised, Target, outcome
from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    append,
    batch,
    open_dirs,
    read_all,
    region_bytes,
)
from trioq import logs
from trioq._native.batch import scan
from trioq.clock import ManualClock
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    KafkaError,
    KafkaStorageError,
    OffsetOutOfRange,
    StartupError,
)
from trioq.storage.log import Log
from trioq.storage.log_dirs import LogDirs
from trioq.storage.memory_disk import MemoryDisk

READ_ERRORS = (OffsetOutOfRange, KafkaStorageError, CorruptMessage)
SEARCH_ERRORS = (KafkaStorageError, CorruptMessage, InvalidRecord)
STATE_ERRORS = (KafkaStorageError, CorruptMessage)
MOST_READS = 2000


@functools.cache
def _sound_bytes() -> bytes:
    dirs, log = _opened(disk_of(sound_files()))
    found = read_all(log)
    dirs.close(clean=False)
    return found


def _opened(disk: MemoryDisk) -> tuple[LogDirs, Log]:
    dirs = open_dirs(disk, clock=ManualClock(NOW_MS))
    dirs.recover(threads=1)
    return dirs, dirs.log(TP, TOPIC_ID, CONFIG)


def check_recovery(data: bytes) -> None:
    choices = Choices(data)
    files, touched = damaged(choices)
    disk = disk_of(files)
    with logs.captured():
        opened = outcome((StartupError, KafkaStorageError), _opened, disk)
        if isinstance(opened, Raised):
            return
        dirs, log = opened
        if log.topic_id == TOPIC_ID and all(path.endswith(DERIVED_SUFFIXES) for path in touched):
            assert read_all(log) == _sound_bytes(), "damage to derived files lost records"
        is_scanned = not dirs.dirs[0].was_clean and not dirs.dirs[0].recovery_points
        _use(log, must_be_sound=is_scanned and not dirs.dirs[0].log_starts)
        _change(log)
        dirs.close()
        end_offset = log.log_end_offset
        has_failed = dirs.dirs[0].error is not None
        disk.kill()
        again = outcome((StartupError, KafkaStorageError), _opened, disk)
        if not isinstance(again, Raised):
            dirs, log = again
            if not has_failed and dirs.dirs[0].was_clean:
                assert log.log_end_offset == end_offset
            _use(log)
            dirs.close(clean=False)


def _use(log: Log, *, must_be_sound: bool = False) -> None:
    """Read everything in every way."""
    assert log.log_start_offset <= log.high_watermark <= log.log_end_offset
    start, end = log.log_start_offset, log.log_end_offset
    outcome(STATE_ERRORS, lambda: log.last_stable_offset)
    outcome(STATE_ERRORS, lambda: log.latest_epoch)
    outcome(STATE_ERRORS, log.epoch_end_offset, 2)
    for offset in {start - 1, start, (start + end) // 2, end - 1, end, end + 1}:
        for most in (1, 400):
            region = outcome(
                READ_ERRORS, log.read, offset, most, end_offset=end, min_one_batch=True
            )
            if region is not None and not isinstance(region, Raised):
                region_bytes(region)
    _read_through(log, must_be_sound=must_be_sound)
    for target_ms in (-1, NOW_MS, NOW_MS + 55, NOW_MS + 10_000):
        outcome(SEARCH_ERRORS, log.offset_for_timestamp, target_ms, end)
    outcome(SEARCH_ERRORS, log.max_timestamp, end)
    outcome(STATE_ERRORS, lambda: log.producers.snapshot(log.log_end_offset))


def _read_through(log: Log, *, must_be_sound: bool) -> None:
    """From the start to the end, as a consumer does, which goes by what it was given."""
    offset = log.log_start_offset
    for _ in range(MOST_READS):
        region = outcome(
            READ_ERRORS, log.read, offset, 500, end_offset=log.log_end_offset, min_one_batch=True
        )
        if isinstance(region, Raised):
            assert not must_be_sound, f"{log!r} was recovered, but cannot be read at {offset}"
            return
        if region is None:
            assert not must_be_sound or offset == log.log_end_offset
            return
        data = region_bytes(region)
        found, valid_end, _ = scan(data, 0, len(data), check_crc=must_be_sound)
        if must_be_sound:
            assert valid_end == len(data), f"{log!r} was recovered, but has damage at {offset}"
            assert offset < found[0].next_offset
        if not found or found[-1].next_offset <= offset:
            assert not must_be_sound
            return
        offset = found[-1].next_offset
    raise AssertionError("reading does not come to an end")


def _change(log: Log) -> None:
    """Append, delete, truncate, retain: each may be refused, none may break."""
    for size in (10, 700, 700):  # the last ones need a new segment
        outcome(KafkaError, append, log, batch(b"n" * size), epoch=5)
        assert log.write_group()
    outcome(KafkaError, append, log, batch(b"new", producer=(7, 2, 0)), epoch=5)
    assert log.write_group()
    if not log.failed:
        log.set_high_watermark(log.durable_end_offset)
    outcome(KafkaError, log.delete_records, (log.log_start_offset + log.high_watermark) // 2)
    outcome(KafkaError, log.truncate_to, log.log_end_offset - 1)
    log.apply_config(replace(CONFIG, retention_ms=1000))
    for later_ms in (1040, 10**9):
        outcome(STATE_ERRORS, log.delete_retired_segments, NOW_MS + later_ms)
    log.expire_producers(NOW_MS, 1000)


def _seeds() -> Iterator[bytes]:
    yield b""
    for mode in range(8):
        yield bytes([mode])
        for kind in range(8):
            for file in range(0, len(sound_files()), 2):
                yield bytes([mode, kind, file, 0, 8 * kind, 3, 1])
    yield from random_scripts("recovery", 50)


TARGETS = (Target("recovery", check_recovery, _seeds, 120),)
