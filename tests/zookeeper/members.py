"""Brokers without data: a session, a registration, an image and a controller each.

Several live in one process; each reaches ZooKeeper through a proxy of its own, which can fall
silent, as a network does.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioq.clock import Clock, SystemClock
from trioq.config import BrokerConfig
from trioq.controller.controller import Controller
from trioq.controller.topic_rules import NewTopic
from trioq.metastore import layout
from trioq.metastore.bootstrap import ensure_cluster, register_broker
from trioq.metastore.feed import ImageFollower
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.session import SessionState
from trioq.metastore.store import Metastore, SessionLost
from trioq.metastore.zookeeper import open_zookeeper
from trioq.metastore.zookeeper_address import ZooKeeperAddress

SESSION_S = 15.0
"""Long enough that no busy machine ends a session that nobody means to end."""

SHORT_SESSION_S = 4.0
PATIENCE_S = 60.0


class Proxy:
    """Forwards TCP to `port` of this host, unless it is silent or cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = -1
        self._heard = trio.Event()
        self._heard.set()
        self._streams: set[trio.SocketStream] = set()
        self.is_cut = False

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as proxy_nursery:
            listeners = await proxy_nursery.start(
                trio.serve_tcp,
                self._serve,
                0,  # every address of this host
            )
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()
            await trio.sleep_forever()

    def fall_silent(self) -> None:
        """Keep everything that arrives from now on."""
        if self._heard.is_set():
            self._heard = trio.Event()

    def speak(self) -> None:
        self._heard.set()

    def cut(self) -> None:
        """Break the connections, and refuse new ones."""
        self.is_cut = True
        for stream in self._streams:
            trio.lowlevel.notify_closing(stream.socket)
            stream.socket.close()

    def mend(self) -> None:
        self.is_cut = False

    async def _serve(self, client: trio.SocketStream) -> None:
        if self.is_cut:
            await client.aclose()
            return
        server = await trio.open_tcp_stream("127.0.0.1", self._to)
        self._streams |= {client, server}
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
                nursery.start_soon(self._pump, server, client, nursery.cancel_scope)
        finally:
            self._streams -= {client, server}
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)
                await trio.aclose_forcefully(server)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await self._heard.wait()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


class Member:
    """One broker; `kill` ends its session without a goodbye to the others' controller."""

    def __init__(
        self,
        metastore: Metastore,
        follower: ImageFollower,
        controller: Controller,
        registration: layout.BrokerRegistration,
        proxy: Proxy,
    ) -> None:
        self.metastore = metastore
        self.follower = follower
        self.controller = controller
        self.registration = registration
        self.proxy = proxy
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    @property
    def broker_id(self) -> int:
        return self.registration.broker_id

    @property
    def image(self) -> ClusterImage:
        return self.follower.image

    def topic(self, name: str) -> TopicImage:
        return self.image.topics[name]

    async def until(self, holds: Callable[[ClusterImage], object]) -> ClusterImage:
        """Wait until the image is such; fails after PATIENCE_S."""
        with trio.fail_after(PATIENCE_S):
            image = self.follower.image
            while not holds(image):
                image = await self.follower.wait_for_swap(image)
            return image

    async def stop(self) -> None:
        """End its session at once, as a process that stops does."""
        self.scope.cancel()
        await self.ended.wait()


class World:
    """A cluster's brokers, over one ZooKeeper server and one chroot."""

    def __init__(
        self,
        port: int,
        chroot: str,
        nursery: trio.Nursery,
        *,
        clock: Clock | None = None,
        session_s: float = SESSION_S,
    ) -> None:
        self.port = port
        self.chroot = chroot
        self.clock = clock or SystemClock()
        self.session_s = session_s
        self.members: dict[int, Member] = {}
        self._nursery = nursery

    async def join(
        self,
        broker_id: int,
        *,
        clean: bool = True,
        directory: str = "",
        rack: str | None = None,
        config: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Member:
        """Start a broker; returns when its controller stands for election."""
        member: Member = await self._nursery.start(
            self._live,
            layout.BrokerRegistration(
                broker_id=broker_id,
                broker_epoch=-1,
                rack=rack,
                endpoints={"PLAINTEXT": ("localhost", 9092 + broker_id)},
                directory_ids=(directory or f"dir-{broker_id}",),
                host="host",
                incarnation=f"{broker_id}-{uuid.uuid4()}",
                clean=clean,
            ),
            BrokerConfig.from_mapping({"node.id": str(broker_id), **(config or {})}),
            options,
        )
        self.members[broker_id] = member
        return member

    async def _live(
        self,
        registration: layout.BrokerRegistration,
        config: BrokerConfig,
        options: dict[str, Any],
        *,
        task_status: Any,
    ) -> None:
        proxy = Proxy(self.port)
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            address = ZooKeeperAddress(
                f"127.0.0.1:{proxy.port}", self.chroot, session_timeout_s=self.session_s
            )
            async with open_zookeeper(address, self.clock) as metastore:
                await ensure_cluster(metastore, slots=4)
                registration = await register_broker(metastore, registration)
                follower = ImageFollower(metastore, coalesce_s=0.010)
                controller = Controller(
                    metastore,
                    follower,
                    config=config,
                    clock=self.clock,
                    broker_id=registration.broker_id,
                    session_timeout_s=self.session_s,
                    **options,
                )
                member = Member(metastore, follower, controller, registration, proxy)
                with member.scope:
                    async with trio.open_nursery() as member_nursery:
                        await member_nursery.start(self._follow, member)
                        member_nursery.start_soon(self._control, member)
                        task_status.started(member)
            member.ended.set()
            nursery.cancel_scope.cancel()

    async def _follow(self, member: Member, *, task_status: Any) -> None:
        session = member.metastore.session
        while True:
            try:
                await member.follower.run(task_status=task_status)
            except* SessionLost:
                task_status = trio.TASK_STATUS_IGNORED
            await session.changed_from(SessionState.LOST)

    async def _control(self, member: Member) -> None:
        session = member.metastore.session
        while True:
            await member.controller.run(member.registration.broker_epoch)
            await session.changed_from(SessionState.LOST)
            member.registration = await register_broker(member.metastore, member.registration)

    def live(self) -> list[Member]:
        return [one for one in self.members.values() if not one.ended.is_set()]

    async def controller(self, *, other_than: Member | None = None) -> Member:
        """The member whose controller is active, once there is one."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for member in self.live():
                    if member is not other_than and member.controller.is_active:
                        return member
                await trio.sleep(0.005)

    async def create(self, *topics: NewTopic) -> list[TopicImage]:
        member = await self.controller()
        admin = member.controller.admin
        assert admin is not None
        created = await admin.create_topics(topics)
        assert [one.error for one in created] == [None] * len(topics)
        return [member.topic(one.name) for one in topics]


@asynccontextmanager
async def world_of(port: int, chroot: str, **options: Any) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(port, chroot, nursery, **options)
        yield world
        nursery.cancel_scope.cancel()
