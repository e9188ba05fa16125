"""One broker as a member of a cluster: what it has beside the parts of a single one.

membership     its registration, and the next one after a lost session
pulse          the loop's gate and watchdog
isr_keeper     in-sync replicas of what is led here
fetchers       copy what others lead
controller     stands for election while registered
forwarder      passes on to the controller what is for the controller
handover       gives leaderships away before it stops
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioq import logs
from trioq.cluster.forwarding import Forwarder, RoutedAdmin
from trioq.cluster.handover import Handover
from trioq.cluster.log_ends import ask_log_ends
from trioq.cluster.membership import Membership
from trioq.cluster.pulse import Pulse
from trioq.controller.controller import Controller
from trioq.errors import StartupError
from trioq.metastore.image_audit import ImageAudit
from trioq.metastore.store import NoNode, SessionLost
from trioq.net.peer import Peers
from trioq.replication.fetchers import ReplicaFetchers, ReplicationGauges
from trioq.replication.isr_keeper import IsrKeeper
from trioq.supervise import supervise

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.coordinator.service import GroupService
    from trioq.metastore.feed import ImageFollower
    from trioq.metastore.image import ClusterImage
    from trioq.metastore.layout import BrokerRegistration
    from trioq.metastore.zookeeper import ZooKeeperMetastore
    from trioq.server.context import Context

_log = logs.get_logger("trioq.cluster")


class Member:
    """The parts, and the tasks that the broker nests; see broker.py for the order."""

    def __init__(
        self,
        metastore: ZooKeeperMetastore,
        follower: ImageFollower,
        context: Context,
        groups: GroupService,
        describe: Callable[[], BrokerRegistration],
    ) -> None:
        """`describe()` is what to register: broker epoch and incarnation are filled in."""
        config, clock = context.config, context.clock
        self._terms_led = 0
        self._metastore = metastore
        self._follower = follower
        self._context = context
        self._groups = groups
        self._listener_name = config.inter_broker_listener
        self.membership = Membership(metastore, describe, self._registered)
        self.pulse = Pulse(metastore, follower, clock)
        self.peers = Peers(self._address_of, client_id=f"trioq-broker-{config.node_id}")
        self.controller = Controller(
            metastore,
            follower,
            config=config,
            clock=clock,
            broker_id=config.node_id,
            session_timeout_s=metastore.session_timeout_s,
            ask_log_ends=partial(ask_log_ends, self.peers),
        )
        self.isr_keeper = IsrKeeper(
            metastore,
            context.partitions,
            lambda: follower.image,
            clock,
            lambda: context.config,
            self.pulse,
        )
        self.fetchers = ReplicaFetchers(context.partitions, self.peers, lambda: context.config)
        self._fetching = trio.CancelScope()
        forwarder = Forwarder(config.node_id, self.controller, self.peers, follower)
        context.topic_admin = RoutedAdmin(self.controller, forwarder)
        context.controller = self.controller
        context.forward = forwarder.forward
        context.gate = self.pulse
        groups.slots.use_pulse(self.pulse.is_behind)
        context.metrics.register("controller", self.controller.counters)
        context.metrics.register("isr", self.isr_keeper.counters)
        context.metrics.register("fetchers", self.fetchers.counters)
        context.metrics.register(
            "replication", ReplicationGauges(context.partitions, self.fetchers)
        )

    # ---- the tasks, in the order in which they are started

    async def follow_feed(
        self, *, task_status: trio.TaskStatus[ClusterImage] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the feed in one session after the other; started when it was loaded first."""
        session = self._metastore.session
        while True:
            generation = await session.connected()
            try:
                await self._metastore.sync()
                await self._follower.run(task_status=task_status)
            except* SessionLost:
                pass
            except* NoNode as missing:
                raise StartupError(
                    f"{self._metastore.address.described()} holds no cluster any more "
                    f"({missing.exceptions[0]} is missing): it was emptied, or another one answers "
                    "there. This broker stops"
                ) from missing
            await session.ended(generation)

    async def replicate(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Copy what others lead, and keep the in-sync replicas of what is led here true.

        Runs until cancelled. Copying begins with the first registration, as before that nothing
        that this broker states to a leader counts, and ends with `hand_over`.
        """
        async with trio.open_nursery() as isr_nursery:
            await isr_nursery.start(self.isr_keeper.run)
            isr_nursery.start_soon(self._context.producer_ids.keep_reserve)
            task_status.started()
            with self._fetching:
                await self.membership.wait_other_than(None)
                await self.fetchers.run()

    async def hand_over(self) -> None:
        """Before the end, while clients are served still: give away what is led here.

        From now on this broker follows nobody, so that no leader takes it for in sync again.
        """
        self._fetching.cancel()
        config, registration = self._context.config, self.membership.registration
        if config.controlled_shutdown_enable and registration is not None:
            handover = Handover(self.controller, self.peers, self._follower, self._metastore)
            timeout_s = config.controlled_shutdown_max_wait_ms / 1000
            await handover.run(registration, timeout_s=timeout_s)

    async def control(self) -> None:
        """Stand for election, and be the controller when elected; for each registration."""
        registration: BrokerRegistration | None = None
        audit = ImageAudit(self._metastore, self._follower)
        while True:
            registration = await self.membership.wait_other_than(registration)
            async with trio.open_nursery() as controller_nursery:
                controller_nursery.start_soon(audit.run)
                stand = partial(self.controller.run, registration.broker_epoch)
                controller_nursery.start_soon(supervise, "controller", stand)
                await self.membership.wait_other_than(registration)
                controller_nursery.cancel_scope.cancel()

    # ---- called by the broker

    def follow(self, before: ClusterImage, after: ClusterImage) -> None:
        """The image was swapped, and the partitions follow it."""
        if before.brokers is not after.brokers:
            for broker_id in before.brokers.keys() | after.brokers.keys():
                if before.brokers.get(broker_id) != after.brokers.get(broker_id):
                    self.peers.forget(broker_id)
                    self._tell_of_listener(broker_id, after)
        self.fetchers.follow(before, after)
        terms_led, replica_fetches = (
            self._context.partitions.terms_led,
            self._context.replica_fetches,
        )
        if terms_led != self._terms_led:
            self._terms_led = terms_led
            if replica_fetches is not None:
                replica_fetches.hurry()

    def use_config(self, config: BrokerConfig) -> None:
        """Take changed values of the configuration."""
        self.controller.use_config(config)

    def close(self) -> None:
        """Nothing is running any more."""
        self.peers.close()

    # ----

    def _registered(self, registration: BrokerRegistration, generation: int) -> None:
        self._context.partitions.use_broker_epoch(registration.broker_epoch)
        self.fetchers.refresh()
        self._groups.use_broker_epoch(registration.broker_epoch, generation=generation)

    def _tell_of_listener(self, broker_id: int, image: ClusterImage) -> None:
        """Log that a broker was started with other listeners than this one."""
        broker = image.brokers.get(broker_id)
        if broker is not None and self._listener_name not in broker.endpoints:
            _log.error(
                "a broker cannot be reached by this one",
                broker=broker_id,
                its_listeners=list(broker.endpoints),
                needed=self._listener_name,
                do="give each broker that listener, or correct inter.broker.listener.name",
            )

    def _address_of(self, broker_id: int) -> tuple[str, int] | None:
        broker = self._follower.image.brokers.get(broker_id)
        return None if broker is None else broker.endpoints.get(self._listener_name)
