"""Server.drop: what a crash looks like to clients."""

from __future__ import annotations

import pytest
import trio

from tests.unit.server_harness import ECHO, KEPT, request_bytes, serving


@pytest.mark.trio
async def test_nothing_leaves_any_more():
    async with serving() as server:
        client = await server.connect()
        assert await client.call(ECHO, b"before") == b"before"
        await client.send(request_bytes(KEPT, b"kept"))
        await server.until(lambda: len(server.handlers.kept) == 1)
        server.server.drop()
        server.handlers.kept[0][1].complete_raw([b"too late"])
        assert await client.is_closed()
        other = await server.connect()
        assert await other.is_closed()
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            await other.call(ECHO, b"nobody")
        await server.until(lambda: server.reactor.connection_count == 0)
