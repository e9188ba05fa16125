"""The tree of nodes in one SQLite table; used by the embedded store's thread alone.

A row is keyed by (parent, name), so children are one range and a subtree another. The
root is no row. `sequence` numbers the sequential children ever created below a node.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trioq.errors import StartupError
from trioq.metastore import store

_APPLICATION_ID: Final = 0x74726971  # "triq"
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE nodes (
    parent    TEXT NOT NULL,
    name      TEXT NOT NULL,
    value     BLOB NOT NULL,
    version   INTEGER NOT NULL DEFAULT 0,
    sequence  INTEGER NOT NULL DEFAULT 0,
    ephemeral INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID
"""


class Touched:
    """Which nodes a write changed, and whose list of children: what watches ask."""

    __slots__ = ("nodes", "parents")

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.parents: set[str] = set()


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent or "/", name


def _join(parent: str, name: str) -> str:
    return f"/{name}" if parent == "/" else f"{parent}/{name}"


class NodeTable:
    """The nodes behind one connection. Operations raise store.NodeError or sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._execute = connection.execute

    # ---- transactions

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def savepoint(self) -> None:
        self._execute("SAVEPOINT request")

    def end_savepoint(self, *, keep: bool) -> None:
        if not keep:
            self._execute("ROLLBACK TO request")
        self._execute("RELEASE request")

    def commit(self) -> None:
        """Returns when the transaction is durable."""
        self._execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction, if SQLite has not ended it already."""
        if self._connection.in_transaction:
            try:
                self._execute("ROLLBACK")
            except sqlite3.Error:
                return  # what could not be written cannot be made worse

    def close(self) -> None:
        self._connection.close()

    # ---- reading

    def get_many(self, paths: Sequence[str]) -> list[store.Node | None]:
        return [self._node(path) for path in paths]

    def _node(self, path: str) -> store.Node | None:
        if path == "/":
            return store.Node(b"", 0)
        row = self._execute(
            "SELECT value, version FROM nodes WHERE parent = ? AND name = ?", _split(path)
        ).fetchone()
        return None if row is None else store.Node._make(row)

    def children(self, path: str) -> list[str]:
        names = [
            name
            for (name,) in self._execute(
                "SELECT name FROM nodes WHERE parent = ? ORDER BY name", (path,)
            )
        ]
        if not names and self._node(path) is None:
            raise store.NoNode(path)
        return names

    def read_tree(self, path: str) -> dict[str, store.Node]:
        top = self._node(path)
        if top is None:
            raise store.NoNode(path)
        found = {path: top}
        below = "/" if path == "/" else path + "/"
        # children first, then every parent that lies below `path`: "0" follows "/"
        for where, arguments in (
            ("parent = ?", (path,)),
            ("parent > ? AND parent < ? ORDER BY parent", (below, below[:-1] + "0")),
        ):
            for parent, name, value, version in self._execute(
                f"SELECT parent, name, value, version FROM nodes WHERE {where}",  # noqa: S608
                arguments,
            ):
                found[_join(parent, name)] = store.Node(value, version)
        return found

    # ---- writing

    def apply(self, operations: Sequence[store.Operation], touched: Touched) -> list[store.Result]:
        """Apply in order; the caller undoes all of it when one fails."""
        results: list[store.Result] = []
        for index, operation in enumerate(operations):
            try:
                if isinstance(operation, store.Create):
                    results.append(self._create(operation, touched))
                elif isinstance(operation, store.Set):
                    results.append(self._set(operation, touched))
                elif isinstance(operation, store.Delete):
                    self._delete(operation, touched)
                    results.append(None)
                else:
                    self._check(operation.path, operation.version)
                    results.append(None)
            except store.NodeError as error:
                error.index = index
                raise
        return results

    def _create(self, operation: store.Create, touched: Touched) -> str:
        parent, name = _split(operation.path)
        if parent != "/":
            row = self._execute(
                "SELECT ephemeral FROM nodes WHERE parent = ? AND name = ?", _split(parent)
            ).fetchone()
            if row is None:
                raise store.NoNode(parent)
            if row[0]:
                raise store.EphemeralParent(operation.path)
        if operation.sequential:
            name += f"{self._next_sequence(parent):010d}"
        path = _join(parent, name)
        try:
            self._execute(
                "INSERT INTO nodes (parent, name, value, ephemeral) VALUES (?, ?, ?, ?)",
                (parent, name, operation.value, operation.ephemeral),
            )
        except sqlite3.IntegrityError:
            raise store.NodeExists(path) from None
        touched.nodes.add(path)
        touched.parents.add(parent)
        return path

    def _next_sequence(self, parent: str) -> int:
        key = _split(parent)
        self._execute("UPDATE nodes SET sequence = sequence + 1 WHERE parent = ? AND name = ?", key)
        sequence: int
        (sequence,) = self._execute(
            "SELECT sequence FROM nodes WHERE parent = ? AND name = ?", key
        ).fetchone()
        return sequence

    def _set(self, operation: store.Set, touched: Touched) -> int:
        version = self._check(operation.path, operation.version) + 1
        self._execute(
            "UPDATE nodes SET value = ?, version = ? WHERE parent = ? AND name = ?",
            (operation.value, version, *_split(operation.path)),
        )
        touched.nodes.add(operation.path)
        return version

    def _delete(self, operation: store.Delete, touched: Touched) -> None:
        self._check(operation.path, operation.version)
        child = self._execute(
            "SELECT 1 FROM nodes WHERE parent = ? LIMIT 1", (operation.path,)
        ).fetchone()
        if child is not None:
            raise store.NotEmpty(operation.path)
        parent, name = _split(operation.path)
        self._execute("DELETE FROM nodes WHERE parent = ? AND name = ?", (parent, name))
        touched.nodes.add(operation.path)
        touched.parents.add(parent)

    def _check(self, path: str, expected: int) -> int:
        """The node's version, which must be the expected one."""
        row = self._execute(
            "SELECT version FROM nodes WHERE parent = ? AND name = ?", _split(path)
        ).fetchone()
        if row is None:
            raise store.NoNode(path)
        version: int = row[0]
        if expected not in {store.ANY_VERSION, version}:
            raise store.VersionConflict(path)
        return version


def open_table(path: Path) -> NodeTable:
    """Open or create the file, lock it, drop ephemerals. Raises StartupError."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    except sqlite3.Error as error:
        raise StartupError(
            f"cannot open the metastore {path}: {error}; check that the data directory"
            " exists and may be written"
        ) from error
    try:
        _prepare(connection, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's message may quote the damage
        connection.close()
        raise _startup_error(path, error) from error
    except StartupError:
        connection.close()
        raise
    return NodeTable(connection, path)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    execute = connection.execute
    execute("PRAGMA locking_mode = EXCLUSIVE")
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the drive's cache
    execute("PRAGMA cell_size_check = ON")
    execute("BEGIN IMMEDIATE")
    (application_id,) = execute("PRAGMA application_id").fetchone()
    (schema_version,) = execute("PRAGMA user_version").fetchone()
    if application_id == 0 and schema_version == 0:
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            raise StartupError(f"{path} is a SQLite file, but not a metastore of trioq")
        execute(_SCHEMA)
        execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    elif application_id != _APPLICATION_ID:
        raise StartupError(f"{path} is a SQLite file, but not a metastore of trioq")
    elif schema_version != _SCHEMA_VERSION:
        raise StartupError(
            f"{path} has format {schema_version}; this trioq knows {_SCHEMA_VERSION}:"
            " start the version that wrote it, or a newer one"
        )
    else:
        (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        execute("DELETE FROM nodes WHERE ephemeral")
    execute("COMMIT")


def _startup_error(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> StartupError:
    if error.__class__ is sqlite3.OperationalError and "locked" in str(error):
        return StartupError(f"the metastore {path} is in use by another process")
    if isinstance(error, sqlite3.OperationalError):
        return StartupError(
            f"cannot use the metastore {path}: {error}; check free space and permissions"
        )
    return StartupError(
        f"the metastore {path} is damaged: {error}. Nothing was changed. Restore the file"
        f" (and {path.name}-wal, if there is one) from a backup, or try"
        f" `sqlite3 {path.name} .recover`; without it the topics in this data directory"
        " are unknown, so do not just delete it"
    )
