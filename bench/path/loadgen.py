"""Builds and runs the load generator (loadgen.c) against a broker."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench.path.frames import Template
from bench.path.process import BrokerProcess

HERE = Path(__file__).parent
CRC32C = HERE.parent.parent / "trioq" / "_native" / "crc32c_impl.c"
GIB = 1024**3
GB = 1e9


class Load(NamedTuple):
    """What one run of the load generator saw, and what it cost the broker."""

    requests_per_s: float
    bytes_per_s: float
    """Of the direction that carries the records."""

    broker_cpu_us_per_request: float
    broker_cpu_s_per_gb: float
    p50_ms: float
    p99_ms: float
    errors: int


@cache
def build() -> Path:
    """Compile the generator once per run; raises RuntimeError without a C compiler."""
    binary = Path(tempfile.mkdtemp(prefix="trioq-loadgen-")) / "loadgen"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    done = subprocess.run(
        [compiler, "-O2", "-o", str(binary), str(HERE / "loadgen.c"), str(CRC32C)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator does not compile: {done.stderr}")
    return binary


def run(
    broker: BrokerProcess, template: Template, *, connections: int, depth: int, seconds: float
) -> Load:
    """Load `broker` with `depth` requests in flight on each connection.

    Raises RuntimeError if an answer had an error or the broker closed a connection.
    """
    with tempfile.NamedTemporaryFile(suffix=".frames") as file:
        file.write(template.frames)
        file.flush()
        command = [str(build()), broker.host, str(broker.port), file.name, str(connections)]
        command += [str(depth), str(seconds), *template.options()]
        before = broker.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu_s = broker.cpu_s() - before
    if done.returncode:
        raise RuntimeError(f"load generator: {done.stderr.strip() or done.stdout}")
    seen = json.loads(done.stdout)
    # The generator warms up before it measures; CPU was spent on both.
    share = seen["seconds"] / (seen["seconds"] + 0.5)
    cpu_s *= share
    moved = max(seen["bytes_in"], seen["bytes_out"])
    return Load(
        seen["answers"] / seen["seconds"],
        moved / seen["seconds"],
        cpu_s / max(1, seen["answers"]) * 1e6,
        cpu_s / max(1, moved) * GB,
        seen["p50_ms"],
        seen["p99_ms"],
        seen["errors"],
    )
