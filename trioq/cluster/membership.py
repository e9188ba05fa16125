"""This broker's registration in the cluster: made at start, renewed after a lost session.

A renewal is a registration like the first: a new broker epoch, under which nothing is led until
the controller says so (SAFETY rule 6). It is made only while nobody else has registered under this
broker's id (rule 14); nothing on the disks was lost meanwhile, so it counts as a clean one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from trioq import logs
from trioq.metastore import store
from trioq.metastore.bootstrap import register_broker
from trioq.metastore.session import SessionState

if TYPE_CHECKING:
    from trioq.metastore.layout import BrokerRegistration
    from trioq.metastore.zookeeper import ZooKeeperMetastore

_log = logs.get_logger("trioq.cluster")

PATIENCE_SESSIONS: Final = 1.5
"""Session timeouts for which a restarted broker waits for its old session to end."""

_PAUSE_S: Final = 0.1


class Membership:
    """Keeps this broker registered; `run` is its life.

    `registration` is the one in force, None before the first; `on_registered(registration,
    generation)` is called, by a plain call, with each, and with the session's generation.
    """

    def __init__(
        self,
        metastore: ZooKeeperMetastore,
        describe: Callable[[], BrokerRegistration],
        on_registered: Callable[[BrokerRegistration, int], None],
    ) -> None:
        """`describe()` is what to register: its broker epoch and incarnation are not looked at."""
        self.registration: BrokerRegistration | None = None
        self._metastore = metastore
        self._describe = describe
        self._on_registered = on_registered
        self._incarnations: set[str] = set()
        self._changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Register, report started, then register again after each lost session.

        Runs until cancelled. Raises StartupError where the id belongs to another broker, and its
        branch RegistrationTaken where another one took it over.
        """
        while True:
            generation = await self._register()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self._metastore.session.ended(generation)
            _log.warning(
                "the session with the metastore ended; registering anew",
                broker=self._describe().broker_id,
                consequence="the partitions led here are led by others until then",
            )

    async def wait_other_than(self, registration: BrokerRegistration | None) -> BrokerRegistration:
        """Wait until `registration` is another than the argument; returns it."""
        while self.registration is None or self.registration is registration:
            await self._changed.wait()
        return self.registration

    async def _register(self) -> int:
        """Register in the present session, or in one that follows it; returns its generation."""
        session = self._metastore.session
        while True:
            generation = await session.connected()
            asked = self._describe()._replace(incarnation=secrets.token_hex(8))
            if self.registration is not None:
                asked = asked._replace(clean=True)
            own = frozenset(self._incarnations)
            self._incarnations.add(asked.incarnation)
            try:
                made = await self._register_in_session(asked, own, generation)
            except store.SessionLost:
                await session.ended(generation)
                continue
            if session.generation != generation or session.state is SessionState.LOST:
                continue  # in which session that was is not known; nobody was told of it
            self.registration = made
            # The epoch was compared: what was asked for earlier cannot be made any more.
            self._incarnations = {asked.incarnation}
            self._changed.set()
            self._changed = trio.Event()
            _log.info("registered", broker=made.broker_id, broker_epoch=made.broker_epoch)
            self._on_registered(made, generation)
            return generation

    async def _register_in_session(
        self, asked: BrokerRegistration, own: frozenset[str], generation: int
    ) -> BrokerRegistration:
        """Register, as often as it takes while the store does not answer.

        Raises SessionLost, also where another session than that of `generation` has begun: it is
        registered under an incarnation of its own, as one found may be of the old one.
        """
        renewing: frozenset[str] = frozenset()
        if self.registration is not None:
            renewing = own | {asked.incarnation}
        while True:
            try:
                return await register_broker(
                    self._metastore,
                    asked,
                    patience_s=PATIENCE_SESSIONS * self._metastore.session_timeout_s,
                    renewing=renewing,
                    own=own,
                )
            except (store.MetastoreUnavailable, store.OutcomeUnknown) as error:
                _log.warning("not registered yet; trying again", reason=str(error))
                await trio.sleep(_PAUSE_S)
                if await self._metastore.session.connected() != generation:
                    raise store.SessionLost(str(error)) from error
