"""A ZooKeeper server and brokers around it, each a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.path.ask import Asker
from bench.path.process import (
    BrokerProcess,
    free_port,
    running,
    running_broker,
    scratch_directory,
    wait_for_port,
)
from trioq.cli import dev_zookeeper
from trioq.errors import StartupError
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestAssignment,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)

CREATED_TIMEOUT_S = 60.0
TICK_MS = 250


class Cluster(NamedTuple):
    """Brokers by id; they stop with the block that started them."""

    brokers: Mapping[int, BrokerProcess]

    def cpu_s(self) -> dict[int, float]:
        """User and system time of each broker so far."""
        return {number: broker.cpu_s() for number, broker in self.brokers.items()}


def absent() -> str:
    """What is missing to run a cluster; empty if nothing is."""
    try:
        dev_zookeeper.find(Path("zoo.cfg"))
    except StartupError as error:
        return str(error)
    return ""


@contextmanager
def running_cluster(
    settings: Mapping[str, str] | None = None, *, count: int = 3
) -> Iterator[Cluster]:
    """ZooKeeper and `count` brokers on free ports. Raises BenchError if they do not get ready."""
    with scratch_directory() as directory, ExitStack() as stack:
        port = free_port()
        launch = dev_zookeeper.find(_configure(directory / "zookeeper", port))
        log_path = directory / "zookeeper.log"
        process = stack.enter_context(
            running(launch.command, log_path, environment=launch.environment)
        )
        wait_for_port(process, port, log_path)
        brokers = {}
        for number in range(1, count + 1):
            own = {
                "node.id": str(number),
                "metastore": f"zookeeper://127.0.0.1:{port}/bench",
                **(settings or {}),
            }
            brokers[number] = stack.enter_context(
                running_broker(own, data_dir=directory / f"broker-{number}")
            )
        yield Cluster(brokers)


def _configure(directory: Path, port: int) -> Path:
    """A server's configuration. It ends sessions with its ticks, so that these are short."""
    path = dev_zookeeper.configure(directory, port)
    ticks = f"tickTime={dev_zookeeper.TICK_MS}\n"
    path.write_text(path.read_text().replace(ticks, f"tickTime={TICK_MS}\n"))
    return path


def create_topic(asker: Asker, name: str, assignments: Sequence[Sequence[int]]) -> None:
    """A topic whose partition i has the replicas `assignments[i]`; returns when all are led."""
    topic = CreateTopicsRequestTopic(
        name=name,
        num_partitions=-1,
        replication_factor=-1,
        assignments=[
            CreateTopicsRequestAssignment(partition_index=number, broker_ids=list(replicas))
            for number, replicas in enumerate(assignments)
        ],
    )
    request = CreateTopicsRequest(topics=[topic], timeout_ms=30_000)
    end_s = time.monotonic() + CREATED_TIMEOUT_S
    while True:
        answer = asker.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse).topics[0]
        if not answer.error_code:
            break
        # The controller may not know of all brokers yet, or there may be none.
        if time.monotonic() > end_s:
            raise BenchError(
                f"{name} cannot be created: error {answer.error_code} {answer.error_message or ''}"
            )
        time.sleep(0.1)
    asker.wait_for_topic(name, len(assignments))


def settle(seconds: float) -> None:
    """Let what was started come to rest, and old pages go to the disk."""
    os.sync()
    time.sleep(seconds)
