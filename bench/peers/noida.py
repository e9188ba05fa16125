"""noida-db (Rust): several databases in one binary, of which its Kafka is started."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from bench.path.process import BrokerProcess, free_port, running, wait_for_port
from bench.peers.peer import Peer, Settings


@contextmanager
def start(directory: Path, settings: Settings) -> Iterator[BrokerProcess]:  # noqa: ARG001
    """`noida-db start --only kafka` in the foreground."""
    binary = Path(str(files("noida_db").joinpath("noida-db")))
    binary.chmod(0o755)
    port = free_port()
    command = [str(binary), "start", "--only", "kafka", "--kafka-port", str(port)]
    command += ["--data-dir", str(directory / "data")]
    log_path = directory / "noida.log"
    started = time.perf_counter()
    with running(command, log_path) as process:
        wait_for_port(process, port, log_path)
        ready_s = time.perf_counter() - started
        yield BrokerProcess("127.0.0.1", port, process.pid, ready_s, directory / "data")


def absent() -> str:
    """It needs the package."""
    if importlib.util.find_spec("noida_db") is None:
        return "the PyPI package noida-db is not installed"
    return ""


PEER = Peer("noida-db", start, absent, lambda: metadata.version("noida-db"))
