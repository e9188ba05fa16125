"""Starts the floors: programs that do the least which the work takes, beside the brokers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.histogram import Histogram
from bench.path import frames, loadgen
from bench.path.measure import LIMITED_WARMUP_S, Measured
from bench.path.process import BrokerProcess, ready_line, running, scratch_directory
from bench.path.work import Work
from bench.programs import program

TOPIC = "bench"


@contextmanager
def _served(command: list[str], directory: Path) -> Iterator[BrokerProcess]:
    log_path = directory / "floor.log"
    with running(command, log_path) as process:
        port = int(ready_line(process, log_path).split()[-1])
        yield BrokerProcess("127.0.0.1", port, process.pid, 0.0, directory)


def pump(work: Work, *, seconds: float, warmup_s: float = loadgen.WARMUP_S) -> Measured:
    """Produce requests to the bare pump: receive, CRC, write to a fresh file, answer."""
    template = frames.produce_template(TOPIC, work, range(work.connections))
    if work.limit_bytes:
        warmup_s = min(warmup_s, LIMITED_WARMUP_S)
    with scratch_directory() as directory:
        command = [str(program("pump")), f"file={directory / 'pump.bin'}", "answer=60"]
        with _served(command, directory) as server:
            # The answer is zeros behind the correlation id, so no error is seen in it.
            load = loadgen.run(server, template, work, seconds=seconds, warmup_s=warmup_s)
    return Measured(load, None, is_idempotent=True)


def sendfile_server(work: Work, *, seconds: float, warmup_s: float = loadgen.WARMUP_S) -> Measured:
    """Fetch requests to the bare sendfile server, which has as many batches as the broker."""
    batch_bytes = frames.produce_template(TOPIC, work._replace(kind="produce")).batch_bytes
    template = frames.fetch_template(TOPIC, work, work.fetched * work.records, batch_bytes)
    template = template._replace(error_at=0, error2_at=0)  # its answers are nothing but bytes
    with scratch_directory() as directory:
        command = [str(program("sendserver")), f"file={directory / 'slices.bin'}"]
        command += [f"slice={batch_bytes}", f"slices={work.fetched}"]
        with _served(command, directory) as server:
            load = loadgen.run(server, template, work, seconds=seconds, warmup_s=warmup_s)
    return Measured(load, None, is_idempotent=False)


def echo(work: Work, *, seconds: float, warmup_s: float = loadgen.WARMUP_S) -> Measured:
    """Small requests to trioq's own reactor with a handler that answers at once."""
    template = frames.api_versions_template(work.connections)
    command = [sys.executable, "-m", "bench.floors.echo"]
    with scratch_directory() as directory, _served(command, directory) as server:
        load = loadgen.run(server, template, work, seconds=seconds, warmup_s=warmup_s)
    return Measured(load, None, is_idempotent=True)


class Synced(NamedTuple):
    """What a loop of write and fdatasync reached."""

    rounds_per_s: float
    bytes_per_s: float
    p50_ms: float
    p99_ms: float
    sync_p50_ms: float

    def figures(self) -> dict[str, float]:
        """For a report."""
        return self._asdict()


def write_and_sync(size: int, *, seconds: float) -> Synced:
    """Write `size` bytes and fdatasync, over and over, on the file system that brokers use."""
    with scratch_directory() as directory:
        command = [str(program("writesync")), f"file={directory / 'sync.bin'}"]
        command += [f"bytes={size}", f"seconds={seconds}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the loop of write and fdatasync: {done.stderr.strip()}")
    seen = json.loads(done.stdout)
    whole, syncs = Histogram(seen["histogram"]), Histogram(seen["sync_histogram"])
    return Synced(
        seen["rounds"] / seen["seconds"],
        seen["bytes"] / seen["seconds"],
        whole.percentile_ms(50),
        whole.percentile_ms(99),
        syncs.percentile_ms(50),
    )
