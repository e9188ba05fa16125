"""Running the asynchronous commands: under Trio, ended by Ctrl-C and SIGTERM in order."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread

from trioq import logs
from trioq.client.tasks import BackgroundTasks


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
        self._everything = anyio.CancelScope()

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
        if self._early is not None and not self._early.cancel_called:
            self._early.cancel()
        else:
            self._everything.cancel()

    async def run(self, work: Callable[[Interruption], Awaitable[None]]) -> None:
        """Run `work(self)` while listening for signals; raises what it raises, unwrapped."""
        with self._everything:
            async with BackgroundTasks() as tasks:
                tasks.start_soon(self._listen)
                await work(self)

    async def _listen(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.signalled(number)


def run(work: Callable[[Interruption], Awaitable[None]]) -> None:
    """Run a command to its end; SystemExit with 128 + the signal's number if one came.

    A reader of the output that goes away (`| head`) ends the command without an error.
    """
    logs.configure("warning")
    interruption = Interruption()
    try:
        anyio.run(interruption.run, work, backend="trio")
    except OutputClosed:
        return
    if interruption.number is not None:
        raise SystemExit(128 + interruption.number)


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
