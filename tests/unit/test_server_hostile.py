"""Hostile clients over real sockets: closed where the protocol says so, and nobody else notices."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
import trio

from tests.unit.server_harness import (
    BARRIER,
    BROKEN,
    ECHO,
    KEPT,
    TASK,
    Client,
    request_bytes,
    serving,
)
from trioq.server.connection import MUTED_QUEUED
from trioq.server.dispatch import MAX_DECODED_BYTES
from trioq.server.limits import Limits
from trioq.types import FileRegion
from trioq.wire.api_keys import ApiKey

pytestmark = pytest.mark.trio

BAD_BYTES = {
    "length zero": struct.pack(">i", 0),
    "length negative": struct.pack(">i", -1),
    "length least": struct.pack(">i", -(2**31)),
    "length over the limit": struct.pack(">i", 1_000_001),
    "length greatest": struct.pack(">i", 2**31 - 1),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown API": request_bytes(999, version=0),
    "negative API": request_bytes(-1, version=0),
    "API that is not served": request_bytes(ApiKey.PRODUCE, version=9),
    "version too old": request_bytes(ECHO, version=0),
    "version too new": request_bytes(ECHO, version=99),
    "version negative": request_bytes(ECHO, version=-1),
    "header cut off": struct.pack(">i", 3) + b"\0\2\0",
    "client id longer than the frame": struct.pack(">ihhih", 10, 2, 1, 1, 500),
    "client id that is not UTF-8": struct.pack(">ihhih", 12, 2, 1, 1, 2) + b"\xff\xfe",
    "a handler that fails": request_bytes(BROKEN),
}


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES.keys())
async def test_bad_bytes_close_their_connection_only(data: bytes) -> None:
    async with (
        serving(limits=Limits(max_frame_bytes=1_000_000)) as harness,
        await harness.connect() as other,
        await harness.connect() as client,
    ):
        assert await other.call(ECHO, b"before") == b"before"
        await client.send(data)
        assert await client.is_closed()
        assert await other.call(ECHO, b"after") == b"after"
        assert harness.reactor.connection_count == 1


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES.keys())
async def test_what_came_before_bad_bytes_is_answered(data: bytes) -> None:
    async with (
        serving(limits=Limits(max_frame_bytes=1_000_000)) as harness,
        await harness.connect() as client,
    ):
        await client.send(request_bytes(ECHO, b"good") + data)
        assert await client.response() == (1, b"good")
        assert await client.is_closed()


async def test_a_request_too_large_to_be_decoded_closes_its_connection() -> None:
    async with serving() as harness, await harness.connect() as client:
        assert await client.call(ECHO, bytes(MAX_DECODED_BYTES - 100)) == bytes(
            MAX_DECODED_BYTES - 100
        )
        await client.send(request_bytes(ECHO, bytes(MAX_DECODED_BYTES)))
        assert await client.is_closed()
        assert not harness.reactor.connections


async def test_api_versions_of_an_unknown_version_is_answered_and_stays_open() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(request_bytes(ApiKey.API_VERSIONS, b"\0\0", version=77))
        correlation_id, body = await client.response()
        assert correlation_id == 1
        assert struct.unpack(">hihhh", body) == (35, 1, 18, 0, 4)
        assert await client.call(ECHO, b"still here") == b"still here"


@pytest.mark.parametrize("cut", [1, 3, 4, 9, 20, 100_000])
async def test_a_client_that_leaves_within_a_frame_leaves_nothing_behind(cut: int) -> None:
    data = request_bytes(ECHO, bytes(200_000))
    async with serving() as harness:
        async with await harness.connect() as client:
            await client.send(data[:cut])
            await harness.until(lambda: harness.reactor.counters.bytes_in == cut)
        await harness.until(lambda: harness.reactor.connection_count == 0)
        assert harness.reactor.budget.used_bytes == 0


async def test_memory_for_a_frame_grows_with_its_bytes_not_with_its_claim() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.send(struct.pack(">i", 90_000_000) + bytes(100_000))
        await harness.until(lambda: harness.reactor.counters.bytes_in == 100_004)
        assert 100_004 <= harness.reactor.budget.used_bytes <= 4 * 100_004


async def test_waiting_handlers_are_told_when_their_client_leaves() -> None:
    async with serving() as harness:
        async with await harness.connect() as client:
            await client.send(request_bytes(KEPT, b"a") + request_bytes(KEPT, b"b"))
            await harness.until(lambda: len(harness.handlers.kept) == 2)
        await harness.until(lambda: harness.reactor.connection_count == 0)
        assert harness.handlers.cancelled == [b"a", b"b"]
        for _, slot in harness.handlers.kept:  # too late, and harmless
            slot.complete_raw([b"late"])
            slot.discard()


async def test_a_muted_client_that_dies_is_found() -> None:
    async with serving() as harness:
        client = await harness.connect()
        await client.send(request_bytes(TASK, b"1") + request_bytes(ECHO, b"2"))
        await harness.until(lambda: any(c.muted for c in harness.reactor.connections))
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.stream.aclose()
        with trio.fail_after(60):
            await harness.reactor.wait_no_connections()


async def test_half_frames_beyond_the_budget_take_turns() -> None:
    limits = Limits(receive_budget_bytes=400_000, max_frame_bytes=1_000_000)
    async with serving(limits=limits) as harness:
        clients = [await harness.connect() for _ in range(6)]
        data = request_bytes(ECHO, bytes(900_000))
        answered: list[int] = []

        async def exchange(number: int, client: Client) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, data)
                assert len((await client.response())[1]) == 900_000
            answered.append(number)

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients):
                nursery.start_soon(exchange, number, client)
        assert sorted(answered) == list(range(6))
        for client in clients:
            await client.stream.aclose()
        await harness.reactor.wait_no_connections()


async def test_one_who_waits_for_memory_may_leave() -> None:
    limits = Limits(receive_budget_bytes=200_000, max_frame_bytes=1_000_000)
    half = request_bytes(ECHO, bytes(900_000))[:450_000]
    async with serving(limits=limits) as harness:
        clients = [await harness.connect() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.send, half)
            await harness.until(lambda: harness.reactor.budget.waiting_count == 2)
            for client in clients:
                client.stream.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            nursery.cancel_scope.cancel()
        for client in clients:
            await trio.aclose_forcefully(client.stream)
        with trio.fail_after(60):
            await harness.reactor.wait_no_connections()
        assert harness.reactor.budget.used_bytes == 0
        assert harness.reactor.budget.waiting_count == 0


async def test_a_client_that_never_reads_is_not_read_from_either() -> None:
    limits = Limits(max_queued_bytes=100_000)
    async with (
        serving(limits=limits) as harness,
        await harness.connect() as client,
        await harness.connect() as other,
    ):
        data = request_bytes(ECHO, bytes(50_000)) * 1000
        connections = harness.reactor.connections
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, data)
            await harness.until(lambda: any(c.muted & MUTED_QUEUED for c in connections))
            assert await other.call(ECHO, b"next") == b"next"
            nursery.cancel_scope.cancel()
        assert max(c.egress.queued_bytes for c in connections) < 100_000 + 65 * 50_020
        assert harness.reactor.counters.bytes_in < len(data)


async def test_parked_requests_of_a_connection_are_capped_by_count() -> None:
    async with (
        serving(limits=Limits(max_parked_requests=5)) as harness,
        await harness.connect() as client,
    ):
        for number in range(20):
            await client.send(request_bytes(KEPT, correlation_id=number))
        kept = harness.handlers.kept
        await harness.until(lambda: len(kept) >= 5)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kept) == 5
        for number in range(20):
            await harness.until(lambda: len(kept) > number)  # noqa: B023  used at once
            kept[number][1].complete_raw([b""])
            assert await client.response() == (number, b"")


async def test_parked_requests_of_a_connection_are_capped_by_bytes() -> None:
    async with (
        serving(limits=Limits(max_parked_bytes=10_000)) as harness,
        await harness.connect() as client,
    ):
        await client.send(request_bytes(KEPT, bytes(6_000)) * 5)
        kept = harness.handlers.kept
        await harness.until(lambda: len(kept) >= 2)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kept) == 2


async def test_pipelined_barriers_run_one_by_one_and_all() -> None:
    async with serving() as harness, await harness.connect() as client:
        data = b"".join(
            request_bytes(BARRIER if number % 3 else TASK, b"%d" % number, correlation_id=number)
            for number in range(200)
        )
        harness.handlers.gate.set()
        await client.send(data)
        for number in range(200):
            assert await client.response() == (number, b"%d" % number)


async def test_thousands_of_connections_come_and_go() -> None:
    descriptors = Path("/proc/self/fd")
    open_before = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    async with serving() as harness:
        for round_number in range(20):
            clients = [await harness.connect() for _ in range(100)]
            for number, client in enumerate(clients):
                if number % 3 == 0:
                    await client.send(request_bytes(KEPT)[: 4 + number % 20])
                elif number % 3 == 1:
                    client.stream.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            if round_number % 5 == 0:
                assert await clients[2].call(ECHO, b"alive") == b"alive"
            for client in clients:
                await client.stream.aclose()
        with trio.fail_after(60):
            await harness.reactor.wait_no_connections()
        assert harness.reactor.counters.connections_accepted == 2000
    if open_before:
        assert len(list(descriptors.iterdir())) <= open_before


class CountedFile:
    """A file whose references are counted."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.references = 1

    def fileno(self) -> int:
        assert self.references > 0
        return self.fd

    def retain(self) -> None:
        self.references += 1

    def release(self) -> None:
        self.references -= 1
        assert self.references >= 0


@pytest.mark.parametrize("leaves_after", [0, 10_000, None])
async def test_file_regions_are_released_once_however_it_ends(
    tmp_path: Path, leaves_after: int | None
) -> None:
    path = tmp_path / "log"
    content = os.urandom(8_000_000)
    path.write_bytes(content)
    file = CountedFile(path)
    async with serving() as harness:
        client = await harness.connect()
        await client.send(request_bytes(KEPT))
        await harness.until(lambda: bool(harness.handlers.kept))
        slot = harness.handlers.kept[0][1]
        regions = [(0, 6_000_000), (100, 20_000), (7, 33_000), (6_000_000, 2_000_000)]
        for _ in regions:
            file.retain()
        slot.complete_raw([b"head", *(FileRegion(file, *region) for region in regions), b"tail"])
        if leaves_after is None:
            _, body = await client.response()
            assert body == b"".join(
                [b"head", *(content[p : p + length] for p, length in regions), b"tail"]
            )
        else:
            while leaves_after > 0:
                leaves_after -= len(await client.stream.receive_some(1000))
        await client.stream.aclose()
        with trio.fail_after(60):
            await harness.reactor.wait_no_connections()
        assert file.references == 1
    os.close(file.fd)


async def test_a_region_of_a_request_that_is_gone_is_released(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(1000))
    file = CountedFile(path)
    async with serving() as harness:
        async with await harness.connect() as client:
            await client.send(request_bytes(KEPT, b"1") + request_bytes(KEPT, b"2"))
            await harness.until(lambda: len(harness.handlers.kept) == 2)
            (_, first), (_, second) = harness.handlers.kept
            file.retain()
            second.complete_raw([FileRegion(file, 0, 1000)])  # behind one that still waits
        await harness.reactor.wait_no_connections()
        assert file.references == 1
        file.retain()
        first.complete_raw([FileRegion(file, 0, 1000)])
        assert file.references == 1
    os.close(file.fd)
