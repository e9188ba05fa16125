"""Files that are damaged while nobody looks: each is met by one log, not by the broker."""

from __future__ import annotations

import pytest

from tests.unit.storage_support import NOW_MS, TOPIC_ID, TP, Config, open_dirs, put
from trioq import logs
from trioq.clock import ManualClock
from trioq.errors import CorruptMessage
from trioq.storage.log_dir_files import CLEAN_SHUTDOWN_FILE
from trioq.storage.log_services import _retire_segments
from trioq.storage.memory_disk import MemoryDisk

CONFIG = Config(segment_bytes=300, retention_ms=1000)
FIRST_LOG = f"/data/{TP}/{0:020d}.log"
LAST_LOG = f"/data/{TP}/{9:020d}.log"


def filled(disk: MemoryDisk) -> None:
    """Three segments with a producer's batches, stopped cleanly, without snapshots."""
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, CONFIG)
    for number in range(11):
        put(log, b"v" * 20, producer=(5, 0, number))
    log.set_high_watermark(log.log_end_offset)
    log.delete_records(10)
    dirs.close()
    for name in disk.listdir(f"/data/{TP}"):
        if name.endswith(".snapshot"):
            disk.unlink(f"/data/{TP}/{name}")
    assert disk.exists(LAST_LOG)
    disk.kill()


@pytest.mark.trio
async def test_retention_goes_on_when_a_log_is_damaged():
    disk = MemoryDisk()
    filled(disk)
    disk.write_file(FIRST_LOG, bytes(200))
    for suffix in (".index", ".timeindex"):
        disk.unlink(FIRST_LOG.removesuffix(".log") + suffix)
    log = open_dirs(disk).log(TP, TOPIC_ID, CONFIG)
    with pytest.raises(CorruptMessage):
        log.delete_retired_segments(NOW_MS + 100_000)
    with logs.captured() as lines:
        assert await _retire_segments(log, ManualClock(NOW_MS + 100_000)) == 0
    assert [line["event"] for line in lines] == ["retention_failed"]
    assert not log.failed


def test_a_log_that_is_found_damaged_at_the_end_is_looked_at_by_the_next_start():
    disk = MemoryDisk()
    filled(disk)
    dirs = open_dirs(disk)
    dirs.log(TP, TOPIC_ID, CONFIG)
    disk.write_file(LAST_LOG, bytes(200))
    with logs.captured() as lines:
        dirs.close()
    assert "log_not_settled" in [line["event"] for line in lines]
    assert not disk.exists(f"/data/{CLEAN_SHUTDOWN_FILE}")
    disk.kill()
    dirs = open_dirs(disk)
    dirs.recover(threads=1)
    log = dirs.log(TP, TOPIC_ID, CONFIG)
    assert log.log_start_offset == log.log_end_offset == 10
    put(log, b"again")
    dirs.close()
    assert disk.exists(f"/data/{CLEAN_SHUTDOWN_FILE}")


def test_truncating_below_what_is_left_of_the_files_is_refused():
    disk = MemoryDisk()
    filled(disk)
    disk.write_file(LAST_LOG, b"")
    log = open_dirs(disk).log(TP, TOPIC_ID, CONFIG)
    with pytest.raises(CorruptMessage):
        log.truncate_to(10)
