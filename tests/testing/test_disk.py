"""CrashingDisk: a disk like any other until it is dead."""

from __future__ import annotations

from trioq.testing.disk import CrashingDisk


def tree(path):
    return {
        str(one.relative_to(path)): one.read_bytes() if one.is_file() else None
        for one in path.rglob("*")
    }


def use(disk, root):
    """Everything that changes something."""
    path = str(root)
    disk.make_directory(f"{path}/made/deep")
    file = disk.open(f"{path}/file", create=True)
    file.preallocate(0, 4096)
    file.pwritev([b"some", b"thing"], 0)
    file.truncate(6)
    file.fdatasync()
    file.close()
    disk.write_file(f"{path}/written", b"w")
    disk.replace_file(f"{path}/replaced", b"r", sync=False)
    disk.sync_file(f"{path}/replaced")
    disk.write_file(f"{path}/from", b"")
    disk.rename(f"{path}/from", f"{path}/to")
    disk.write_file(f"{path}/gone", b"")
    disk.unlink(f"{path}/gone")
    disk.make_directory(f"{path}/tree/x")
    disk.remove_tree(f"{path}/tree")
    disk.fsync_dir(path)


def test_alive(tmp_path):
    disk = CrashingDisk()
    use(disk, tmp_path)
    assert tree(tmp_path) == {
        "made": None,
        "made/deep": None,
        "file": b"someth",
        "written": b"w",
        "replaced": b"r",
        "to": b"",
    }


def test_dead_nothing_changes_and_everything_can_be_read(tmp_path):
    disk = CrashingDisk()
    use(disk, tmp_path)
    (tmp_path / "gone").write_bytes(b"here again")
    (tmp_path / "from").write_bytes(b"here again")
    (tmp_path / "tree").mkdir()
    open_before = disk.open(str(tmp_path / "file"))
    before = tree(tmp_path)
    disk.die()
    use(disk, tmp_path)
    open_before.pwritev([b"more"], 0)
    open_before.truncate(0)
    assert open_before.pread(10, 0) == b"someth"
    open_before.close()
    new = disk.open(str(tmp_path / "new"), create=True)
    new.pwritev([b"more"], 0)
    new.close()
    assert tree(tmp_path) == before
    assert disk.read_file(str(tmp_path / "written")) == b"w"
