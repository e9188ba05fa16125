"""The way from a fetcher to its leader as bytes: encoded, dispatched, handled, encoded, decoded."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import trio

from tests.sim.replica_world import Broker
from tests.unit.server_harness import context
from trioq.errors import PeerUnreachable
from trioq.server.connection import Connection
from trioq.server.context import Context
from trioq.server.fetch_sessions import FetchSessions
from trioq.server.handlers.registry import served_apis
from trioq.server.limits import Limits
from trioq.server.reactor import Reactor
from trioq.types import FileRegion
from trioq.wire.api_keys import request_api
from trioq.wire.framing import request_frame
from trioq.wire.header import response_body_position
from trioq.wire.schema import Message

OPEN = 0


class Serving:
    """What answers in one life of a broker: handlers and sessions over its partitions."""

    def __init__(self, broker: Broker) -> None:
        self.partitions = broker.partitions
        self.ctx: Context = context(clock=broker.world.clock)  # type: ignore[arg-type]
        self.ctx.config = broker.config
        self.ctx.partitions = broker.partitions
        self.ctx.fetch_sessions = FetchSessions(slots=10, eviction_s=120)
        self.ctx.image_source = _Image(broker)  # type: ignore[assignment]
        self.reactor = Reactor(self.ctx, served_apis(), Limits())
        self.sockets = socket.socketpair()

    def close(self) -> None:
        self.reactor.close()
        for one in self.sockets:
            one.close()


class _Image:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @property
    def image(self) -> Any:
        image = self._broker.image
        return SimpleNamespace(
            topics=image.topics, topics_by_id=image.topics_by_id, brokers=image.brokers
        )


class ServedChannel:
    """In place of FakeChannel. One connection, until a call fails."""

    is_receiving = False

    def __init__(self, origin: Broker, target: Broker, lives: dict[int, Serving]) -> None:
        self.origin, self.target = origin, target
        self.lives = lives
        self.serving: Serving | None = None
        self.connection: Connection | None = None
        self.correlation_id = 0

    def close(self) -> None:
        if self.connection is not None:
            self.connection.cancel_waiting()
            self.connection = None

    async def call(self, request: Message, *, api_version: int, timeout_s: float) -> Message:
        is_done = False
        try:
            with trio.fail_after(timeout_s):
                answer = await self._exchange(request, api_version)
            is_done = True
        except trio.TooSlowError:
            raise PeerUnreachable("no answer in time") from None
        finally:
            if not is_done:
                self.close()
        return answer

    async def _exchange(self, request: Message, version: int) -> Message:
        world, api = self.origin.world, request_api(type(request))
        world.calls.append((self.origin.broker_id, self.target.broker_id, request))
        await self._travel()
        self.correlation_id += 1
        parts = request_frame(api.key, version, self.correlation_id, "fetcher", request)
        data = bytearray(b"".join(bytes(one) for one in parts))  # type: ignore[arg-type]
        connection, serving = self._connected()
        reactor = serving.reactor
        reactor._in_pass = True
        reactor._receiver._dispatch_frames(connection, memoryview(data), 0, len(data))
        reactor._in_pass = False
        (entry,) = connection.ring
        while entry.state == OPEN:
            await trio.sleep(0.002)
            if not self.target.is_up or self.target.partitions is not serving.partitions:
                raise PeerUnreachable("the broker has ended")
            serving.ctx.deadlines.call_due(world.clock.monotonic_s())
        frame = bytearray(b"".join(map(_content, entry.parts)))
        entry.cancel()
        connection.ring.clear()
        await self._travel()
        view = memoryview(frame)[4:]
        position = response_body_position(api.key, version, view, 0, len(view))
        answer = api.response_class.decode(view, position, len(view), version)
        assert isinstance(answer, Message)
        return answer

    async def _travel(self) -> None:
        world = self.origin.world
        await trio.sleep(world.latency_s)
        if not self.target.is_up or world.is_cut(self.origin.broker_id, self.target.broker_id):
            raise PeerUnreachable(f"broker {self.target.broker_id} is not there")

    def _connected(self) -> tuple[Connection, Serving]:
        serving = self.lives.get(self.target.broker_id)
        if serving is None or serving.partitions is not self.target.partitions:
            if serving is not None:
                serving.close()
            serving = self.lives[self.target.broker_id] = Serving(self.target)
        if self.connection is None or self.serving is not serving:
            self.close()
            self.serving = serving
            self.connection = Connection(
                serving.reactor, serving.sockets[0], ("host", 1), "INSIDE", 0.0
            )
        return self.connection, serving


def _content(part: Any) -> bytes:
    if isinstance(part, FileRegion):
        shared: Any = part.file
        data: bytes = shared.file.pread(part.length, part.position)
        return data
    return bytes(part)
