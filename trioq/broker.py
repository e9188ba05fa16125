"""One broker: its parts are built here, its nurseries nested, its end drained.

    root_nursery                   anything escaping ends the process, exit 70
    ├ signals                      SIGTERM/SIGINT: drain; a second one: cancel
    └ metastore_nursery            the feed's follower                          [supervised]
      │                            in a cluster: the pulse, and once the rest runs the membership
      └ storage_nursery            log writers, retention, checkpoints
        └ replication_nursery      in a cluster: fetchers, changes of the in-sync replicas
          └ coordinator_nursery    groups: a writer per coordination slot that has work, upkeep
            │                      in a cluster: the controller
            └ server_nursery       reactor, deadlines, listeners, connections

Indentation is nesting of `async with`, so the shutdown order is the code's shape. What only a
broker of a cluster has is in trioq.cluster, which a single broker does not import.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from trioq.clock import BootClock, Clock, SystemClock
from trioq.config import BrokerConfig
from trioq.controller.producer_ids import ProducerIds
from trioq.controller.takeover import take_over_alone
from trioq.controller.topics import TopicAdmin
from trioq.coordinator.service import GroupService
from trioq.errors import ConfigError, StartupError
from trioq.logs import get_logger
from trioq.metastore.bootstrap import ensure_cluster, register_broker
from trioq.metastore.embedded import open_embedded
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage
from trioq.metastore.layout import BrokerRegistration
from trioq.metastore.store import Metastore
from trioq.metrics import Metrics
from trioq.replication.partitions import Partitions
from trioq.server.context import Context
from trioq.server.deadlines import Deadlines
from trioq.server.fetch_sessions import FetchSessions
from trioq.server.limits import most_log_files
from trioq.server.server import Server
from trioq.storage.compactor import CompactionLimits
from trioq.storage.disk import Disk, DiskLock, OsDisk
from trioq.storage.log_dir_files import lock_directory
from trioq.storage.log_dirs import LogDirs
from trioq.storage.log_services import LogServices
from trioq.supervise import start_supervised
from trioq.types import TopicPartition

if TYPE_CHECKING:
    from trioq.cluster.member import Member
    from trioq.metastore.zookeeper import ZooKeeperMetastore

METASTORE_FILE = "metastore.sqlite"
COALESCE_S = 0.010
"""How long a broker of a cluster gathers changes of the feed before it reads them."""

FETCH_SESSION_EVICTION_S = 120.0
"""A session idle for so long gives up its slot when another needs it (KIP-227)."""

log = get_logger("trioq.broker")


class StoppedAtStart(StartupError):
    """The broker was told to stop before it had started; nothing is wrong."""


class Broker:
    """A broker in this process; `run` is its life.

    It touches neither signal handlers nor other settings of the process, so that several may
    live in one process. `server` and `context` are there when `run` has reported started.
    """

    server: Server
    context: Context

    def __init__(
        self, config: BrokerConfig, *, clock: Clock | None = None, disk: Disk | None = None
    ) -> None:
        self.config = config
        self._clock: Clock = clock or (BootClock() if config.is_clustered else SystemClock())
        self._disk: Disk = disk or OsDisk()
        self._stop = trio.Event()
        self._starting: trio.CancelScope | None = None
        self._is_sound = False
        """The logs were recovered, where they had to be."""
        self._was_clean = False
        self._member: Member | None = None

    def stop(self) -> None:
        """Begin to drain: `run` returns when everything is stopped and closed.

        While it starts still, `run` raises StoppedAtStart instead.
        """
        self._stop.set()
        if self._starting is not None:
            self._starting.cancel()

    @property
    def is_stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stop.is_set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start, report started, serve until `stop`, drain.

        Cancelled: connections are dropped, but the logs are closed in order (what is written
        is synced, and the clean-shutdown mark is set).

        Raises:
            StartupError: the broker refuses to start; the message says what to do.
            StoppedAtStart: `stop` was called before it had started.
        """
        with trio.CancelScope() as self._starting:
            if self.is_stopping:
                self._starting.cancel()
            await self._run(task_status)
            return
        raise StoppedAtStart("told to stop before it had started")

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        paths = [os.path.abspath(path) for path in self.config.log_dirs]  # noqa: PTH100, ASYNC240  no I/O
        # Before the metastore, so that a second broker is told who holds the directory.
        locks = {paths[0]: self._lock(paths[0])}
        try:
            async with self._open_metastore(paths[0]) as metastore:
                cluster_id = await ensure_cluster(metastore, slots=self.config.coordination_slots)
                log_dirs = self._open_logs(paths, cluster_id, locks)
                locks.clear()
                is_clean = False
                try:
                    await self._run_parts(log_dirs, metastore, task_status)
                    is_clean = True
                except BaseException as error:
                    is_clean = self._is_sound and _is_orderly(error)
                    raise
                finally:
                    # After a bug nobody vouches for the logs: the next start checks them.
                    is_clean = is_clean and self._is_accounted_for()
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(partial(log_dirs.close, clean=is_clean))
        finally:
            for lock in locks.values():
                lock.release()

    def _is_accounted_for(self) -> bool:
        """Whether the cluster knows of an unclean stop before this start, if there was one.

        If it does not, this stop must not pass for a clean one: the next registration would say
        that nothing is missing of what this broker held in its last (rule 6 of SAFETY).
        """
        if self._was_clean or not self.config.is_clustered:
            return True
        return self._member is not None and self._member.membership.registration is not None

    def _open_metastore(self, data_dir: str) -> AbstractAsyncContextManager[Metastore]:
        if not self.config.is_clustered:
            return open_embedded(Path(data_dir) / METASTORE_FILE)
        from trioq.cluster.connect import connect  # noqa: PLC0415  for clusters only

        return connect(self.config, self._clock)

    def _lock(self, path: str) -> DiskLock:
        try:
            return lock_directory(self._disk, path)
        except OSError as error:
            raise StartupError(
                f"the data directory {path} cannot be used: {error.strerror or error}; choose "
                "another with --data-dir, or mend its permissions"
            ) from error

    def _open_logs(self, paths: list[str], cluster_id: str, locks: dict[str, DiskLock]) -> LogDirs:
        config = self.config
        return LogDirs.open(
            paths,
            cluster_id=cluster_id,
            node_id=config.node_id,
            disk=self._disk,
            clock=self._clock,
            max_open_files=most_log_files(config),
            locks=locks,
        )

    async def _run_parts(
        self, log_dirs: LogDirs, metastore: Metastore, task_status: trio.TaskStatus[None]
    ) -> None:
        """Build and nest the parts; see the module's docstring."""
        recovered = 0
        was_clean = self._was_clean = all(one.was_clean for one in log_dirs.dirs)
        if not was_clean:
            recovered = await trio.to_thread.run_sync(log_dirs.recover)
        self._is_sound = True
        partitions = Partitions(log_dirs, self.config)
        follower = ImageFollower(
            metastore,
            on_swap=partial(self._follow, partitions),
            coalesce_s=COALESCE_S if self.config.is_clustered else 0.0,
        )
        context = self._context(log_dirs, metastore, partitions, follower)
        groups = self._groups = GroupService(
            metastore,
            config=self.config,
            clock=self._clock,
            deadlines=context.deadlines,
            image=lambda: follower.image,
            log_end=None if was_clean or self.config.is_clustered else partitions.log_end,
        )
        context.groups = groups.coordinator_at_first_use()
        context.metrics.register("slots", groups.slots.counters)
        context.metrics.register("metastore", follower.gauges)
        server = Server(context)
        self.server, self.context = server, context
        server.bind(self.config.endpoints())
        try:
            describe = partial(self._registration, log_dirs, server)
            if self.config.is_clustered:
                member = self._member = self._make_member(metastore, follower, describe)
                follow_feed: Callable[..., Awaitable[object]] = member.follow_feed
            else:
                await self._take_over_alone(metastore, follower, describe())
                follow_feed = follower.run
            async with trio.open_nursery() as metastore_nursery:
                await metastore_nursery.start(start_supervised, "feed follower", follow_feed)
                self._settle_logs(log_dirs, follower.image, recovered)
                await self._run_services(log_dirs, metastore_nursery, task_status)
                metastore_nursery.cancel_scope.cancel()
        finally:
            server.close_listeners()
            if self._member is not None:
                self._member.close()

    async def _run_services(
        self,
        log_dirs: LogDirs,
        metastore_nursery: trio.Nursery,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Start what serves, from the disks up to the clients; end it in the opposite order."""
        member, groups = self._member, self._groups
        if member is not None:
            await metastore_nursery.start(member.pulse.run)
        async with trio.open_nursery() as storage_nursery:
            await storage_nursery.start(partial(log_dirs.run, self._log_services()))
            async with trio.open_nursery() as replication_nursery:
                if member is not None:
                    await replication_nursery.start(member.replicate)
                async with trio.open_nursery() as coordinator_nursery:
                    await coordinator_nursery.start(groups.run)
                    if member is not None:
                        await metastore_nursery.start(member.membership.run)
                        coordinator_nursery.start_soon(member.control)
                    await self._serve(task_status)
                    coordinator_nursery.cancel_scope.cancel()
                replication_nursery.cancel_scope.cancel()
            storage_nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Serve clients until told to stop, then drain."""
        async with trio.open_nursery() as server_nursery:
            await server_nursery.start(self.server.run)
            self._starting = None
            task_status.started()
            await self._stop.wait()
            if self._member is not None:
                await self._member.hand_over()
            self._groups.begin_stop()
            await self.server.drain(self.config.shutdown_drain_timeout_ms / 1000)
            await self._groups.finish_stop()
            server_nursery.cancel_scope.cancel()

    def _make_member(
        self,
        metastore: Metastore,
        follower: ImageFollower,
        describe: Callable[[], BrokerRegistration],
    ) -> Member:
        from trioq.cluster.member import Member  # noqa: PLC0415  for clusters only

        return Member(
            cast("ZooKeeperMetastore", metastore), follower, self.context, self._groups, describe
        )

    async def _take_over_alone(
        self, metastore: Metastore, follower: ImageFollower, registration: BrokerRegistration
    ) -> None:
        """Be all there is of the cluster: its one broker, its controller, leader of everything."""
        registration = await register_broker(metastore, registration)
        broker_id, broker_epoch = registration.broker_id, registration.broker_epoch
        chain = await take_over_alone(metastore, broker_id, broker_epoch)
        self.context.topic_admin = TopicAdmin(chain, follower, self.config)
        self.context.partitions.use_broker_epoch(broker_epoch)
        self._groups.use_broker_epoch(broker_epoch)

    def _context(
        self,
        log_dirs: LogDirs,
        metastore: Metastore,
        partitions: Partitions,
        follower: ImageFollower,
    ) -> Context:
        config = self.config
        return Context(
            config=config,
            clock=self._clock,
            metrics=Metrics(),
            deadlines=Deadlines(self._clock),
            log_dirs=log_dirs,
            partitions=partitions,
            metastore=metastore,
            producer_ids=ProducerIds(metastore),
            fetch_sessions=FetchSessions(
                slots=config.max_incremental_fetch_session_cache_slots,
                eviction_s=FETCH_SESSION_EVICTION_S,
            ),
            image_source=follower,
            end_of_pass=[log_dirs.end_pass],
        )

    def _registration(self, log_dirs: LogDirs, server: Server) -> BrokerRegistration:
        """Who is here, and at which addresses: those of the bound ports."""
        ports = {bound.listener.name: bound.port for bound in server.listeners}
        endpoints = {
            one.name: (one.advertised_host, one.advertised_port or ports[one.name])
            for one in self.config.endpoints()
        }
        return BrokerRegistration(
            broker_id=self.config.node_id,
            broker_epoch=-1,
            rack=self.config.broker_rack,
            endpoints=endpoints,
            directory_ids=tuple(str(one.directory_id) for one in log_dirs.dirs),
            host=socket.gethostname(),
            incarnation=secrets.token_hex(8),
            clean=all(one.was_clean for one in log_dirs.dirs),
        )

    def _settle_logs(self, log_dirs: LogDirs, image: ClusterImage, recovered: int) -> None:
        """The image is complete: set aside what it does not know, learn what recovery saw."""
        assigned = {
            TopicPartition(topic.name, number): topic.topic_id
            for topic in image.topics.values()
            for number, state in enumerate(topic.partitions)
            if self.config.node_id in state.replicas
        }
        log_dirs.set_aside_strays(assigned, undecided=image.unreadable_topics())
        if recovered:
            seen = [one.producers.max_producer_id() for one in log_dirs if one.segments.exists]
            self.context.producer_ids.raise_above(max(seen, default=-1))

    def _log_services(self) -> LogServices:
        config = self.config
        return LogServices(
            retention_check_interval_ms=config.log_retention_check_interval_ms,
            checkpoint_interval_ms=config.log_flush_offset_checkpoint_interval_ms,
            producer_id_expiration_ms=config.producer_id_expiration_ms,
            stray_retention_ms=config.stray_retention_ms,
            compaction=CompactionLimits(
                backoff_ms=config.log_cleaner_backoff_ms,
                dedupe_buffer_bytes=config.log_cleaner_dedupe_buffer_size // len(config.log_dirs),
                io_bytes_per_second=config.log_cleaner_io_max_bytes_per_second,
            ),
        )

    def _follow(self, partitions: Partitions, before: ClusterImage, after: ClusterImage) -> None:
        """The image was swapped: dynamic configuration first, then the partitions."""
        if before.broker_configs != after.broker_configs:
            self._use_dynamic_config(partitions, before, after)
        partitions.apply_image(before, after)
        self._groups.follow(before, after)
        if self._member is not None:
            self._member.follow(before, after)

    def _use_dynamic_config(
        self, partitions: Partitions, before: ClusterImage, after: ClusterImage
    ) -> None:
        overrides = {
            **after.broker_configs.get("", {}),
            **after.broker_configs.get(str(self.config.node_id), {}),
        }
        try:
            config = self.config.replace(overrides)
        except ConfigError as error:
            log.error("dynamic configuration is not used", reason=str(error))
            return
        self.context.config = config
        if self._member is not None:
            self._member.use_config(config)
        else:
            self.context.topic_admin.use_config(config)
        partitions.use_config(config, before)


def _is_orderly(error: BaseException) -> bool:
    """Whether `error` is nothing but a stop or a refusal: then the logs are as they should be."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_orderly, error.exceptions))
    return isinstance(error, trio.Cancelled | StartupError)
