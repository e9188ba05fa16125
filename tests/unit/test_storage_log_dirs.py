"""Log directories: whose they are, what they hold, and what a start makes of it."""

from __future__ import annotations

import errno
import uuid

import pytest
import trio

from tests.unit.storage_support import (
    NOW_MS,
    TOPIC_ID,
    TP,
    Config,
    append,
    batch,
    headers,
    open_dirs,
    put,
    read_all,
)
from trioq import logs
from trioq.clock import ManualClock
from trioq.errors import KafkaStorageError, StartupError
from trioq.storage.checkpoints import encode_offsets
from trioq.storage.disk import OsDisk
from trioq.storage.log_dir_files import partition_of
from trioq.storage.log_dirs import LogDirs
from trioq.storage.log_services import LogServices
from trioq.storage.memory_disk import MemoryDisk
from trioq.types import TopicPartition

OTHER_ID = uuid.UUID(int=99)


def test_directory_in_use_is_refused(tmp_path):
    path = str(tmp_path / "data")
    dirs = open_dirs(OsDisk(), (path,))
    import os

    with pytest.raises(StartupError, match=f"process {os.getpid()}"):
        open_dirs(OsDisk(), (path,))
    dirs.close()
    open_dirs(OsDisk(), (path,)).close()


def test_another_clusters_or_brokers_directory_is_refused():
    """SAFETY rule 3."""
    disk = MemoryDisk()
    open_dirs(disk).close()
    for cluster_id, node_id, name in (("other", 1, "cluster"), ("test-cluster", 2, "node")):
        with pytest.raises(StartupError, match=f"belongs to {name}"):
            LogDirs.open(
                ("/data",),
                cluster_id=cluster_id,
                node_id=node_id,
                disk=disk,
                clock=ManualClock(),
            )
    open_dirs(disk).close()


def test_partitions_without_identity_are_refused():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    put(dirs.log(TP, TOPIC_ID, Config()), b"x")
    dirs.close()
    disk.unlink("/data/meta.properties")
    with pytest.raises(StartupError, match=r"meta\.properties"):
        open_dirs(disk)


def test_copy_of_a_directory_is_refused():
    disk = MemoryDisk()
    open_dirs(disk, ("/a",)).close()
    disk.make_directory("/b")
    disk.write_file("/b/meta.properties", disk.read_file("/a/meta.properties"))
    with pytest.raises(StartupError, match="copy"):
        open_dirs(disk, ("/a", "/b"))
    open_dirs(disk, ("/a",)).close()


def test_directory_that_cannot_be_read_hides_its_partitions_from_the_others():
    disk = MemoryDisk()
    dirs = open_dirs(disk, ("/a", "/b"))
    put(dirs.log(TP, TOPIC_ID, Config()), b"x")
    dirs.close()
    disk.inject("make_directory", errno.EIO, path_contains="/a")
    dirs = open_dirs(disk, ("/a", "/b"))
    with pytest.raises(KafkaStorageError):
        dirs.log(TP, TOPIC_ID, Config())
    dirs.close()
    disk.heal()
    disk.inject("make_directory", errno.EIO)
    with pytest.raises(StartupError, match="no log directory"):
        open_dirs(disk, ("/a", "/b"))


def test_same_name_with_another_topic_id_is_set_aside():
    """SAFETY rule 3."""
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    put(dirs.log(TP, TOPIC_ID, Config()), b"old")
    dirs.close()
    dirs = open_dirs(disk)
    with logs.captured() as lines:
        log = dirs.log(TP, OTHER_ID, Config())
    assert [line["event"] for line in lines] == ["stray_set_aside"]
    assert log.log_end_offset == 0
    put(log, b"new")
    strays = [name for name in disk.listdir("/data") if name.endswith(".stray")]
    assert strays == [f"orders-0.{NOW_MS}.stray"]
    dirs.close()
    dirs = open_dirs(disk)
    assert dirs.log(TP, OTHER_ID, Config()).log_end_offset == 1


def test_many_strays_mean_wrong_metadata_and_stay_where_they_are():
    """SAFETY rule 3."""
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    partitions = [TopicPartition("orders", number) for number in range(40)]
    for one in partitions:
        put(dirs.log(one, TOPIC_ID, Config()), b"x")
    dirs.close()
    dirs = open_dirs(disk)
    names = set(disk.listdir("/data"))
    with logs.captured() as lines:
        assert dirs.set_aside_strays(dict.fromkeys(partitions[:30], TOPIC_ID)) == []
    assert lines[0]["event"] == "strays_kept_offline"
    assert names == set(disk.listdir("/data"))
    assert len(dirs.set_aside_strays(dict.fromkeys(partitions[:37], TOPIC_ID))) == 3
    for one in partitions[:1]:
        dirs.log(one, OTHER_ID, Config())
    with pytest.raises(KafkaStorageError):
        dirs.log(partitions[1], OTHER_ID, Config())


def test_topics_that_cannot_be_read_in_the_metastore_have_no_strays():
    """SAFETY rule 3: a name or an assignment that is not known is not one that is wrong."""
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    partitions = [TopicPartition("orders", number) for number in range(40)]
    for one in partitions:
        put(dirs.log(one, TOPIC_ID, Config()), b"x")
    dirs.close()
    dirs = open_dirs(disk)
    names = set(disk.listdir("/data"))
    assigned = dict.fromkeys(partitions[:37], TOPIC_ID)
    assert dirs.set_aside_strays(assigned, undecided={TOPIC_ID}) == []
    assert names == set(disk.listdir("/data"))
    assert len(dirs.set_aside_strays(assigned, undecided={OTHER_ID})) == 3


def test_deleted_topic_leaves_nothing_that_its_successor_could_mistake_for_its_own():
    disk = MemoryDisk()
    clock = ManualClock(NOW_MS)
    dirs = open_dirs(disk, clock=clock)
    log = dirs.log(TP, TOPIC_ID, Config(file_delete_delay_ms=1000))
    for _ in range(5):
        put(log, b"x")
    log.set_high_watermark(5)
    log.delete_records(3)
    log.flush()
    dirs.checkpoint()
    region = log.read(3, 1000, end_offset=5, min_one_batch=True)
    dirs.delete(TP, OTHER_ID)
    assert dirs.get(TP) is log
    dirs.delete(TP, TOPIC_ID)
    assert region.file.fileno() >= 0
    region.file.release()
    log = dirs.log(TP, OTHER_ID, Config())
    put(log, b"new")
    disk.kill()
    dirs = open_dirs(disk, clock=clock)
    log = dirs.log(TP, OTHER_ID, Config())
    assert (log.log_start_offset, log.log_end_offset) == (0, 1)
    assert len(headers(read_all(log))) == 1


def test_new_logs_go_where_the_fewest_are():
    dirs = open_dirs(MemoryDisk(), ("/a", "/b", "/c"))
    for number in range(7):
        dirs.log(TopicPartition("orders", number), TOPIC_ID, Config())
    assert sorted(len(one.logs) for one in dirs.dirs) == [2, 2, 3]


def test_damaged_checkpoint_means_recovery():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    put(dirs.log(TP, TOPIC_ID, Config()), b"x")
    dirs.close()
    disk.write_file("/data/recovery-point-offset-checkpoint", b"0\n5\nnonsense\n")
    dirs = open_dirs(disk)
    assert dirs.recover() == 1
    assert dirs.log(TP, TOPIC_ID, Config()).log_end_offset == 1


@pytest.mark.parametrize(("kept", "loaded"), [(0, 2), (3, 3), (99, 4)])
def test_rule_11_a_high_watermark_that_is_loaded_lies_within_its_log(kept, loaded):
    """SAFETY rule 11: what was kept may be older than a deletion, or newer than a torn tail."""
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    log = dirs.log(TP, TOPIC_ID, Config())
    for value in (b"a", b"b", b"c", b"d"):
        put(log, value)
    log.set_high_watermark(4)
    log.delete_records(2)
    dirs.close()
    disk.write_file("/data/replication-offset-checkpoint", encode_offsets({TP: kept}))
    log = open_dirs(disk).log(TP, TOPIC_ID, Config())
    assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (2, loaded, 4)


def test_log_without_checkpoint_is_recovered_alone():
    disk = MemoryDisk()
    dirs = open_dirs(disk)
    put(dirs.log(TP, TOPIC_ID, Config()), b"x")
    dirs.close()
    disk.unlink("/data/recovery-point-offset-checkpoint")
    dirs = open_dirs(disk)
    assert dirs.dirs[0].was_clean
    assert dirs.log(TP, TOPIC_ID, Config()).log_end_offset == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders-0", ("orders", 0)),
        ("a-b-12", ("a-b", 12)),
        ("orders-", None),
        ("-0", None),
        ("orders-01", None),
        ("orders", None),
        ("orders-0.1700000000000.stray", None),
        ("orders-0.5d41402abc4b2a76b9719d911017c592-delete", None),
        ("orders-99999999999", None),
    ],
)
def test_directory_names(name, expected):
    assert partition_of(name) == expected


@pytest.mark.trio
async def test_services_sync_checkpoint_retain_and_remove(tmp_path):
    path = str(tmp_path / "data")
    clock = ManualClock(NOW_MS)
    dirs = open_dirs(OsDisk(), (path,), clock=clock)
    services = LogServices(
        retention_check_interval_ms=5,
        checkpoint_interval_ms=5,
        deletion_check_interval_ms=5,
        stray_retention_ms=0,
    )
    config = Config(
        flush_policy="commit", segment_bytes=300, retention_bytes=300, file_delete_delay_ms=0
    )
    log = dirs.log(TP, TOPIC_ID, config)
    interval = dirs.log(
        TopicPartition("slow", 0), TOPIC_ID, Config(flush_policy="interval", flush_ms=0)
    )
    stray = tmp_path / "data" / f"orders-9.{NOW_MS - 10}.stray"
    stray.mkdir()
    durable = trio.Event()

    def progressed(one):
        if one.durable_end_offset == 20:
            one.set_high_watermark(20)
            durable.set()

    log.on_progress = progressed
    interval_synced = trio.Event()
    interval.on_progress = lambda one: interval_synced.set() if one.synced_end_offset == 1 else None
    async with trio.open_nursery() as nursery:
        await nursery.start(dirs.run, services)
        put(interval, b"x")
        for _ in range(20):
            append(log, batch(b"x" * 50))
            dirs.end_pass()
            await trio.lowlevel.checkpoint()
        with trio.fail_after(30):
            await durable.wait()
            await interval_synced.wait()
            directory = tmp_path / "data" / "orders-0"
            while log.log_start_offset == 0 or stray.exists() or list(directory.glob("*.deleted")):
                clock.advance(0.01)
                await trio.sleep(0.005)
            checkpoint = tmp_path / "data" / "recovery-point-offset-checkpoint"
            while not checkpoint.exists() or "orders 0 20" not in checkpoint.read_text():
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    dirs.close()
    dirs = open_dirs(OsDisk(), (path,))
    log = dirs.log(TP, TOPIC_ID, config)
    assert log.log_end_offset == 20
    assert log.size_bytes >= 300
    dirs.close()


@pytest.mark.trio
async def test_stalled_disk_is_written_by_the_thread_until_it_is_quick_again(tmp_path):
    dirs = open_dirs(OsDisk(), (str(tmp_path / "data"),))
    log = dirs.log(TP, TOPIC_ID, Config())
    writer = log.log_dir.writer
    put(log, b"x")
    writer._watch.note(1.0, 100)
    writer._choose_mode()
    assert writer.is_threaded
    async with trio.open_nursery() as nursery:
        await nursery.start(dirs.run)
        with trio.fail_after(30):
            while writer.is_threaded:
                append(log, batch(b"y"))
                while not dirs.end_pass():
                    await trio.sleep(0)
        nursery.cancel_scope.cancel()
    put(log, b"z")
    assert len(headers(read_all(log))) == log.log_end_offset
    dirs.close()
