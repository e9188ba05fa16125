"""The metastore's interface: what both backends promise, and the errors they raise.

A metastore is a small tree of nodes, as in ZooKeeper: a path, a value of bytes, and a
version that counts the writes to this node (0 after Create, +1 by each Set).

    MetastoreError                 (trioq.errors)
    ├ NodeExists                   Create met a node
    ├ NoNode                       the node, or the parent to create below, is not there
    ├ VersionConflict              the node has another version than expected
    ├ NotEmpty                     Delete met children
    ├ EphemeralParent              Create below an ephemeral node
    ├ TooLarge                     a multi exceeds its limits; nothing was sent
    ├ SessionLost                  the session ended: its ephemerals are gone, start anew
    ├ MetastoreUnavailable         not done, and known not to be; may be tried again later
    └ OutcomeUnknown               done or not: read back before going on

The contract, tested by tests/contract against every backend:

- Paths begin with "/", have no empty, "." or ".." part and no trailing "/". The root
  exists always. Parents must exist; a node with children cannot be deleted.
- A write returns only when it is durable. Writes of one store are applied in the order
  in which they were called; a read sees every write that returned before it was called.
- `multi` is atomic: all of its operations, each seeing the ones before it, or none.
- Ephemeral nodes are owned by the session that created them and go when it ends. They
  only signal death: fences are versions of persistent nodes, because a node that is
  created again starts at version 0.
- Cancelling an awaited write leaves it either applied as a whole or not at all, and the
  caller does not know which, as with OutcomeUnknown. A cancelled read has no effect.
- Everything here is called on the event loop's thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from trioq.errors import MetastoreError
from trioq.metastore.session import Session

ANY_VERSION: Final = -1
"""As an expected version: whatever version the node has, as long as it exists."""

MAX_MULTI_OPERATIONS: Final = 500
MAX_MULTI_BYTES: Final = 512 * 1024

_MAX_VERSION: Final = 2**31 - 1

_OPERATION_OVERHEAD_BYTES: Final = 64
"""What an operation costs on the wire beside path and value (ZooKeeper's headers and ACL)."""


class NodeError(MetastoreError):
    """An operation on one node was refused; nothing of its multi was applied.

    `index` is the operation's place in its multi (0 for a single write).
    """

    reason = "refused"

    def __init__(self, path: str, index: int = 0) -> None:
        super().__init__(f"{path}: {self.reason}")
        self.path = path
        self.index = index


class NodeExists(NodeError):
    """The node to create exists."""

    reason = "exists already"


class NoNode(NodeError):
    """The node does not exist, or the parent of the node to create."""

    reason = "does not exist"


class VersionConflict(NodeError):
    """The node has another version than the expected one."""

    reason = "has another version"


class NotEmpty(NodeError):
    """The node to delete has children."""

    reason = "has children"


class EphemeralParent(NodeError):
    """Ephemeral nodes have no children."""

    reason = "cannot be created below an ephemeral node"


class TooLarge(MetastoreError):
    """The multi exceeds MAX_MULTI_OPERATIONS or MAX_MULTI_BYTES: split it; nothing was sent."""


class SessionLost(MetastoreError):
    """The session has ended; what it owned is gone."""


class MetastoreUnavailable(MetastoreError):
    """The operation was not carried out; the store cannot be reached or cannot write."""


class OutcomeUnknown(MetastoreError):
    """The write was or was not applied: re-read by version before doing anything else."""


class Node(NamedTuple):
    """A node as read."""

    value: bytes
    version: int


class Create(NamedTuple):
    """Create a node at version 0; its result is the path created.

    With `sequential`, the path gets ten digits appended that grow with each such node of
    this parent, never repeat, and may skip numbers.
    """

    path: str
    value: bytes
    ephemeral: bool = False
    sequential: bool = False


class Set(NamedTuple):
    """Replace a node's value if it has `version`; its result is the new version."""

    path: str
    value: bytes
    version: int


class Delete(NamedTuple):
    """Delete a childless node if it has `version`; its result is None."""

    path: str
    version: int


class Check(NamedTuple):
    """Fail the multi unless the node has `version`; its result is None."""

    path: str
    version: int


Operation = Create | Set | Delete | Check
Result = str | int | None


class Watch(ABC):
    """Tells that a node, or a node's list of children, may have changed.

    A context manager; `changed` may be awaited by one task. Changes between two calls
    are told once; a call may return without a change (after a reconnect it always does).
    No change is ever missed: what happens after the last read that the last `changed`
    led to, or after the watch was made, makes the next call return.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    async def changed(self) -> None:
        """Wait until something may have changed. Raises SessionLost when the store closed."""

    @abstractmethod
    def close(self) -> None:
        """Stop watching; idempotent."""


class Metastore(ABC):
    """What every backend offers. A backend's own context manager opens and closes it."""

    session: Session

    @abstractmethod
    async def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        """Read several nodes, None for those that do not exist. Not one snapshot."""

    @abstractmethod
    async def children(self, path: str) -> list[str]:
        """The names (last parts) of a node's children, sorted. Raises NoNode."""

    @abstractmethod
    async def read_tree(self, path: str) -> dict[str, Node]:
        """The node at `path` and everything below it, parents before children.

        Each node is as it was at some moment during the call; the whole is not one
        snapshot. Raises NoNode.
        """

    @abstractmethod
    async def multi(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply all operations or none; returns one result per operation.

        Raises TooLarge before anything is sent, a NodeError naming path and index of the
        first operation that failed, MetastoreUnavailable, SessionLost, OutcomeUnknown.
        Cancelled: applied or not.
        """

    @abstractmethod
    async def bulk(self, groups: Iterable[Sequence[Operation]]) -> None:
        """Apply many multis, in order, each within multi's limits and atomic on its own.

        The embedded backend applies them in one transaction, all or none; another may
        leave the first ones applied when one fails. For changes of which each group is
        right by itself, such as raising every leader epoch at start. Raises as `multi`.
        """

    @abstractmethod
    def watch_node(self, path: str) -> Watch:
        """Watch a node's creation, value and deletion."""

    @abstractmethod
    def watch_children(self, path: str) -> Watch:
        """Watch which children a node has; their values are not watched. The node exists."""

    async def get(self, path: str) -> Node:
        """Read one node. Raises NoNode."""
        (node,) = await self.get_many((path,))
        if node is None:
            raise NoNode(path)
        return node

    async def create(self, path: str, value: bytes, *, ephemeral: bool = False) -> None:
        """Create one node. Raises NodeExists, NoNode (no parent), EphemeralParent."""
        await self.multi((Create(path, value, ephemeral),))

    async def set(self, path: str, value: bytes, version: int) -> int:
        """Replace one node's value; returns the new version. Raises NoNode, VersionConflict."""
        (result,) = await self.multi((Set(path, value, version),))
        assert isinstance(result, int)
        return result

    async def delete(self, path: str, version: int) -> None:
        """Delete one node. Raises NoNode, VersionConflict, NotEmpty."""
        await self.multi((Delete(path, version),))


def parent_of(path: str) -> str:
    """The path one level up; the root is its own parent."""
    return path[: path.rindex("/")] or "/"


def check_path(path: str) -> None:
    """Raise ValueError unless `path` is a legal absolute path."""
    if path == "/":
        return
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"illegal metastore path {path!r}")
    for part in path[1:].split("/"):
        if part in {"", ".", ".."}:
            raise ValueError(f"illegal metastore path {path!r}")
    path.encode()  # a UnicodeEncodeError is a ValueError


def operation_bytes(operation: Operation) -> int:
    """What the operation counts towards MAX_MULTI_BYTES."""
    size_bytes = _OPERATION_OVERHEAD_BYTES + len(operation.path.encode())
    if isinstance(operation, Create | Set):
        size_bytes += len(operation.value)
    return size_bytes


def check_multi(operations: Sequence[Operation]) -> None:
    """Raise TooLarge or ValueError (illegal path, version) before a multi is sent."""
    if len(operations) > MAX_MULTI_OPERATIONS:
        raise TooLarge(f"{len(operations)} operations in one multi; at most {MAX_MULTI_OPERATIONS}")
    size_bytes = 0
    for operation in operations:
        check_path(operation.path)
        if operation.path == "/" and isinstance(operation, Create | Delete):
            raise ValueError("the root node exists always")
        if isinstance(operation, Create):
            if operation.sequential and parent_of(operation.path) == "/":
                raise ValueError("the root has no sequential children")
        elif not ANY_VERSION <= operation.version <= _MAX_VERSION:
            raise ValueError(f"illegal version {operation.version} for {operation.path}")
        size_bytes += operation_bytes(operation)
    if size_bytes > MAX_MULTI_BYTES:
        raise TooLarge(f"{size_bytes} bytes in one multi; at most {MAX_MULTI_BYTES}")
