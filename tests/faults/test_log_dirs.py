"""Several log directories: one that goes offline, at a start or later, leaves the others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.ledger import Ledger

Make = Callable[..., FaultyBroker]

STORAGE_ERROR = 56
PARTITIONS = 4


class Fleet:
    """A broker on two directories with a topic over both; the second is the one that suffers."""

    def __init__(self, broker: FaultyBroker) -> None:
        self.broker = broker
        broker.start()
        client = broker.client()
        client.create("t", PARTITIONS)
        ledgers = [Ledger("t", number) for number in range(PARTITIONS)]
        for ledger in ledgers:
            ledger.send(client, 2)
        second = broker.data_dirs[1]
        self.hurt = [one for one in ledgers if (second / f"t-{one.partition}").exists()]
        self.well = [one for one in ledgers if one not in self.hurt]
        assert len(self.hurt) == len(self.well) == PARTITIONS // 2

    def assert_half_serves(self) -> None:
        """The first directory's partitions are read and written, the second's refused."""
        client = self.broker.client()
        for ledger in self.well:
            ledger.send(client)
            ledger.check(client)
        for ledger in self.hurt:
            partition = ledger.partition
            assert client.produce("t", [b"v"], partition=partition).error_code == STORAGE_ERROR
            assert client.fetch("t", 0, partition=partition).error_code == STORAGE_ERROR
            assert client.offset("t", -1, partition=partition)[0] == STORAGE_ERROR
            assert client.delete_records("t", 1, partition=partition)[0] == STORAGE_ERROR

    def assert_new_topics_work(self) -> None:
        client = self.broker.client()
        client.create("new", 3)
        for partition in range(3):
            assert client.produce("new", [b"v"], partition=partition).error_code == 0

    def assert_whole(self) -> None:
        client = self.broker.client()
        for ledger in (*self.well, *self.hurt):
            ledger.check(client)
            ledger.settle(client)
            ledger.send(client)
            ledger.check(client)


@pytest.fixture
def fleet(make_broker: Make, tmp_path: Path) -> Fleet:
    return Fleet(make_broker(data_dirs=[tmp_path / "first", tmp_path / "second"]))


def test_a_directory_that_fails_to_write(fleet: Fleet) -> None:
    broker = fleet.broker
    broker.arm({"operation": "pwritev", "path": "*/second/*", "when": "torn", "do": "EIO"})
    client = broker.client()
    batch_lost = client.produce("t", [b"lost"], partition=fleet.hurt[0].partition)
    assert batch_lost.error_code == STORAGE_ERROR
    (line,) = broker.events("log_dir_offline")
    assert line["log_dir"].endswith("second")
    broker.heal()
    fleet.assert_half_serves()
    fleet.assert_new_topics_work()
    assert broker.terminate() == 0
    broker.start()
    fleet.assert_whole()
    broker.stop_sound()


def test_a_failed_sync_is_never_tried_again(make_broker: Make, tmp_path: Path) -> None:
    """SAFETY rule 2: what a failed fdatasync leaves is unknown, so the directory goes offline."""
    settings = {"flush.policy": "commit"}
    dirs = [tmp_path / "first", tmp_path / "second"]
    fleet = Fleet(make_broker(data_dirs=dirs, settings=settings))
    broker = fleet.broker
    broker.arm({"operation": "fdatasync", "path": "*/second/*", "times": 1, "do": "EIO"})
    client = broker.client()
    for _ in range(2):
        answer = client.produce("t", [b"lost"], partition=fleet.hurt[0].partition)
        assert answer.error_code == STORAGE_ERROR
    fleet.assert_half_serves()
    broker.kill9()
    broker.heal()
    broker.start()
    client = broker.client()
    for ledger in fleet.hurt:  # the batch that was refused may be there: nothing was promised
        found = client.fetch_all("t", partition=ledger.partition)
        assert found.values[: len(ledger.acknowledged)] == ledger.acknowledged
        assert found.values[len(ledger.acknowledged) :] in ([], [b"lost"])


def test_a_directory_that_fails_to_read(fleet: Fleet) -> None:
    broker = fleet.broker
    broker.restart()
    broker.arm({"operation": "pread", "path": "*/second/*.log", "do": "EIO"})
    client = broker.client()
    partition = fleet.hurt[0].partition
    assert client.offset("t", 1, partition=partition)[0] == STORAGE_ERROR
    broker.heal()
    fleet.assert_half_serves()
    broker.terminate()
    broker.start()
    fleet.assert_whole()
    broker.stop_sound()


def test_a_directory_that_becomes_read_only(
    make_broker: Make, mount_tmpfs: Callable[[str, int], Path], tmp_path: Path
) -> None:
    volume = mount_tmpfs("volume", 32 << 20)
    settings = {"log.segment.bytes": "2000"}
    fleet = Fleet(make_broker(data_dirs=[tmp_path / "first", volume / "second"], settings=settings))
    broker = fleet.broker
    assert broker.terminate() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    broker.start()
    (line,) = broker.events("log_dir_offline")
    assert "Read-only file system" in line["error"]
    fleet.assert_half_serves()
    fleet.assert_new_topics_work()
    assert broker.terminate() == 0
    subprocess.run(["mount", "-o", "remount,rw", str(volume)], check=True)
    broker.start()
    fleet.assert_whole()
    broker.stop_sound()


def test_a_directory_that_cannot_be_used_at_the_start(fleet: Fleet) -> None:
    """A file stands where the directory was: its partitions wait for it."""
    broker = fleet.broker
    second = broker.data_dirs[1]
    assert broker.terminate() == 0
    aside = second.with_name("aside")
    second.rename(aside)
    second.write_bytes(b"")
    broker.start()
    fleet.assert_half_serves()
    fleet.assert_new_topics_work()
    broker.terminate()
    second.unlink()
    aside.rename(second)
    broker.start()
    fleet.assert_whole()
    broker.stop_sound()


def test_a_directory_that_is_removed_under_the_broker(fleet: Fleet) -> None:
    """Found out at the next step that needs a name in it; nothing else is touched."""
    broker = fleet.broker
    second = broker.data_dirs[1]
    while second.exists():  # again for what the broker has put into it meanwhile
        shutil.rmtree(second, ignore_errors=True)
    client = broker.client()
    hurt = fleet.hurt[0].partition
    client.delete_records("t", 2, partition=hurt)
    wait_until(lambda: bool(broker.events("log_dir_offline")), "the directory is seen to be gone")
    fleet.assert_half_serves()
    fleet.assert_new_topics_work()
    assert broker.terminate() == 0


def test_a_topic_with_partitions_offline_can_be_deleted(fleet: Fleet) -> None:
    broker = fleet.broker
    broker.arm({"operation": "pwritev", "path": "*/second/*", "do": "EIO"})
    client = broker.client()
    client.produce("t", [b"lost"], partition=fleet.hurt[0].partition)
    broker.heal()
    assert client.delete("t") == 0
    assert client.topics() == set()
    broker.terminate()
    broker.start()
    client = broker.client()
    assert client.topics() == set()
    client.create("t", PARTITIONS)
    for partition in range(PARTITIONS):
        assert client.fetch_all("t", partition=partition).records == []
        assert client.produce("t", [b"fresh"], partition=partition) == (0, 0)
