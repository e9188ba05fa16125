"""Echo on the broker's own loop: trioq's reactor, and one API whose handler answers at once.

What it takes for a request is the reactor's price; what a broker's request takes beyond it is
the handler's and the log's. Prints "ready PORT".
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from trioq.clock import SystemClock
from trioq.config import Listener
from trioq.metrics import Metrics
from trioq.server.context import Context, Request
from trioq.server.deadlines import Deadlines
from trioq.server.handlers.registry import Api, Kind, by_key
from trioq.server.limits import Limits
from trioq.server.server import Server
from trioq.server.slot import Slot
from trioq.wire.api_keys import ApiKey

BODY = bytes(60)


def context() -> Context:
    """With as much in it as the server itself uses."""
    clock = SystemClock()
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
    )


def handle_echo(_ctx: Context, _request: Request, slot: Slot) -> None:
    """Answer with as many bytes as a small produce response has."""
    slot.complete_raw([BODY])


async def main() -> None:
    """Serve until a signal ends the process."""
    apis = by_key([Api(ApiKey.API_VERSIONS, Kind.INLINE, barrier=False, handler=handle_echo)])
    server = Server(context(), limits=Limits(), apis=apis)
    server.bind([Listener("ECHO", "127.0.0.1", 0, "127.0.0.1", 0)])
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        sys.stdout.write(f"ready {server.listeners[0].port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
