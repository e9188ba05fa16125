"""A server with handlers of the test's own, and a client that speaks frames."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Self

import trio

from trioq.clock import Clock, SystemClock
from trioq.config import Listener
from trioq.metrics import Metrics
from trioq.server.context import Context, Gate, Request
from trioq.server.deadlines import Deadlines
from trioq.server.handlers.registry import Api, Kind, by_key
from trioq.server.limits import Limits
from trioq.server.server import Server
from trioq.server.slot import Slot
from trioq.wire.api_keys import ApiKey

ECHO = ApiKey.LIST_OFFSETS  # version 1: header version 1 in both directions
KEPT = ApiKey.FETCH  # version 4; the handler keeps its slot in `Handlers.kept`
BARRIER = ApiKey.CREATE_TOPICS  # version 2
TASK = ApiKey.DELETE_TOPICS  # version 1
BROKEN = ApiKey.DESCRIBE_CONFIGS  # version 1; raises
VERSIONS = {ECHO: 1, KEPT: 4, BARRIER: 2, TASK: 1, BROKEN: 1}


class Handlers:
    """What the test's APIs do, and what they saw."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, Slot]] = []
        self.seen: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.gate = trio.Event()

    def echo(self, _ctx: Context, request: Request, slot: Slot) -> None:
        body = bytes(request.body[request.position : request.end])
        self.seen.append(body)
        slot.complete_raw([body])

    def keep(self, _ctx: Context, request: Request, slot: Slot) -> None:
        body = bytes(request.body[request.position : request.end])
        self.seen.append(body)
        self.kept.append((body, slot))
        slot.on_cancel = lambda: self.cancelled.append(body)

    async def wait_for_gate(self, _ctx: Context, request: Request) -> Any:
        body = bytes(request.body[request.position : request.end])
        self.seen.append(body)
        await self.gate.wait()
        return RawResponse(body)

    def fail(self, _ctx: Context, _request: Request, _slot: Slot) -> None:
        raise ZeroDivisionError("a bug")

    def apis(self) -> Mapping[int, Api]:
        return by_key(
            [
                Api(ECHO, Kind.INLINE, barrier=False, handler=self.echo),
                Api(KEPT, Kind.INLINE, barrier=False, handler=self.keep),
                Api(BARRIER, Kind.INLINE, barrier=True, handler=self.echo),
                Api(TASK, Kind.TASK, barrier=True, handler=self.wait_for_gate),
                Api(BROKEN, Kind.INLINE, barrier=False, handler=self.fail),
            ]
        )


class RawResponse:
    """A response message with a body of the test's own."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def encode_into(self, out: bytearray, _parts: object, _version: int) -> None:
        out += self.body

    def encode_parts(self, _version: int) -> list[bytes]:
        return [self.body]


def request_bytes(
    api: int, body: bytes = b"", *, correlation_id: int = 1, version: int | None = None
) -> bytes:
    """A whole request frame with header version 1."""
    if version is None:
        version = VERSIONS[ApiKey(api)]
    frame = struct.pack(">hhih", api, version, correlation_id, 4) + b"test" + body
    return struct.pack(">i", len(frame)) + frame


class Client:
    """A connection that sends bytes and reads response frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def call(self, api: int, body: bytes = b"", *, correlation_id: int = 1) -> bytes:
        await self.send(request_bytes(api, body, correlation_id=correlation_id))
        answered, response = await self.response()
        assert answered == correlation_id
        return response

    async def response(self) -> tuple[int, bytes]:
        """Correlation id and body (header version 0) of the next response."""
        length = struct.unpack(">i", await self._exactly(4))[0]
        frame = await self._exactly(length)
        return struct.unpack(">i", frame[:4])[0], frame[4:]

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._received += data
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    async def is_closed(self) -> bool:
        """Wait until the server closes; False if it sends something instead."""
        try:
            return not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stream.aclose()


class Harness:
    """A running server, its handlers, and connections to it."""

    def __init__(self, server: Server, handlers: Handlers, port: int) -> None:
        self.server = server
        self.reactor = server.reactor
        self.handlers = handlers
        self.port = port
        self.clients: list[Client] = []
        self.host = server.listeners[0].host

    async def connect(self) -> Client:
        client = Client(await trio.open_tcp_stream(self.host, self.port))
        self.clients.append(client)
        return client

    def sweep(self) -> None:
        """What the sweeper does every second."""
        self.server._sweeper.sweep(list(self.reactor.connections))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until `condition()`; the test's own timeout is its limit."""
        with trio.fail_after(60):
            while not condition():
                await trio.lowlevel.checkpoint()


def context(end_of_pass: Iterable[Callable[[], bool]] = (), clock: Clock | None = None) -> Context:
    """A context with the parts that the server itself uses."""
    clock = clock or SystemClock()
    nothing: Any = None
    return Context(
        config=nothing,
        clock=clock,
        metrics=Metrics(),
        deadlines=Deadlines(clock),
        log_dirs=nothing,
        partitions=nothing,
        metastore=nothing,
        producer_ids=nothing,
        fetch_sessions=nothing,
        image_source=nothing,
        end_of_pass=list(end_of_pass),
    )


@contextlib.asynccontextmanager
async def serving(
    *,
    limits: Limits | None = None,
    apis: Mapping[int, Api] | None = None,
    end_of_pass: Iterable[Callable[[], bool]] = (),
    clock: Clock | None = None,
    host: str = "127.0.0.1",
    gate: Gate | None = None,
) -> AsyncIterator[Harness]:
    """A server on a free port of 127.0.0.1 for the length of the block."""
    handlers = Handlers()
    ctx = context(end_of_pass, clock)
    ctx.gate = gate
    server = Server(ctx, limits=limits or Limits(), apis=apis or handlers.apis())
    port = server.bind([Listener("PLAINTEXT", host, 0, host, 0)])[0].port
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            harness = Harness(server, handlers, port)
            try:
                yield harness
            finally:
                nursery.cancel_scope.cancel()
                for client in harness.clients:
                    client.stream.socket.close()
    assert server.reactor.connection_count == 0
    assert server.reactor.budget.used_bytes == 0
