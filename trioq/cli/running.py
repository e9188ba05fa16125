"""Running the asynchronous commands: under Trio, ended by Ctrl-C and SIGTERM in order."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import anyio.to_thread

from trioq import logs
from trioq.client.tasks import BackgroundTasks

if TYPE_CHECKING:
    from trioq.cli.target import Target
    from trioq.client.client import Client

Result = TypeVar("Result")


class OutputClosed(Exception):
    """Whoever reads the standard output has closed it."""


class Interruption:
    """What a signal does. The first ends the part of the command that is in `ending_early`, so
    that what follows (flushing, committing) is done; one outside of that, and any further, ends
    everything.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal that came."""

        self._early: anyio.CancelScope | None = None
        self._everything: anyio.CancelScope | None = None

    @contextmanager
    def ending_early(self) -> Iterator[None]:
        """A block that the first signal cancels; the code behind it goes on."""
        with anyio.CancelScope() as scope:
            self._early = scope
            try:
                yield
            finally:
                self._early = None

    def signalled(self, number: int) -> None:
        """A signal has come."""
        self.number = self.number or number
        scope = self._early
        if scope is None or scope.cancel_called:
            scope = self._everything
        if scope is not None:
            scope.cancel()

    async def run(self, work: Callable[[Interruption], Awaitable[Result]]) -> Result | None:
        """The result of `work(self)`, with signals; None if one ended it. Raises as `work` does."""
        with anyio.CancelScope() as self._everything:
            async with BackgroundTasks() as tasks:
                tasks.start_soon(self._listen)
                return await work(self)
        return None

    async def _listen(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.signalled(number)


def run(work: Callable[[Interruption], Awaitable[Result]]) -> Result:
    """The result of an asynchronous command; SystemExit with 128 + the signal's number if one came.

    A reader of the output that goes away (`| head`) ends the command with status 0.
    """
    logs.configure("warning")
    interruption = Interruption()
    try:
        result = anyio.run(interruption.run, work, backend="trio")
    except OutputClosed:
        raise SystemExit(0) from None
    if interruption.number is not None:
        raise SystemExit(128 + interruption.number)
    return cast("Result", result)


def ask(target: Target, work: Callable[[Client], Awaitable[Result]]) -> Result:
    """The result of `work` with a client of these brokers; raises as it does, and as `run`."""

    async def connected(_: Interruption) -> Result:
        async with target.client() as client:
            return await work(client)

    return run(connected)


async def read_from(descriptor: int, length: int) -> bytes:
    """Up to `length` bytes, b"" at the end. Cancelled, it gives up waiting: what comes is lost."""
    return await anyio.to_thread.run_sync(os.read, descriptor, length, abandon_on_cancel=True)


async def write_to(descriptor: int, data: bytes) -> None:
    """Write everything; raises OutputClosed. Cancelled, it may have written a part."""
    await anyio.to_thread.run_sync(_write_all, descriptor, data, abandon_on_cancel=True)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise OutputClosed from error
        raise
