"""librdkafka's mock broker: C, one thread, keeps a few megabytes in memory and stores nothing.

It lives inside a client, so a process of its own holds a client that does nothing else.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from bench.path.process import BrokerProcess, ready_line, running
from bench.peers.peer import Peer, Settings


@contextmanager
def start(directory: Path, settings: Settings) -> Iterator[BrokerProcess]:  # noqa: ARG001
    """A process with `main` below; its CPU is the mock's, since the client sleeps."""
    log_path = directory / "mock.log"
    started = time.perf_counter()
    with running([sys.executable, "-m", "bench.peers.mock"], log_path) as process:
        host, _, port = ready_line(process, log_path).rpartition(":")
        ready_s = time.perf_counter() - started
        yield BrokerProcess(host, int(port), process.pid, ready_s)


def absent() -> str:
    """It comes with confluent-kafka."""
    if importlib.util.find_spec("confluent_kafka") is None:
        return "confluent-kafka is not installed"
    return ""


def main() -> None:
    """Hold a mock cluster of one broker, and print its address, until a signal ends the process."""
    from confluent_kafka import Producer

    client = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 2})
    broker = next(iter(client.list_topics(timeout=10).brokers.values()))
    print(f"{broker.host}:{broker.port}", flush=True)
    threading.Event().wait()


PEER = Peer(
    "mock",
    start,
    absent,
    version=lambda: f"confluent-kafka {metadata.version('confluent-kafka')}",
    creates_topics=False,
    most_partitions=4,
    most_fetched=4,
)

if __name__ == "__main__":
    main()
