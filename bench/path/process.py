"""The broker under measurement as a process of its own, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

READY_TIMEOUT_S = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BrokerProcess(NamedTuple):
    """A running broker: where it listens, and its process."""

    host: str
    port: int
    pid: int
    ready_s: float
    """From exec to the ready line."""

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_broker(
    settings: Mapping[str, str] | None = None, *, data_dir: Path | None = None
) -> Iterator[BrokerProcess]:
    """Run `trioq serve` on a free port; it is stopped, and its data removed, on leaving.

    With `data_dir` the data stays. Raises RuntimeError with its log if it does not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="trioq-bench-") as scratch:
        log_path = Path(scratch) / "stderr.log"
        command = [sys.executable, "-m", "trioq.cli", "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(data_dir or Path(scratch) / "data")]
        for key, value in (settings or {}).items():
            command += ["--set", f"{key}={value}"]
        with log_path.open("wb") as log:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            ready_s = time.perf_counter() - started
            if not line.startswith("trioq ready "):
                raise RuntimeError(f"the broker did not get ready: {log_path.read_text()[-2000:]}")
            host, _, port = line.split()[2].rpartition(":")
            yield BrokerProcess(host, int(port), process.pid, ready_s)
        finally:
            process.terminate()
            process.wait(READY_TIMEOUT_S)
