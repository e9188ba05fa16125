"""A broker in a process of its own, as `trioq serve` runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import trioq
from trioq.errors import StartupError
from trioq.testing.broker import BrokerUnderTest

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0

_READY: Final = re.compile(r"trioq ready (?P<host>\S+):(?P<port>\d+) node=\d+ in \d+ ms\n")


class SubprocessBroker(BrokerUnderTest):
    """A real broker at full speed, to be killed for real; ready in well under a second.

        with SubprocessBroker() as broker:
            ...  # any client, at broker.address

    The process ends with the test's process, however that ends.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        data_dir: Path | str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(settings=settings, data_dir=data_dir, port=port)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False
        descriptor, name = tempfile.mkstemp(prefix="trioq-test-", suffix=".log")
        os.close(descriptor)
        self.log_path = Path(name)
        """What all runs of the broker logged; it goes with `close`."""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        return self._running().pid

    def start(self) -> Self:
        """Start the process and wait until it serves.

        Raises StartupError with what the broker printed when it does not.
        """
        if self._process is not None:
            raise RuntimeError("the broker was started already: stop it first, or use restart")
        config = {**self.settings, "log.dirs": str(self.data_dir), "listeners": self.address}
        log_start = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-P", "-m", "trioq.testing.child", json.dumps(config)],
                stdin=subprocess.PIPE,  # closed when this process ends: then the child ends too
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
            )
        line = self._first_line()
        match = _READY.fullmatch(line)
        if match is None:
            self.crash()
            raise StartupError(
                f"the broker did not get ready: {line}{self._log_from(log_start)}".strip()
            )
        self.port = int(match["port"])
        return self

    def stop(self) -> None:
        """End by SIGTERM. Raises AssertionError when the broker does not end well."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.crash()
            raise AssertionError(
                f"the broker did not end within {STOP_TIMEOUT_S:g} s of SIGTERM"
            ) from None
        self._forget()
        if status:
            raise AssertionError(f"the broker ended with status {status}; its log:\n{self.log()}")

    def crash(self) -> None:
        """Kill the process by SIGKILL, also when it is paused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._forget()

    def pause(self) -> None:
        """Stop the process by SIGSTOP until `resume`."""
        self._running().send_signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        if self._is_paused and self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self._is_paused = False

    def close(self) -> None:
        """Stop, and remove the temporary data and the log; may be called again."""
        try:
            super().close()
        finally:
            self.crash()
            self.log_path.unlink(missing_ok=True)

    def log(self) -> str:
        """What the broker logged so far, in all its runs."""
        return self._log_from(0)

    def _log_from(self, position: int) -> str:
        try:
            return self.log_path.read_bytes()[position:].decode(errors="replace")
        except FileNotFoundError:  # after close
            return ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the broker does not run: start it first")
        return self._process

    def _first_line(self) -> str:
        """What the process prints first; empty when it ends, or takes too long, without."""
        process = self._running()
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        line = b""
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                break
            byte = os.read(process.stdout.fileno(), 4096)
            if not byte:
                break
            line += byte
        return line.decode(errors="replace")

    def _forget(self) -> None:
        process, self._process = self._process, None
        self._is_paused = False
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _environment() -> dict[str, str]:
    """Ours, in which the child finds the trioq that runs here."""
    source = str(Path(trioq.__file__).parent.parent)
    paths = [source, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
