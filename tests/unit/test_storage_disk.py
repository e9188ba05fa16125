"""The two disks do the same; the one in memory loses what a real one may lose."""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioq.errors import StartupError
from trioq.storage.disk import OsDisk
from trioq.storage.memory_disk import MemoryDisk, PowerCut


@pytest.fixture(params=["os", "memory"])
def disk_at(request, tmp_path):
    return (OsDisk(), str(tmp_path)) if request.param == "os" else (MemoryDisk(), "")


def test_files(disk_at):
    disk, root = disk_at
    path = f"{root}/d/sub/file"
    disk.make_directory(f"{root}/d/sub")
    disk.make_directory(f"{root}/d/sub")
    with pytest.raises(FileNotFoundError):
        disk.open(path)
    file = disk.open(path, create=True)
    file.pwritev([b"hello ", memoryview(b"world"), bytearray(b"!")], 0)
    file.pwritev([b"W"], 6)
    assert file.pread(100, 0) == b"hello World!"
    assert file.pread(5, 6) == b"World"
    assert file.pread(5, 100) == b""
    assert file.size() == disk.file_size(path) == 12
    file.preallocate(12, 1 << 16)
    assert file.size() == 12
    file.truncate(5)
    file.fdatasync()
    disk.sync_file(path)
    disk.sync_file(f"{root}/d/sub/gone")
    file.close()
    file.close()
    assert disk.read_file(path) == b"hello"
    assert disk.modified_ms(path) > 1_600_000_000_000


def test_names(disk_at):
    disk, root = disk_at
    disk.make_directory(f"{root}/d")
    disk.write_file(f"{root}/d/a", b"1")
    disk.write_file(f"{root}/d/a", b"22")
    disk.replace_file(f"{root}/d/b", b"333")
    disk.replace_file(f"{root}/d/b", b"4", sync=False)
    disk.make_directory(f"{root}/d/sub")
    assert sorted(disk.listdir(f"{root}/d")) == ["a", "b", "sub"]
    assert disk.list_subdirectories(f"{root}/d") == ["sub"]
    open_file = disk.open(f"{root}/d/a")
    disk.rename(f"{root}/d/a", f"{root}/d/b")
    assert disk.read_file(f"{root}/d/b") == b"22"
    assert not disk.exists(f"{root}/d/a")
    disk.unlink(f"{root}/d/b")
    disk.unlink(f"{root}/d/b")
    assert open_file.pread(10, 0) == b"22"
    open_file.close()
    disk.fsync_dir(f"{root}/d")
    disk.remove_tree(f"{root}/d")
    disk.remove_tree(f"{root}/d")
    assert not disk.exists(f"{root}/d")
    with pytest.raises(FileNotFoundError):
        disk.listdir(f"{root}/d")
    with pytest.raises(FileNotFoundError):
        disk.read_file(f"{root}/d/a")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{root}/nothing", f"{root}/something")


def test_lock_and_usage(disk_at):
    disk, root = disk_at
    disk.make_directory(f"{root}/d")
    lock = disk.lock(f"{root}/d/.lock")
    with pytest.raises(StartupError, match="in use by another broker"):
        disk.lock(f"{root}/d/.lock")
    lock.release()
    lock.release()
    disk.lock(f"{root}/d/.lock").release()
    usage = disk.usage(f"{root}/d")
    assert 0 < usage.usable_bytes <= usage.total_bytes
    disk.fault_point("anything")


def test_large_gather_is_written_whole(disk_at):
    disk, root = disk_at
    disk.make_directory(f"{root}/d")
    file = disk.open(f"{root}/d/f", create=True)
    parts = [bytes([number % 251]) * (number % 7) for number in range(3000)]
    file.pwritev(parts, 0)
    assert file.pread(1 << 20, 0) == b"".join(parts)
    file.close()


@given(
    synced=st.binary(max_size=20),
    writes=st.lists(st.tuples(st.integers(0, 20), st.binary(min_size=1, max_size=8)), max_size=4),
    seed=st.integers(0, 1000),
)
def test_crash_keeps_what_was_synced_unless_it_was_overwritten(synced, writes, seed):
    disk = MemoryDisk()
    disk.make_directory("/d")
    disk.fsync_dir("/")
    disk.replace_file("/d/f", synced)
    file = disk.open("/d/f")
    touched = set()
    for position, data in writes:
        file.pwritev([data], position)
        touched |= set(range(position, position + len(data)))
    before = disk.read_file("/d/f")
    disk.crash(Random(seed))
    after = disk.read_file("/d/f")
    assert len(synced) <= len(after) <= len(before)
    for position, byte in enumerate(synced):
        assert position in touched or after[position] == byte
    with pytest.raises(PowerCut):
        file.pread(1, 0)


def test_crash_takes_a_suffix_of_unsynced_names():
    outcomes = set()
    for seed in range(60):
        disk = MemoryDisk()
        disk.make_directory("/d")
        disk.fsync_dir("/")
        for name in "abc":
            disk.replace_file(f"/d/{name}", b"x", sync=name == "a")
        disk.rename("/d/a", "/d/z")
        disk.crash(Random(seed))
        outcomes.add("".join(disk.listdir("/d")))
    assert outcomes == {"a", "ab", "abc", "bcz"}


def test_injected_errors_and_fault_points():
    disk = MemoryDisk()
    disk.make_directory("/d")
    file = disk.open("/d/f", create=True)
    disk.inject("pwritev", errno.ENOSPC, path_contains="f", skip=1, times=1, written_bytes=2)
    file.pwritev([b"abcd"], 0)
    with pytest.raises(OSError, match="No space") as caught:
        file.pwritev([b"efgh"], 4)
    assert caught.value.errno == errno.ENOSPC
    assert disk.read_file("/d/f") == b"abcdef"
    file.pwritev([b"efgh"], 4)
    disk.arm("here", skip=1)
    disk.fault_point("here")
    with pytest.raises(PowerCut):
        disk.fault_point("here")
    disk.heal()
    disk.fault_point("here")
    assert disk.reached == ["here"] * 3
