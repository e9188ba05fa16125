"""A process of the cluster that `trioq dev-cluster` runs: started, followed, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from trioq.errors import StartupError

MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is shown in pieces."""


class DevProcess:
    """One command with its output; it is in a session of its own, so that Ctrl-C is not its."""

    def __init__(self) -> None:
        self._process: trio.Process | None = None
        self._ended = trio.Event()

    @property
    def pid(self) -> int:
        """-1 while it does not run."""
        return -1 if self._process is None else self._process.pid

    async def run(
        self,
        command: Sequence[str],
        read: Callable[[str], None],
        *,
        environment: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> str:
        """Run it, calling `read` with every line that it prints; returns how it ended, in words.

        `keep_open` are descriptors that it has as long as it runs. Cancelled: it is killed.
        Raises StartupError when it cannot be run.
        """
        self._ended = trio.Event()
        try:
            self._process = await trio.lowlevel.open_process(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                pass_fds=keep_open,
            )
        except OSError as error:
            raise StartupError(f"{command[0]} cannot be run: {error.strerror or error}") from error
        try:
            assert self._process.stdout is not None
            await _read_lines(self._process.stdout, read)
            code = await self._process.wait()
        except BaseException:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            raise
        finally:
            self._process = None
            self._ended.set()
        if code >= 0:
            return f"ended with status {code}"
        return f"was ended by {signal.Signals(-code).name}"

    async def terminate(self) -> None:
        """Ask it to end, if it runs, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            await self._ended.wait()


async def _read_lines(stream: trio.abc.ReceiveStream, read: Callable[[str], None]) -> None:
    rest = b""
    async with stream:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                read(line.decode(errors="replace"))
    if rest:
        read(rest.decode(errors="replace"))


def readable(line: str, render: Callable[[str, str, Mapping[str, object]], str]) -> str:
    """A broker's log line, which is JSON, as `render` of trioq.logs writes it; else as it is."""
    try:
        fields = json.loads(line)
        level, event = str(fields.pop("level")), str(fields.pop("event"))
        fields.pop("time", None)
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    return render(level, event, fields)
