"""Processes under measurement: how they are started, what they cost, how they end."""

from __future__ import annotations

import compileall
import contextlib
import functools
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parents[2]


class BrokerProcess(NamedTuple):
    """A running broker: where it listens, and its process."""

    host: str
    port: int
    pid: int
    ready_s: float
    """From exec until it was ready."""

    data_dir: Path | None = None
    """Where it keeps its data, if it keeps any."""

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for data, removed on leaving; TRIOQ_BENCH_DIR chooses the file system."""
    base = os.environ.get("TRIOQ_BENCH_DIR")
    with tempfile.TemporaryDirectory(
        prefix="trioq-bench-", dir=base, ignore_cleanup_errors=True
    ) as path:
        yield Path(path)


@contextmanager
def running(
    command: Sequence[str], log_path: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a pipe as stdout and a file as stderr; it is ended on leaving."""
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=log_path.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def ready_line(process: subprocess.Popen[bytes], log_path: Path) -> str:
    """The first line that the process prints; raises BenchError with its log without one."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], READY_TIMEOUT_S)[0]:
        raise BenchError(f"{process.args!r} did not get ready:\n{log_path.read_text()[-2000:]}")
    line = process.stdout.readline().decode()
    if not line:
        raise BenchError(f"{process.args!r} ended at once:\n{log_path.read_text()[-2000:]}")
    return line.strip()


def wait_for_port(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    """Wait until the process accepts connections; raises BenchError with its log."""
    end = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise BenchError(f"{process.args!r} did not get ready:\n{log_path.read_text()[-2000:]}")


@functools.cache
def compile_broker() -> None:
    """Have bytecode of every module of the broker, as installing it leaves it.

    Without it a start is mostly compiling where the checkout is new or the environment says
    PYTHONDONTWRITEBYTECODE, which `import trio` never is.
    """
    compileall.compile_dir(ROOT / "trioq", quiet=2)


@contextmanager
def running_broker(
    settings: Mapping[str, str] | None = None,
    *,
    data_dir: Path | None = None,
    module: str = "trioq.cli",
) -> Iterator[BrokerProcess]:
    """Run `trioq serve` on a free port; it is stopped, and its data removed, on leaving.

    With `data_dir` the data stays. `module` is what is run instead of the command (see
    bench/path/busy_broker.py). Raises BenchError with its log if it does not get ready.
    """
    compile_broker()
    with scratch_directory() as scratch:
        log_path = scratch / "stderr.log"
        data = data_dir or scratch / "data"
        command = [sys.executable, "-m", module, "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(data), "--log-level", "warning"]
        for key, value in (settings or {}).items():
            command += ["--set", f"{key}={value}"]
        started = time.perf_counter()
        with running(command, log_path) as process:
            line = ready_line(process, log_path)
            ready_s = time.perf_counter() - started
            if not line.startswith("trioq ready "):
                raise BenchError(f"the broker did not get ready: {log_path.read_text()[-2000:]}")
            host, _, port = line.split()[2].rpartition(":")
            yield BrokerProcess(host, int(port), process.pid, ready_s, data)
