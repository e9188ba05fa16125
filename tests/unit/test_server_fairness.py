"""The loop belongs to everybody: large transfers take turns, requests leave no garbage."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import trio

from tests.unit.server_harness import ECHO, KEPT, request_bytes, serving
from tests.unit.test_net_egress import LentFile
from trioq.errors import BrokerBug
from trioq.server.connection import SEND_BYTES_PER_PASS
from trioq.server.handlers.registry import Api, Kind, by_key
from trioq.types import FileRegion
from trioq.wire.api_keys import ApiKey

pytestmark = pytest.mark.trio


async def test_a_large_response_gives_way_to_a_small_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(1024) * 1024 * 50)
    fd = os.open(path, os.O_RDONLY)
    file = LentFile(fd)
    async with (
        serving() as harness,
        await harness.connect() as large,
        await harness.connect() as small,
    ):
        await large.send(request_bytes(KEPT))
        await harness.until(lambda: bool(harness.handlers.kept))
        file.retain()
        harness.handlers.kept[0][1].complete_raw([FileRegion(file, 0, 50 * 1024 * 1024)])
        received = 0
        passes = harness.reactor.counters.passes
        while received < 50 * 1024 * 1024:
            received += len(await large.stream.receive_some(1 << 20))
            if received < 40 * 1024 * 1024:
                assert await small.call(ECHO, b"quick") == b"quick"
        assert harness.reactor.counters.passes - passes >= 50 * 1024 * 1024 // SEND_BYTES_PER_PASS
    assert file.references == 0
    os.close(fd)


async def test_large_requests_share_a_pass_with_a_small_one() -> None:
    async with serving() as harness, trio.open_nursery() as nursery:
        data = request_bytes(ECHO, bytes(20_000_000))
        for _ in range(4):
            client = await harness.connect()
            nursery.start_soon(client.send, data)
        small = await harness.connect()
        counters = harness.reactor.counters
        await harness.until(lambda: counters.bytes_in > 1_000_000)
        for number in range(20):
            before = counters.bytes_in
            assert await small.call(ECHO, b"%d" % number) == b"%d" % number
            assert counters.bytes_in - before < 20_000_000
        nursery.cancel_scope.cancel()


async def test_requests_leave_no_reference_cycles() -> None:
    async with serving() as harness, await harness.connect() as client:
        await client.call(ECHO, b"first")
        gc.collect()
        gc.disable()
        try:
            for number in range(200):
                await client.call(ECHO, b"x", correlation_id=number)
                await client.send(request_bytes(KEPT))
                await harness.until(lambda: bool(harness.handlers.kept))
                harness.handlers.kept.pop()[1].complete_raw([b"y"])
                await client.response()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            ours = [thing for thing in gc.garbage if type(thing).__module__.startswith("trioq")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert ours == []


async def test_a_bug_where_data_is_owned_ends_the_server() -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("after stamping")

    api = Api(ApiKey.PRODUCE, Kind.INLINE, barrier=False, owns_data=True, handler=fail)
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(apis=by_key([api])) as harness:
            client = await harness.connect()
            await client.send(request_bytes(ApiKey.PRODUCE, version=3))
            await trio.sleep_forever()
    assert caught.group_contains(BrokerBug)


async def test_a_task_that_fails_closes_its_connection_only() -> None:
    async def fail(*_arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("a bug")

    api = Api(ApiKey.CREATE_TOPICS, Kind.TASK, barrier=True, handler=fail)
    async with (
        serving(apis=by_key([api])) as harness,
        await harness.connect() as client,
        await harness.connect(),
    ):
        await client.send(request_bytes(ApiKey.CREATE_TOPICS, version=2))
        assert await client.is_closed()
        assert harness.reactor.connection_count == 1


async def test_a_request_may_go_on_alone_in_a_task() -> None:
    gate = trio.Event()
    seen: list[bytes] = []

    def handle(_ctx: object, request: object, slot: object) -> None:
        body = bytes(request.body[request.position : request.end])  # type: ignore[attr-defined]
        seen.append(body)

        async def go_on() -> None:
            await gate.wait()
            slot.complete_raw([body])  # type: ignore[attr-defined]

        if body == b"alone":
            request.start_task(go_on)  # type: ignore[attr-defined]
        else:
            slot.complete_raw([body])  # type: ignore[attr-defined]

    api = Api(ECHO, Kind.INLINE, barrier=False, handler=handle)
    async with serving(apis=by_key([api])) as harness, await harness.connect() as client:
        await client.send(
            request_bytes(ECHO, b"alone", correlation_id=1)
            + request_bytes(ECHO, b"after", correlation_id=2)
        )
        await harness.until(lambda: bool(seen))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [b"alone"]
        gate.set()
        assert await client.response() == (1, b"alone")
        assert await client.response() == (2, b"after")
