"""A real broker as a process: `trioq serve` on a free port, to be killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRIOQ = Path(sysconfig.get_path("scripts")) / "trioq"
READY = re.compile(r"trioq ready (?P<host>\S+):(?P<port>\d+) node=(?P<node>\d+) in (?P<ms>\d+) ms")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0

FAST = {"log.segment.delete.delay.ms": "0"}
"""Settings that every test's broker gets."""


class BrokerFailedError(AssertionError):
    """The process did not do what a test needs before it can begin."""


class BrokerProcess:
    """One data directory and the `trioq serve` process that runs on it, if one does.

    The first start takes a free port, later ones the same port again, as clients expect
    of a broker that comes back. The logs of all starts go to one file.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1:0",
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = directory / "data"
        self.log_path = directory / "broker.log"
        self.settings = {**FAST, **(settings or {})}
        self.arguments = arguments
        self.environment = dict(environment or {})
        self.ready_lines: list[str] = []
        self.stdout = b""
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None

    # ---- life -------------------------------------------------------------------------

    def command(self) -> list[str]:
        command = [str(TRIOQ), "serve", "--data-dir", str(self.data_dir), "--listen", self._listen]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        return [*command, *self.arguments]

    def start(self) -> BrokerProcess:
        """Start the process and wait for its ready line."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Start the process; `wait_ready` for it to serve."""
        assert self._process is None, "the broker runs already"
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        self.stdout = b""

    def wait_ready(self) -> BrokerProcess:
        """Wait for the ready line of the process that was launched."""
        line = self._first_line()
        match = READY.fullmatch(line)
        if match is None:
            self.kill9()
            raise BrokerFailedError(f"instead of the ready line the broker printed {line!r}")
        self.ready_lines.append(line)
        self.host, self.port = match["host"].strip("[]"), int(match["port"])
        self.node_id = int(match["node"])
        self._listen = f"{match['host']}:{self.port}"
        return self

    def _first_line(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poll = select.poll()  # select has no room for a descriptor above 1023
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"\n" not in self.stdout:
            wait_s = deadline - time.monotonic()
            readable = wait_s > 0 and poll.poll(wait_s * 1000)
            if not readable:
                self.kill9()
                raise BrokerFailedError(f"no ready line within {START_TIMEOUT_S:.0f} s")
            chunk = os.read(descriptor, 4096)
            if not chunk:
                code = process.wait(timeout=STOP_TIMEOUT_S)
                self._forget()
                raise BrokerFailedError(f"the broker ended with {code} instead of getting ready")
            self.stdout += chunk
        return self.stdout.decode().splitlines()[0]

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def nodes(self) -> dict[int, str]:
        """The address of each broker that clients are told of, by its id."""
        return {self.node_id: self.address}

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of the broker."""
        return self.host, self.port

    def coordinator_of(self, group: str) -> tuple[str, int]:
        """Host and port of the broker that coordinates the group."""
        return self.host, self.port

    @property
    def given_config(self) -> dict[str, str]:
        """What a topic is given by itself, of default replication factor."""
        return {}

    def settle(self) -> None:
        """Return when every broker knows what any of them has answered: one knows at once."""

    @property
    def controller_id(self) -> int:
        return self.node_id

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill9(self) -> None:
        """End the process as a power cut ends it, as far as a process can tell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=STOP_TIMEOUT_S)
            self._forget()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end by itself; its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout=timeout_s)
        self._forget()
        return code

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask the broker to stop and wait until it has; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def restart(self) -> BrokerProcess:
        code = self.terminate()
        assert code == 0, f"the broker ended with {code}"
        return self.start()

    def _forget(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self.stdout += self._process.stdout.read()
            self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        """Stop the process if it runs: politely, then not."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.terminate(timeout_s=20)
        self.kill9()

    # ---- what it says -----------------------------------------------------------------

    def log_lines(self) -> list[dict[str, Any]]:
        """Every log line; one that is not JSON is a problem and comes as level "raw"."""
        lines = []
        for text in self.log_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            lines.append(line if isinstance(line, dict) else {"level": "raw", "event": text})
        return lines

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def problems(self) -> list[dict[str, Any]]:
        """Log lines that no test provokes: errors, tracebacks, warnings of the interpreter."""
        calm = {"debug", "info", "warning"}
        return [line for line in self.log_lines() if str(line.get("level")).lower() not in calm]

    # ---- what it holds ----------------------------------------------------------------

    def segment_paths(self, topic: str, partition: int = 0) -> list[Path]:
        return sorted((self.data_dir / f"{topic}-{partition}").glob("*.log"))

    def resident_bytes(self) -> int:
        """Resident memory of the process (Linux)."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_sockets(self) -> int:
        """Number of socket descriptors of the process (Linux)."""
        count = 0
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += link.readlink().name.startswith("socket:")
        return count
