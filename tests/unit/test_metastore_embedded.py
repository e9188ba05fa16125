"""The embedded store beyond the contract: durability, damage, locking, failing disks."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trioq.errors import StartupError
from trioq.metastore import embedded, store
from trioq.metastore.embedded import open_embedded
from trioq.metastore.node_table import NodeTable, open_table
from trioq.metastore.session import SessionState
from trioq.metastore.store import Create, Set

pytestmark = pytest.mark.trio

WRITER = """
import sys, trio
from pathlib import Path
from trioq.metastore.embedded import open_embedded
from trioq.metastore.store import Create, Set

async def main():
    async with open_embedded(Path(sys.argv[1])) as metastore:
        (node,) = await metastore.get_many(["/left"])
        if node is None:
            await metastore.multi([Create("/left", b"0"), Create("/right", b"0")])
            version = 0
        else:
            version = node.version
        while True:
            value = b"%d" % (version + 1)
            await metastore.multi([Set("/left", value, version), Set("/right", value, version)])
            version += 1
            print(version, flush=True)

trio.run(main)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metastore.sqlite"


async def filled(path: Path, nodes: int = 500) -> None:
    async with open_embedded(path) as metastore:
        await metastore.multi([Create(f"/n{n}", b"v" * 100) for n in range(nodes)])


async def test_acknowledged_writes_survive_kill_9(path):
    acknowledged = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(40):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        writer.wait()
        writer.stdout.close()
    async with open_embedded(path) as metastore:
        left, right = await metastore.get_many(["/left", "/right"])
    assert left == right
    # the write under way when the process was killed may be there too
    assert left.version in {acknowledged, acknowledged + 1}
    assert left.value == b"%d" % left.version


async def test_the_file_is_opened_for_durability(path):
    table = open_table(path)
    connection = table._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
    table.close()


async def test_a_file_in_use_is_refused(path):
    async with open_embedded(path):
        with pytest.raises(StartupError, match="in use by another process"):
            async with open_embedded(path):
                pass
    async with open_embedded(path) as again:
        await again.create("/a", b"")


async def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(StartupError, match="check that the data directory exists"):
        async with open_embedded(tmp_path / "missing" / "metastore.sqlite"):
            pass


async def test_garbage_is_not_taken_for_a_metastore(path):
    path.write_bytes(b"not a database at all" * 1000)
    before = path.read_bytes()
    with pytest.raises(StartupError, match="damaged.*from a backup"):
        async with open_embedded(path):
            pass
    assert path.read_bytes() == before


async def test_a_damaged_page_is_found_at_start(path):
    await filled(path)
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(StartupError, match="damaged"):
        async with open_embedded(path):
            pass


async def test_a_file_cut_short_is_found_at_start(path):
    await filled(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(StartupError, match="damaged"):
        async with open_embedded(path):
            pass


async def test_another_programs_database_is_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(StartupError, match="not a metastore"):
        async with open_embedded(path):
            pass
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM songs").fetchone() == (0,)
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(StartupError, match="not a metastore"):
        async with open_embedded(path):
            pass


async def test_a_newer_format_is_refused(path):
    await filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StartupError, match="format 99"):
        async with open_embedded(path):
            pass


async def test_a_write_that_fails_before_the_commit_changes_nothing(path, monkeypatch):
    def full(self, *, keep):
        raise sqlite3.OperationalError("database or disk is full")

    async with open_embedded(path) as metastore:
        await metastore.create("/a", b"")
        with monkeypatch.context() as patch:
            patch.setattr(NodeTable, "end_savepoint", full)
            with pytest.raises(store.MetastoreUnavailable, match="disk is full"):
                await metastore.set("/a", b"lost", 0)
        assert await metastore.get("/a") == store.Node(b"", 0)
        assert await metastore.set("/a", b"kept", 0) == 1
        assert metastore.session.state is SessionState.CONNECTED


async def test_a_full_disk_refuses_writes_and_nothing_else(path, monkeypatch):
    def full(self):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    async with open_embedded(path) as metastore:
        await metastore.create("/a", b"")
        with monkeypatch.context() as patch:
            patch.setattr(NodeTable, "commit", full)
            with pytest.raises(store.MetastoreUnavailable, match="nothing was written"):
                await metastore.set("/a", b"lost", 0)
        assert await metastore.get("/a") == store.Node(b"", 0)
        assert await metastore.set("/a", b"kept", 0) == 1


async def test_a_commit_that_fails_ends_the_session(path, monkeypatch):
    def failing_commit(self):
        raise sqlite3.OperationalError("disk I/O error")

    async with open_embedded(path) as metastore:
        await metastore.create("/a", b"")
        watch = metastore.watch_node("/a")
        monkeypatch.setattr(NodeTable, "commit", failing_commit)
        with pytest.raises(store.OutcomeUnknown, match="disk I/O error"):
            await metastore.set("/a", b"x", 0)
        assert metastore.session.state is SessionState.LOST
        with pytest.raises(store.SessionLost):
            await metastore.get("/a")
        with pytest.raises(store.SessionLost):
            await watch.changed()


async def test_a_failed_read_is_one_callers_failure(path, monkeypatch):
    def failing(self, paths):
        raise sqlite3.DatabaseError("database disk image is malformed")

    async with open_embedded(path) as metastore:
        with monkeypatch.context() as patch:
            patch.setattr(NodeTable, "get_many", failing)
            with pytest.raises(store.MetastoreUnavailable, match="malformed"):
                await metastore.get("/a")
        assert await metastore.children("/") == []


async def test_concurrent_writes_share_commits(path, monkeypatch):
    commits = []
    commit = NodeTable.commit
    monkeypatch.setattr(NodeTable, "commit", lambda self: (commits.append(1), commit(self)))
    async with open_embedded(path) as metastore:
        await metastore.create("/first", b"")
        commits.clear()
        async with trio.open_nursery() as writer_nursery:
            for number in range(200):
                writer_nursery.start_soon(metastore.create, f"/n{number}", b"")
        assert len(await metastore.children("/")) == 201
    assert len(commits) < 100


async def test_in_a_shared_commit_only_the_refused_write_is_undone(path):
    async with open_embedded(path) as metastore:
        await metastore.create("/a", b"")
        outcomes = {}

        async def write(name, operations):
            try:
                outcomes[name] = await metastore.multi(operations)
            except store.NodeError as error:
                outcomes[name] = type(error)

        async with trio.open_nursery() as writer_nursery:
            for number in range(50):
                wrong = [Create(f"/wrong{number}", b""), Set("/a", b"", 7)]
                writer_nursery.start_soon(write, f"w{number}", wrong)
                writer_nursery.start_soon(write, f"r{number}", [Create(f"/right{number}", b"")])
        names = await metastore.children("/")
    assert names == sorted(["a", *(f"right{number}" for number in range(50))])
    assert all(outcomes[f"w{number}"] is store.VersionConflict for number in range(50))


async def test_a_failing_bulk_changes_nothing(path):
    async with open_embedded(path) as metastore:
        with pytest.raises(store.NoNode):
            await metastore.bulk([[Create("/a", b"")], [Create("/x/y", b"")]])
        assert await metastore.children("/") == []


async def test_what_was_submitted_is_finished_when_the_store_closes(path):
    async with open_embedded(path) as metastore, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(metastore.create, f"/n{number}", b"")
        await trio.lowlevel.checkpoint()
    async with open_embedded(path) as metastore:
        assert len(await metastore.children("/")) == 20


async def test_a_bug_in_the_stores_thread_leaves_nobody_waiting(path, monkeypatch):
    caught = []
    monkeypatch.setattr(embedded.threading, "excepthook", lambda args: caught.append(args.exc_type))

    def broken(self, path):
        raise RuntimeError("bug")

    monkeypatch.setattr(NodeTable, "children", broken)
    async with open_embedded(path) as metastore:
        with pytest.raises(store.SessionLost):
            await metastore.children("/")
        with pytest.raises(store.SessionLost):
            await metastore.get("/a")
    await trio.to_thread.run_sync(metastore._thread.join)
    assert caught == [RuntimeError]
