"""A broker as a process: file limit, signals, the ready line, the exit status."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from trioq._native.posix import keep_freed_memory
from trioq.broker import Broker, StoppedAtStart
from trioq.config import BrokerConfig, format_address
from trioq.errors import ConfigError, MetastoreError, StartupError
from trioq.logs import get_logger
from trioq.logs import preload as preload_logs
from trioq.server.handlers.registry import preload as preload_handlers

EXIT_OK = 0
EXIT_CANNOT_START = 1
EXIT_BUG = 70
"""sysexits.h EX_SOFTWARE: a bug where data is owned, so the broker stopped at once."""

GC_THRESHOLDS = (10_000, 20, 50)
"""Requests make no cycles, so looking for some is rare: a look through everything takes as long as
a slow disk once a broker holds thousands of connections and partitions."""

KEPT_MEMORY_BYTES = 16 << 20
KEPT_BLOCK_BYTES = 4 << 20
"""Memory of received requests of up to 4 MiB is used again: given back to the kernel each time, a
request of 1 MB cost 125 page faults."""

log = get_logger("trioq.process")

_IMPORTED_S = time.monotonic()


def serve(config: BrokerConfig) -> int:
    """Run a broker until SIGTERM or SIGINT; a second signal drops what is still served.

    Prints the ready line on stdout; everything else goes to stderr.

    Returns:
        The exit status: 0 after a clean stop, 1 if it could not start, 70 after a bug.
    """
    _raise_file_limit()
    keep_freed_memory(KEPT_MEMORY_BYTES, KEPT_BLOCK_BYTES)
    try:
        trio.run(_serve_until_signal, config)
    except BaseException as error:
        refusals = list(_leaves(error))
        if all(isinstance(one, StoppedAtStart) for one in refusals):
            return EXIT_OK
        if all(isinstance(one, StartupError | ConfigError | MetastoreError) for one in refusals):
            for one in refusals:
                sys.stderr.write(f"trioq: {one}\n")
            return EXIT_CANNOT_START
        log.error("the broker failed and stops", exc_info=error)
        return EXIT_BUG
    return EXIT_OK


async def _serve_until_signal(config: BrokerConfig) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as root_nursery:
            broker = Broker(config)
            root_nursery.start_soon(_run_broker, broker, root_nursery.cancel_scope)
            async for number in signals:
                name = signal.Signals(number).name
                if broker.is_stopping:
                    log.warning("stopping at once", signal=name)
                    root_nursery.cancel_scope.cancel()
                else:
                    log.info("stopping", signal=name)
                    broker.stop()


async def _run_broker(broker: Broker, root_scope: trio.CancelScope) -> None:
    """Run the broker; the end of it is the end of everything."""
    async with trio.open_nursery() as broker_nursery:
        await broker_nursery.start(broker.run)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        _print_ready(broker)
        # Now rather than in the loop at first use, which would stall it for up to 0.1 s.
        await trio.to_thread.run_sync(_preload)
    root_scope.cancel()


def _preload() -> None:
    preload_handlers()
    preload_logs()


def _print_ready(broker: Broker) -> None:
    bound = broker.server.listeners[0]
    address = format_address(bound.host, bound.port)
    took_ms = round(_process_age_s() * 1000)
    sys.stdout.write(f"trioq ready {address} node={broker.config.node_id} in {took_ms} ms\n")
    sys.stdout.flush()


def _process_age_s() -> float:
    """Seconds since this process was started; since its imports where the system does not say."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return time.monotonic() - _IMPORTED_S
    return now_s - started_ticks / os.sysconf("SC_CLK_TCK")


def _raise_file_limit() -> None:
    """Take all the file descriptors that the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS has a lower limit than the hard one
        log.debug("the file limit stays", soft=soft, hard=hard, reason=str(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a tree of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
