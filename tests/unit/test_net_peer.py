"""Calls between brokers over real sockets, and what hostile or dying peers do to them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from trioq.errors import PeerUnreachable
from trioq.net.peer import Peers
from trioq.net.peer_connection import FIRST_BUFFER_BYTES, SMALL_ANSWERS, name_of
from trioq.wire.api_keys import APIS, ApiKey, request_api
from trioq.wire.framing import request_frame, response_frame
from trioq.wire.header import decode_request_header
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponsePartition,
    FetchResponseTopic,
)
from trioq.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

Behaviour = Callable[[trio.SocketStream, bytes], Awaitable[None]]
HEARTBEAT = HeartbeatRequest(group_id="g", member_id="m", generation_id=3)


class Server:
    """Frames in, one behaviour per frame; counts what it saw."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.connections = 0
        self.frames: list[bytes] = []
        self.address = ("", 0)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                while True:
                    frame = await read_frame(stream)
                    if frame is None:
                        return
                    self.frames.append(frame)
                    await self.behaviour(stream, frame)


async def read_frame(stream: trio.SocketStream) -> bytes | None:
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">i", data[:4])[0]:
        more = await stream.receive_some(65536)
        if not more:
            return None
        data += more
    return data[4:]


@contextlib.asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[Server]:
    server = Server(behaviour)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(
                server.serve, 0, host="127.0.0.1", task_status=task_status
            )
        )
        server.address = listeners[0].socket.getsockname()[:2]
        yield server
        nursery.cancel_scope.cancel()


def peers_of(*servers: Server, **options: object) -> Peers:
    addresses = {number: server.address for number, server in enumerate(servers, 1)}
    return Peers(addresses.get, client_id="broker-9", **options)  # type: ignore[arg-type]


def header_of(frame: bytes):
    return decode_request_header(memoryview(frame), 0, len(frame))


def answer_to(frame: bytes, throttle_ms: int = 7) -> bytes:
    header = header_of(frame)
    response = HeartbeatResponse(throttle_time_ms=throttle_ms, error_code=27)
    return b"".join(
        response_frame(header.api_key, header.api_version, header.correlation_id, response)
    )


async def answer(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(answer_to(frame))


@pytest.mark.trio
async def test_a_call_brings_the_answer_and_keeps_its_connection() -> None:
    async with serving(answer) as server:
        peers = peers_of(server)
        for version in (0, 4, 4):
            response = await peers.call(1, HEARTBEAT, api_version=version, timeout_s=5)
            assert isinstance(response, HeartbeatResponse)
            assert response.error_code == 27
        assert server.connections == 1
        header = header_of(server.frames[2])
        assert header.client_id == "broker-9"
        body = HeartbeatRequest.decode(
            memoryview(server.frames[2]), header.position, len(server.frames[2]), 4
        )
        assert body == HEARTBEAT
        peers.close()


@pytest.mark.trio
async def test_a_forwarded_request_keeps_its_correlation_id() -> None:
    async with serving(answer) as server:
        peers = peers_of(server)
        frame = b"".join(request_frame(ApiKey.HEARTBEAT, 4, 0x7F00AA55, "kcat", HEARTBEAT))[4:]
        for _ in range(2):
            got = await peers.forward(1, memoryview(frame), timeout_s=5)
            assert got == answer_to(frame)[4:]
        assert header_of(server.frames[0]).client_id == "kcat"
        ids = [header_of(seen).correlation_id for seen in server.frames]
        assert len(set(ids)) == 2
        peers.close()


@pytest.mark.trio
async def test_calls_at_once_take_connections_up_to_the_bound() -> None:
    arrived: list[bytes] = []
    go_on = trio.Event()

    async def hold(stream: trio.SocketStream, frame: bytes) -> None:
        arrived.append(frame)
        await go_on.wait()
        await answer(stream, frame)

    async with serving(hold) as server:
        peers = peers_of(server, max_connections=2)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: peers.call(1, HEARTBEAT, api_version=4, timeout_s=20))
            while len(arrived) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(arrived) == 2
            go_on.set()
        assert len(arrived) == 5
        assert server.connections == 2
        peers.close()


@pytest.mark.trio
async def test_a_connection_that_the_peer_closed_is_made_anew() -> None:
    async def answer_and_close(stream: trio.SocketStream, frame: bytes) -> None:
        await answer(stream, frame)
        await stream.aclose()

    async with serving(answer_and_close) as server:
        peers = peers_of(server)
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        route = peers._routes[1]
        while route.idle[0].is_usable():
            await trio.sleep(0)
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        assert server.connections == 2
        peers.close()


@pytest.mark.trio
async def test_a_peer_that_moved_is_asked_where_it_is_now() -> None:
    async with serving(answer) as old, serving(answer) as new:
        addresses = {1: old.address}
        peers = Peers(addresses.get, client_id="b")
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        addresses[1] = new.address
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        assert (len(old.frames), len(new.frames)) == (1, 1)
        peers.close()


async def silent(stream: trio.SocketStream, frame: bytes) -> None:
    await trio.sleep_forever()


async def garbage(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def other_correlation_id(stream: trio.SocketStream, frame: bytes) -> None:
    whole = answer_to(frame)
    await stream.send_all(whole[:4] + struct.pack(">i", 99) + whole[8:])


async def half(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(answer_to(frame)[:-3])
    await trio.sleep_forever()


async def cut_off(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(answer_to(frame)[:-3])
    await stream.aclose()


async def body_too_short(stream: trio.SocketStream, frame: bytes) -> None:
    whole = answer_to(frame)[4:-2]
    await stream.send_all(struct.pack(">i", len(whole)) + whole)


async def only_a_correlation_id(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(struct.pack(">i", 4) + frame[4:8])


async def tags_without_end(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(struct.pack(">i", 10) + frame[4:8] + b"\xff\xff\xff\xff\xff\xff")


async def more_than_asked(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(answer_to(frame) + b"more")


async def claims_much(stream: trio.SocketStream, frame: bytes) -> None:
    await stream.send_all(struct.pack(">i", 15 << 20) + frame[4:8] + b"\0" * 100)
    await stream.aclose()


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (silent, "did not answer Heartbeat within 0.2 s"),
        (half, "did not answer Heartbeat within 0.2 s"),
        (garbage, "frame of 1213486160 bytes"),
        (other_correlation_id, "answered request 99, not 1"),
        (cut_off, "closed the connection before it had answered"),
        (body_too_short, "answered Heartbeat with bytes that make no sense"),
        (only_a_correlation_id, "make no sense"),
        (tags_without_end, "make no sense"),
        (more_than_asked, "4 bytes that nobody asked for"),
        (claims_much, "closed the connection before it had answered"),
    ],
)
@pytest.mark.trio
async def test_a_peer_that_misbehaves_loses_its_connection(behaviour: Behaviour, says: str) -> None:
    async with serving(behaviour) as server:
        peers = peers_of(server)
        with pytest.raises(PeerUnreachable, match=says):
            await peers.call(1, HEARTBEAT, api_version=4, timeout_s=0.2)
        assert not peers._routes[1].idle
        server.behaviour = answer
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        assert server.connections == 2
        peers.close()


@pytest.mark.trio
async def test_a_cancelled_call_takes_its_connection_along() -> None:
    async with serving(silent) as server:
        peers = peers_of(server)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: peers.call(1, HEARTBEAT, api_version=4, timeout_s=60))
                while not server.frames:
                    await trio.sleep(0)
                scope.cancel()
        server.behaviour = answer
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        assert server.connections == 2
        peers.close()


@pytest.mark.trio
async def test_brokers_that_are_not_there(autojump_clock: trio.testing.MockClock) -> None:
    peers = Peers({}.get, client_id="b")
    with pytest.raises(PeerUnreachable, match="broker 4 is not registered"):
        await peers.call(4, HEARTBEAT, api_version=4, timeout_s=5)
    with pytest.raises(PeerUnreachable, match="broker 4 is not registered"):
        await peers.forward(4, b"\0" * 20, timeout_s=5)


@pytest.mark.trio
async def test_attempts_to_connect_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with serving(answer) as server:
        monkeypatch.setattr(trio, "sleep", sleep)
        addresses = {1: ("127.0.0.1", 1)}
        peers = Peers(addresses.get, client_id="b", backoff_s=1000, max_backoff_s=3000)
        for _ in range(4):
            with pytest.raises(PeerUnreachable, match="127.0.0.1:1 .*Connection refused.*does the"):
                await peers.call(1, HEARTBEAT, api_version=4, timeout_s=50_000)
        assert [round(seconds, -3) for seconds in slept] == [1000, 2000, 3000]
        addresses[1] = server.address
        peers.forget(1)
        await peers.call(1, HEARTBEAT, api_version=4, timeout_s=5)
        assert len(slept) == 3
        peers.close()


@pytest.mark.trio
async def test_a_channel_lends_its_buffer_until_the_next_call() -> None:
    sizes = [10, 300_000, 5_000_000, 20]

    async def fetched(stream: trio.SocketStream, frame: bytes) -> None:
        header = header_of(frame)
        records = bytes([65 + len(server.frames)]) * sizes[len(server.frames) - 1]
        partition = FetchResponsePartition(records=records, aborted_transactions=None)
        response = FetchResponse(responses=[FetchResponseTopic(partitions=[partition])])
        parts = response_frame(header.api_key, 16, header.correlation_id, response)
        whole = b"".join(parts)  # type: ignore[arg-type]
        for start in range(0, len(whole), 70_000):
            await stream.send_all(whole[start : start + 70_000])

    async with serving(fetched) as server:
        peers = peers_of(server)
        channel = peers.channel(1, max_bytes=10 << 20, kept_bytes=1 << 20)
        for number, size in enumerate(sizes, 1):
            response = await channel.call(FetchRequest(), api_version=16, timeout_s=20)
            assert isinstance(response, FetchResponse)
            records = response.responses[0].partitions[0].records
            assert isinstance(records, memoryview)
            assert bytes(records) == bytes([65 + number]) * size
        assert channel._connection is not None
        assert len(channel._connection._buffer) < 1 << 20
        assert server.connections == 1
        channel.close()
        with pytest.raises(PeerUnreachable, match="allowed are 1000"):
            server.frames.clear()
            sizes[0] = 2000
            short = peers.channel(1, max_bytes=1000, kept_bytes=1000)
            await short.call(FetchRequest(), api_version=16, timeout_s=20)


@pytest.mark.trio
async def test_a_large_buffer_is_given_back_when_only_little_comes() -> None:
    lengths = [2_000_000, *[10] * (SMALL_ANSWERS + 2)]

    async def fetched(stream: trio.SocketStream, frame: bytes) -> None:
        header = header_of(frame)
        records = b"x" * lengths[len(server.frames) - 1]
        partition = FetchResponsePartition(records=records, aborted_transactions=None)
        response = FetchResponse(responses=[FetchResponseTopic(partitions=[partition])])
        parts = response_frame(header.api_key, 16, header.correlation_id, response)
        await stream.send_all(b"".join(parts))  # type: ignore[arg-type]

    async with serving(fetched) as server:
        peers = peers_of(server)
        channel = peers.channel(1, max_bytes=10 << 20, kept_bytes=10 << 20)
        sizes = []
        for _ in lengths:
            await channel.call(FetchRequest(), api_version=16, timeout_s=20)
            assert channel._connection is not None
            sizes.append(len(channel._connection._buffer))
        assert min(sizes[:-1]) > 2_000_000
        assert sizes[-1] == FIRST_BUFFER_BYTES
        channel.close()


@pytest.mark.trio
async def test_memory_follows_what_came_not_what_was_claimed() -> None:
    async with serving(claims_much) as server:
        peers = peers_of(server)
        channel = peers.channel(1, max_bytes=100 << 20, kept_bytes=1 << 20)
        with pytest.raises(PeerUnreachable):
            await channel.call(HEARTBEAT, api_version=4, timeout_s=20)
        assert channel._connection is not None
        assert len(channel._connection._buffer) <= 32 << 10


def test_names_and_the_table() -> None:
    assert name_of(("::1", 9092)) == "[::1]:9092"
    assert request_api(HeartbeatRequest) is APIS[ApiKey.HEARTBEAT]
