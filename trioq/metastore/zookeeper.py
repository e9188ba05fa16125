"""The ZooKeeper backend, over kazoo; the only module that imports it.

kazoo works in threads of its own. They never wait for the loop: what they have to say comes as
plain calls put into it. Requests are sent in the order of the calls here, and answered in that
order; reads see the writes of this session (ZooKeeper's session guarantees).

While the session is SUSPENDED nothing is submitted, because kazoo would keep a write and send it
later, behind the back of whoever has given it up: writes raise MetastoreUnavailable, reads wait.
A write whose answer was lost with the connection is OutcomeUnknown. Once the session is LOST its
calls raise SessionLost; when kazoo has made a new one, the state is CONNECTED again in a new
generation, and calls work.

The session's lease ends two thirds of its timeout after the last request that was answered had
been sent: ZooKeeper counts from when it got it, and so ends the session later (SAFETY rule 12).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio
from kazoo import exceptions as zk
from kazoo.client import KazooState, TransactionRequest

from trioq.clock import Clock
from trioq.errors import StartupError
from trioq.metastore import store
from trioq.metastore.path_watches import PathWatches
from trioq.metastore.session import Session, SessionState
from trioq.metastore.zookeeper_address import ZooKeeperAddress
from trioq.metastore.zookeeper_client import Negotiated, Told, client_of

_IN_FLIGHT: Final = 256
"""Reads of one call that are under way at once."""

_STOP_PATIENCE_S: Final = 10.0
_RETRY_S: Final = 0.1
_LEASE_SHARE: Final = 2 / 3
_PROBES_PER_SESSION: Final = 6
_RESERVED: Final = "zookeeper"
"""The child of the very root that belongs to ZooKeeper itself."""


class ZooKeeperMetastore(store.Metastore):
    """The metastore in a ZooKeeper ensemble; made by `open_zookeeper`, which closes it."""

    def __init__(self, address: ZooKeeperAddress, clock: Clock) -> None:
        """Must be called in the event loop; `start` connects."""
        self.address = address
        self.session = Session(lease_end_s=clock.monotonic_s())
        self._clock = clock
        self._loop = trio.lowlevel.current_trio_token()
        self._told = Told()
        self._client = client_of(address, self._told)
        self._negotiated = Negotiated(self._client, address.session_timeout_s)
        self._closing = False
        self._given_up = False
        self._state_changed = trio.Event()
        self._waiting: set[trio.Event] = set()
        self._nodes = PathWatches(self.session, partial(self._ask, of_children=False))
        self._children = PathWatches(self.session, partial(self._ask, of_children=True))

    # ---- the interface

    async def get_many(self, paths: Sequence[str]) -> list[store.Node | None]:
        for path in paths:
            store.check_path(path)
        found: list[store.Node | None] = []
        for start in range(0, len(paths), _IN_FLIGHT):
            found += await self._get_some(paths[start : start + _IN_FLIGHT])
        if not paths:
            await trio.lowlevel.checkpoint()
        return found

    async def _get_some(self, paths: Sequence[str]) -> list[store.Node | None]:
        values = await self._read(self._client.get_async, paths)
        return [None if one is None else store.Node(one[0], one[1].version) for one in values]

    async def sync(self) -> None:
        """Have later reads of this session see what anybody had written before this call.

        A server may lag behind the ensemble's leader. Waits while SUSPENDED. Raises SessionLost.
        """
        await self._read(self._client.sync_async, ("/",))

    async def children(self, path: str) -> list[str]:
        store.check_path(path)
        (names,) = await self._read(self._client.get_children_async, (path,))
        if names is None:
            raise store.NoNode(path)
        return self._own(path, names)

    async def read_tree(self, path: str) -> dict[str, store.Node]:
        store.check_path(path)
        found: dict[str, store.Node] = {}
        level = [path]
        while level:
            below: list[str] = []
            for start in range(0, len(level), _IN_FLIGHT):
                below += await self._read_level(level[start : start + _IN_FLIGHT], found)
            level = below
        if path not in found:
            raise store.NoNode(path)
        return found

    async def _read_level(self, paths: Sequence[str], found: dict[str, store.Node]) -> list[str]:
        """Add the nodes at `paths` that exist to `found`; returns the paths of their children."""
        client = self._client
        parents: list[str] = []
        nodes = await self._read(client.get_async, paths)
        for path, node in zip(paths, nodes, strict=True):
            if node is not None:
                value, stat = node
                found[path] = store.Node(value, stat.version)
                if stat.numChildren:
                    parents.append(path)
        listed = await self._read(client.get_children_async, parents)
        return [
            f"{'' if parent == '/' else parent}/{name}"
            for parent, names in zip(parents, listed, strict=True)
            for name in self._own(parent, names or ())
        ]

    async def multi(self, operations: Sequence[store.Operation]) -> list[store.Result]:
        store.check_multi(operations)
        if not operations:
            await trio.lowlevel.checkpoint()
            return []
        transaction = self._client.transaction()
        for operation in operations:
            self._add(transaction, operation)
        self._check_writable()
        sent_s = self._clock.monotonic_s()
        try:
            results = await self._wait_for(transaction.commit_async())
        except zk.ConnectionLoss:
            raise store.OutcomeUnknown(
                f"the connection to {self.address.described()} broke before the write was answered"
            ) from None
        except (zk.SessionExpiredError, zk.ConnectionClosedError):
            raise store.SessionLost(_SESSION_ENDED) from None
        self._answered(sent_s)
        _raise_failure(operations, results)
        return [self._result(*both) for both in zip(operations, results, strict=True)]

    async def bulk(self, groups: Iterable[Sequence[store.Operation]]) -> None:
        for operations in groups:
            await self.multi(operations)

    def watch_node(self, path: str) -> store.Watch:
        store.check_path(path)
        return self._nodes.watch(path)

    def watch_children(self, path: str) -> store.Watch:
        store.check_path(path)
        return self._children.watch(path)

    # ---- opening and closing

    async def start(self) -> None:
        """Connect, authenticate, create the chroot. Raises StartupError, saying what to do.

        Cancelled: kazoo may be connecting still; `close` ends that.
        """
        client, address = self._client, self.address
        client.add_listener(self._on_state)  # called in kazoo's thread
        await trio.to_thread.run_sync(client.start_async)
        was_connected = False
        with trio.move_on_after(address.connect_timeout_s) as patience:
            while True:
                while not client.connected:
                    await self._state_changed.wait()
                was_connected = True
                if await self._create_chroot():
                    return
        if patience.cancelled_caught:
            await self.close()  # an attempt that is under way says what it fails for
            raise StartupError(address.unreached(was_connected=was_connected, last=self._told.last))

    async def _create_chroot(self) -> bool:
        """False: the connection broke, as when the ensemble is electing. Raises StartupError."""
        address = self.address
        try:
            await trio.to_thread.run_sync(
                self._client.ensure_path, address.chroot or "/", abandon_on_cancel=True
            )
        except (zk.AuthFailedError, zk.NoAuthError) as error:
            who = (
                "a broker without zookeeper.user"
                if address.user is None
                else f"user {address.user!r}"
            )
            raise StartupError(
                f"ZooKeeper at {address.hosts} refuses {who}: correct zookeeper.user or the "
                f"password, or the ACL of {address.chroot or '/'}"
            ) from error
        except (zk.ConnectionLoss, zk.SessionExpiredError):
            await trio.sleep(_RETRY_S)
            return False
        except zk.KazooException as error:
            raise StartupError(
                f"cannot use {address.described()}: {error!r}; see the server's log"
            ) from error
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the lease: ask something every sixth of a session; runs until cancelled."""
        await self._probe()
        task_status.started()
        while True:
            await trio.sleep(self.session_timeout_s / _PROBES_PER_SESSION)
            await self._probe()

    async def _probe(self) -> None:
        try:
            await self.get_many(("/",))
        except store.SessionLost:
            if self._closing:
                return
            if self._given_up or self._client._connection.connection_stopped.is_set():  # noqa: SLF001
                await self._start_again()
            await self.session.changed_from(SessionState.LOST)

    @property
    def session_timeout_s(self) -> float:
        """What the server has granted."""
        return self._negotiated.session_timeout_s

    def give_up(self) -> None:
        """End the session now, whatever the loop does: for a thread that sees it stand still.

        Blocks for up to ten seconds. A new session begins when the loop goes on.
        """
        self._given_up = True
        self._client.stop()

    async def _start_again(self) -> None:
        """After `give_up`, or after kazoo's loop failed: connect anew, for as long as it takes."""
        self._given_up = False
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._client.start_async)

    async def close(self) -> None:
        """End the session, so that its ephemerals go at once; idempotent. Waits ten seconds."""
        if self._closing:
            return
        self._closing = True
        with trio.CancelScope(shield=True):
            # kazoo's own patience may be longer (#688): its thread is left then.
            with trio.move_on_after(_STOP_PATIENCE_S):
                await trio.to_thread.run_sync(self._stop_client, abandon_on_cancel=True)
            self._move(SessionState.LOST)
        for arrived in self._waiting:  # kazoo answers nobody any more
            arrived.set()

    def _stop_client(self) -> None:
        self._client.stop()
        self._client.close()

    # ---- requests

    def _full(self, path: str) -> str:
        """With the chroot."""
        return (self.address.chroot + path).rstrip("/") or "/"

    def _own(self, path: str, names: Iterable[str]) -> list[str]:
        is_root = path == "/" and not self.address.chroot
        return sorted(name for name in names if not (is_root and name == _RESERVED))

    def _add(self, transaction: TransactionRequest, operation: store.Operation) -> None:
        path = self._full(operation.path)
        if isinstance(operation, store.Create):
            transaction.create(
                path,
                operation.value,
                ephemeral=operation.ephemeral,
                sequence=operation.sequential,
            )
        elif isinstance(operation, store.Set):
            transaction.set_data(path, operation.value, operation.version)
        elif isinstance(operation, store.Delete):
            transaction.delete(path, operation.version)
        else:
            transaction.check(path, operation.version)

    def _check_writable(self) -> None:
        if self._closing or self.session.state is SessionState.LOST:
            raise store.SessionLost(_SESSION_ENDED)
        if self.session.state is SessionState.SUSPENDED:
            raise store.MetastoreUnavailable(
                f"no server of {self.address.described()} answers at present; nothing was written"
            )

    async def _read(self, ask: Callable[[str], Any], paths: Sequence[str]) -> list[Any]:
        """Ask kazoo for all paths at once and wait; None where the node does not exist.

        Sent again after a broken connection. Raises SessionLost, and MetastoreUnavailable where
        an ACL keeps this user out.
        """
        while True:
            while self.session.state is SessionState.SUSPENDED and not self._closing:
                await self._state_changed.wait()
            if self._closing or self.session.state is SessionState.LOST:
                raise store.SessionLost(_SESSION_ENDED)
            sent_s = self._clock.monotonic_s()
            answers = [ask(self._full(path)) for path in paths]
            try:
                values = [
                    await self._value(path, answer)
                    for path, answer in zip(paths, answers, strict=True)
                ]
            except zk.ConnectionLoss:
                # Until the loop has heard of it, or the connection is back already.
                await trio.lowlevel.checkpoint()
                continue
            except (zk.SessionExpiredError, zk.ConnectionClosedError):
                raise store.SessionLost(_SESSION_ENDED) from None
            self._answered(sent_s)
            return values

    async def _value(self, path: str, answer: Any) -> Any:
        try:
            return await self._wait_for(answer)
        except zk.NoNodeError:
            return None
        except zk.NoAuthError as error:
            raise store.MetastoreUnavailable(
                f"{self._full(path)}: ZooKeeper refuses the read to "
                f"{self.address.user or 'a broker without zookeeper.user'}; correct the user, or "
                "the node's ACL"
            ) from error

    async def _wait_for(self, answer: Any) -> Any:
        """The value of kazoo's result; its error is raised."""
        arrived = trio.Event()
        self._waiting.add(arrived)
        try:
            # kazoo calls the link in its own thread, at once if the answer is there already.
            answer.rawlink(lambda _answer: self._call_loop(arrived.set))
            await arrived.wait()
        finally:
            self._waiting.discard(arrived)
        if not answer.ready():
            raise zk.ConnectionClosedError
        try:
            return answer.get_nowait()
        except RuntimeError as error:  # kazoo has lost count of the answers, and its loop ends
            raise zk.ConnectionLoss from error

    def _answered(self, sent_s: float) -> None:
        end_s = sent_s + _LEASE_SHARE * self._negotiated.session_timeout_s
        self.session.lease_end_s = max(self.session.lease_end_s, end_s)

    def _result(self, operation: store.Operation, result: Any) -> store.Result:
        if isinstance(operation, store.Create):
            path: str = result
            return path.removeprefix(self.address.chroot)
        if isinstance(operation, store.Set):
            version: int = result.version
            return version
        return None

    # ---- watches and the session's state

    def _ask(self, path: str, *, of_children: bool) -> None:
        """Have kazoo tell of the next change; the answer to the request itself is not needed."""
        client, watches = self._client, self._children if of_children else self._nodes
        fired = partial(self._call_loop, partial(watches.fired, path))
        full = self._full(path)

        def tell(_event: object) -> None:
            fired()

        if of_children:
            answer = client.get_children_async(full, watch=tell)
        else:
            answer = client.exists_async(full, watch=tell)
        answer.rawlink(lambda done: None if done.successful() else fired())

    def _on_state(self, state: str) -> None:
        """In kazoo's thread."""
        moved = _STATES[state]
        self._call_loop(partial(self._move, moved))

    def _move(self, state: SessionState) -> None:
        if self._closing:
            state = SessionState.LOST
        before = self.session.state
        self.session.move(state)
        if state is SessionState.CONNECTED:
            if before is not state:
                self._nodes.reconnected()
                self._children.reconnected()
        else:
            for watches in (self._nodes, self._children):
                watches.connection_lost()
                if state is SessionState.LOST:
                    watches.touch_all()
        self._state_changed.set()
        self._state_changed = trio.Event()

    def _call_loop(self, call: Callable[[], None]) -> None:
        """Put a call that cannot raise into the loop; any thread."""
        try:
            self._loop.run_sync_soon(call)
        except trio.RunFinishedError:
            return  # the loop is gone, and with it everyone who waited


_SESSION_ENDED: Final = "the ZooKeeper session has ended"

_STATES: Final = {
    KazooState.CONNECTED: SessionState.CONNECTED,
    KazooState.SUSPENDED: SessionState.SUSPENDED,
    KazooState.LOST: SessionState.LOST,
}


def _raise_failure(operations: Sequence[store.Operation], results: Sequence[Any]) -> None:
    """Raise for the operation that failed, not for those that were undone with it."""
    failures = [
        (index, one)
        for index, one in enumerate(results)
        if isinstance(one, Exception)
        and not isinstance(one, zk.RolledBackError | zk.RuntimeInconsistency)
    ]
    if failures:
        index, error = failures[0]
        raise _node_error(operations[index], index, error)
    if any(isinstance(one, Exception) for one in results):
        raise store.MetastoreUnavailable("ZooKeeper undid a write without saying why")


def _node_error(operation: store.Operation, index: int, error: Exception) -> Exception:
    """The contract's error for what ZooKeeper says of one operation."""
    path = operation.path
    if isinstance(error, zk.NoNodeError):
        missing = store.parent_of(path) if isinstance(operation, store.Create) else path
        return store.NoNode(missing, index)
    for kind, ours in _NODE_ERRORS.items():
        if isinstance(error, kind):
            return ours(path, index)
    if isinstance(error, zk.BadArgumentsError):
        return ValueError(f"illegal metastore path {path!r}")
    return store.MetastoreUnavailable(f"{path}: ZooKeeper refused the write: {error!r}")


_NODE_ERRORS: Final[dict[type[Exception], type[store.NodeError]]] = {
    zk.NodeExistsError: store.NodeExists,
    zk.BadVersionError: store.VersionConflict,
    zk.NotEmptyError: store.NotEmpty,
    zk.NoChildrenForEphemeralsError: store.EphemeralParent,
}


@asynccontextmanager
async def open_zookeeper(
    address: ZooKeeperAddress, clock: Clock
) -> AsyncIterator[ZooKeeperMetastore]:
    """Connect to an ensemble, keep the session while the block runs, end it on leaving.

    `clock` is what `session.lease_end_s` is measured on. Raises StartupError.
    """
    metastore = ZooKeeperMetastore(address, clock)
    try:
        await metastore.start()
        async with trio.open_nursery() as session_nursery:
            await session_nursery.start(metastore.run)
            yield metastore
            session_nursery.cancel_scope.cancel()
    finally:
        await metastore.close()
