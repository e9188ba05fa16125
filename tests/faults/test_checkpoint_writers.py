"""Several writers of one directory's checkpoints: the file always holds the latest state."""

from __future__ import annotations

import pytest
import trio

from tests.unit.storage_support import TOPIC_ID, TP, Config, open_dirs, put
from trioq.storage.checkpoints import LOG_START_FILE, decode_offsets
from trioq.storage.log_dir_files import gather_checkpoints, write_gathered
from trioq.storage.log_services import store_checkpoints
from trioq.storage.memory_disk import MemoryDisk

PATH = f"/data/{LOG_START_FILE}"


def test_who_gathers_first_and_comes_last_writes_nothing_old():
    disk = MemoryDisk()
    log = open_dirs(disk).log(TP, TOPIC_ID, Config())
    put(log, *(b"v" for _ in range(10)))
    log.set_high_watermark(10)
    log.delete_records(3)
    first = gather_checkpoints(log.log_dir)
    log.delete_records(7)
    second = gather_checkpoints(log.log_dir)
    write_gathered(log.log_dir, second)
    write_gathered(log.log_dir, first)
    assert decode_offsets(disk.read_file(PATH), PATH) == {TP: 7}


@pytest.mark.trio
async def test_everyone_waits_until_its_own_is_stored():
    disk = MemoryDisk()
    log = open_dirs(disk).log(TP, TOPIC_ID, Config())
    put(log, *(b"v" for _ in range(10)))
    log.set_high_watermark(10)
    stored = []

    async def delete(offset: int) -> None:
        log.delete_records(offset)
        await store_checkpoints(log.log_dir)
        stored.append(decode_offsets(disk.read_file(PATH), PATH)[TP] >= offset)

    async with trio.open_nursery() as nursery:
        for offset in range(1, 9):
            nursery.start_soon(delete, offset)
    assert stored == [True] * 8
