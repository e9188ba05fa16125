"""Real clusters: `trioq serve` processes around real ZooKeeper servers, to be broken and mended.

    with running(tmp_path) as cluster:
        cluster.create("orders", partitions=3)
        cluster.kill(cluster.leader("orders"))
        cluster.until_whole("orders")

With a `Network` every process has a namespace of its own; else each broker has a loopback address
of its own where there are such (Linux), so that nobody else answers between two lives.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster import network
from tests.cluster.network import Host, Network
from tests.e2e.broker_process import BrokerProcess
from tests.faults.client import Client
from tests.faults.faulty_broker import FaultyBroker
from tests.zookeeper.server import Ports, ZooKeeperServer, free_ports, missing
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
)
from trioq.wire.messages.find_coordinator import FindCoordinatorRequest
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

SESSION_TIMEOUT_S = 3.0
PATIENCE_S = 60.0
POLL_S = 0.02
ASK_TIMEOUT_S = 5.0
COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, TOPIC_ALREADY_EXISTS = 15, 16, 36
RETRIABLE = (7, 41)
"""REQUEST_TIMED_OUT and NOT_CONTROLLER: what is asked for may be done, or not."""

SETTINGS = {
    "zookeeper.session.timeout.ms": str(int(SESSION_TIMEOUT_S * 1000)),
    "zookeeper.connection.timeout.ms": "20000",  # a busy machine's servers are slow
    "default.replication.factor": "3",
    "replica.lag.time.max.ms": "2000",
    "replica.fetch.wait.max.ms": "200",
    "controlled.shutdown.max.wait.ms": "5000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "50",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "log.segment.delete.delay.ms": "0",
}
"""Settings with which a failure is seen in seconds."""

_numbers = itertools.count(1)
running_clusters: list[Cluster] = []
"""Those whose logs are shown when a test fails."""


class PartitionView(NamedTuple):
    """A partition as a broker's metadata has it."""

    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: frozenset[int]


class View(NamedTuple):
    """What one broker says of the cluster; partitions by topic and number."""

    controller: int
    brokers: frozenset[int]
    partitions: Mapping[tuple[str, int], PartitionView]


class ClusterBroker(FaultyBroker):
    """One broker of a cluster; only a `bent` one has the disk and the clock of FaultyBroker."""

    def __init__(
        self,
        directory: Path,
        number: int,
        metastore: str,
        *,
        address: str,
        prefix: Sequence[str] = (),
        settings: Mapping[str, str],
        bent: bool = False,
    ) -> None:
        super().__init__(
            directory,
            settings=settings,
            listen=f"{address}:0",
            arguments=("--node-id", str(number), "--metastore", metastore),
        )
        self.number = number
        self.bent = bent
        self.is_paused = False
        self._prefix = list(prefix)

    def command(self) -> list[str]:
        plain = super().command() if self.bent else BrokerProcess.command(self)
        return [*self._prefix, *plain]

    @property
    def is_up(self) -> bool:
        """It runs, and was not stopped by SIGSTOP."""
        return self.running and not self.is_paused

    def pause(self) -> None:
        """SIGSTOP: it neither works nor ends its connections."""
        self.signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.is_paused = False

    def kill9(self) -> None:
        super().kill9()
        self.is_paused = False


class Cluster:
    """Brokers 1 to N and the ZooKeeper servers that they share; every wait has a limit."""

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int = 3,
        zookeepers: int = 1,
        settings: Mapping[str, str] | None = None,
        network: Network | None = None,
        bent: Collection[int] = (),
        ensemble: Sequence[ZooKeeperServer] = (),
        data_dirs: Mapping[int, Path] | None = None,
    ) -> None:
        self.directory = directory
        self.network = network
        self.hosts: dict[int, Host] = {}
        """Where each broker is, in the network."""

        self.zookeeper_hosts: list[Host] = []
        self.zookeepers = list(ensemble) or self._zookeepers(zookeepers)
        self._shares_zookeeper = bool(ensemble)
        number = next(_numbers)
        chroot = f"trioq-{os.getpid()}-{number}"
        servers = ",".join(one.address for one in self.zookeepers)
        self.metastore = f"zookeeper://{servers}/{chroot}"
        self.settings = {**SETTINGS, **(settings or {})}
        self.brokers: dict[int, ClusterBroker] = {}
        self._base = f"127.{64 + os.getpid() % 128}.{number % 256}"
        for number in range(1, brokers + 1):
            self.add(number, bent=number in bent)
        for number, path in (data_dirs or {}).items():
            self.brokers[number].data_dir = path

    def _zookeepers(self, count: int) -> list[ZooKeeperServer]:
        if self.network is None:
            flat = free_ports(3 * count)
            ports = [Ports(*flat[3 * n : 3 * n + 3]) for n in range(count)]
        else:
            self.zookeeper_hosts = [self.network.add() for _ in range(count)]
            ports = [Ports(2181, 2888, 3888, host.address) for host in self.zookeeper_hosts]
        prefixes = [host.prefix for host in self.zookeeper_hosts] or [[]] * count
        everybody = dict(enumerate(ports, 1)) if count > 1 else None
        return [
            ZooKeeperServer(
                self.directory / f"zookeeper-{number}",
                its_ports,
                number=number,
                ensemble=everybody,
                prefix=prefixes[number - 1],
            )
            for number, its_ports in enumerate(ports, 1)
        ]

    def add(self, number: int, *, bent: bool = False) -> ClusterBroker:
        """A further broker, not started."""
        if self.network is not None:
            self.hosts[number] = self.network.add()
        broker = self._broker(f"broker-{number}", number, bent=bent)
        self.brokers[number] = broker
        return broker

    def twin(self, number: int) -> ClusterBroker:
        """Another with the id of a broker, at its host, with a directory of its own; not started.

        It is none of the cluster's: whoever starts it ends it.
        """
        return self._broker(f"twin-{number}-{next(_numbers)}", number)

    def _broker(self, directory: str, number: int, *, bent: bool = False) -> ClusterBroker:
        if self.network is None:
            address = f"{self._base}.{number}" if sys.platform == "linux" else "127.0.0.1"
            prefix: Sequence[str] = ()
        else:
            address, prefix = self.hosts[number].address, self.hosts[number].prefix
        return ClusterBroker(
            self.directory / directory,
            number,
            self.metastore,
            address=address,
            prefix=prefix,
            settings=self.settings,
            bent=bent,
        )

    # ---- life

    def start(self) -> Cluster:
        """Start everything, and wait until all brokers know each other."""
        if not self._shares_zookeeper:
            for server in self.zookeepers:
                server.launch()
            for server in self.zookeepers:
                server.wait()
        self.start_brokers()
        return self

    def start_brokers(self, *numbers: int) -> None:
        """Start these, or all that do not run, at the same time; wait until all know them."""
        chosen = [self.brokers[n] for n in numbers or self.brokers if not self.brokers[n].running]
        for broker in chosen:
            broker.launch()
        for broker in chosen:
            broker.wait_ready()
        self.until_known()

    def until_known(self) -> None:
        """Wait until every broker that is up knows all that are up, and a controller of them."""

        def known() -> bool:
            up = self.up()
            views = [self.view(asked=number) for number in up]
            return all(one.brokers >= set(up) and one.controller in up for one in views)

        self.until(known, "every broker knows every other")

    def kill(self, *numbers: int) -> None:
        """kill -9 of these at once."""
        for number in numbers:
            self.brokers[number].signal(signal.SIGKILL)
        for number in numbers:
            self.brokers[number].kill9()

    def up(self) -> list[int]:
        return [number for number, broker in self.brokers.items() if broker.is_up]

    def mend(self) -> None:
        """End every fault: the network passes, everything runs and knows the others."""
        if self.network is not None:
            self.network.heal()
        for server in self.zookeepers:
            if server.running:
                server.go_on()
            else:
                server.launch()
        for server in self.zookeepers:
            server.wait()
        for broker in self.brokers.values():
            broker.heal()
            broker.set_clock(0)
            if broker.is_paused:
                broker.resume()
        self.start_brokers()

    def close(self) -> None:
        """Kill everything that runs; a shared ZooKeeper goes on."""
        for broker in self.brokers.values():
            broker.kill9()
        if not self._shares_zookeeper:
            for server in self.zookeepers:
                server.kill()

    # ---- what it says

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers that were ever started."""
        return ",".join(one.address for one in self.brokers.values() if one.ready_lines)

    @contextlib.contextmanager
    def client(
        self, number: int | None = None, *, timeout_s: float = ASK_TIMEOUT_S
    ) -> Iterator[Client]:
        """A connection to this broker, or to any that is up."""
        broker = self.brokers[self.up()[0] if number is None else number]
        with Client((broker.host, broker.port), timeout_s=timeout_s) as client:
            yield client

    def view(self, *topics: str, asked: int | None = None) -> View:
        """The cluster in the eyes of one broker. Raises OSError when it does not answer."""
        named = [MetadataRequestTopic(name=name) for name in topics]
        return self._view(named, asked)

    def _view(self, topics: list[MetadataRequestTopic] | None, asked: int | None) -> View:
        message = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        with self.client(asked) as client:
            answer = client.call(ApiKey.METADATA, message)
        return View(
            answer.controller_id,
            frozenset(one.node_id for one in answer.brokers),
            {
                (topic.name, one.partition_index): PartitionView(
                    one.leader_id,
                    one.leader_epoch,
                    tuple(one.replica_nodes),
                    frozenset(one.isr_nodes),
                )
                for topic in answer.topics
                for one in topic.partitions
            },
        )

    def partition(self, topic: str, number: int = 0, *, asked: int | None = None) -> PartitionView:
        return self.view(topic, asked=asked).partitions[topic, number]

    def leader(self, topic: str, number: int = 0) -> int:
        """The partition's leader, once there is one that is up."""
        return self.until(
            lambda: leader if (leader := self.partition(topic, number).leader) in self.up() else 0,
            f"{topic}-{number} has a leader",
        )

    def followers(self, topic: str, number: int = 0) -> list[int]:
        found = self.partition(topic, number)
        return [one for one in found.replicas if one != found.leader]

    def controller(self) -> int:
        """The controller, once there is one that is up."""
        return self.until(
            lambda: found if (found := self.view().controller) in self.up() else 0,
            "there is a controller",
        )

    def coordinator(self, group: str) -> int:
        """The group's coordinator, once there is one that is up.

        Raises ValueError for what cannot be a group.
        """

        def found() -> int:
            message = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
            with self.client() as client:
                (answer,) = client.call(ApiKey.FIND_COORDINATOR, message).coordinators
            if answer.error_code not in (0, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR):
                raise ValueError(f"{group!r} has no coordinator: error {answer.error_code}")
            is_there = answer.error_code == 0 and answer.node_id in self.up()
            return answer.node_id if is_there else 0

        return self.until(found, f"group {group} has a coordinator")

    def until(
        self, what_is: Callable[[], int], what: str, *, patience_s: float = PATIENCE_S
    ) -> int:
        """The first true result; brokers that do not answer are asked again."""
        deadline = time.monotonic() + patience_s
        problem: OSError | AssertionError | None = None
        while time.monotonic() < deadline:
            try:
                if found := what_is():
                    return found
                problem = None
            except OSError as error:
                problem = error
            time.sleep(POLL_S)
        raise AssertionError(f"it did not come in {patience_s:.0f} s: {what} ({problem})")

    # ---- topics

    def create(self, topic: str, partitions: int = 1, *, replicas: int = 3, **config: str) -> None:
        """Create a topic through any broker, again while there is no controller; returns when it
        is led.
        """
        configs = [
            CreateTopicsRequestConfig(name=name.replace("_", "."), value=value)
            for name, value in config.items()
        ]
        message = CreateTopicsRequest(
            topics=[
                CreateTopicsRequestTopic(
                    name=topic,
                    num_partitions=partitions,
                    replication_factor=replicas,
                    configs=configs,
                )
            ],
            timeout_ms=10_000,
        )
        attempts = itertools.count()

        def created() -> bool:
            is_again = next(attempts) > 0
            with self.client(timeout_s=15) as client:
                (answer,) = client.call(ApiKey.CREATE_TOPICS, message).topics
            done = (0, TOPIC_ALREADY_EXISTS) if is_again else (0,)
            assert answer.error_code in (*done, *RETRIABLE), answer
            return answer.error_code in done

        self.until(created, f"{topic} is created")
        self.until_whole(topic, partitions)

    def until_whole(self, topic: str, partitions: int = 1) -> None:
        """Wait until every broker that is up sees a leader and the whole ISR everywhere."""

        def whole() -> bool:
            for number in self.up():
                found = self.view(topic, asked=number).partitions
                if len(found) != partitions:
                    return False
                for one in found.values():
                    if one.leader not in self.up() or one.isr != frozenset(one.replicas):
                        return False
            return True

        self.until(whole, f"{topic} is led everywhere, with a whole ISR")

    def until_all_whole(self) -> None:
        """Wait until every partition of every topic is led, with all its replicas in sync."""

        def whole() -> bool:
            found = self._view(None, None).partitions.values()
            return all(one.leader > 0 and one.isr == frozenset(one.replicas) for one in found)

        self.until(whole, "every partition is led, with a whole ISR")

    def problems(self) -> list[dict[str, Any]]:
        """Log lines of all brokers that no fault explains: see BrokerProcess.

        That a broker stood still for long is the machine's fault, when so much runs on it.
        """
        return [
            {"broker": number, **line}
            for number, broker in self.brokers.items()
            for line in broker.problems()
            if not str(line["event"]).startswith("the loop does not move")
        ]


@contextlib.contextmanager
def running(directory: Path, **arguments: Any) -> Iterator[Cluster]:
    """A cluster that runs; everything is killed in the end. Skips where there is no ZooKeeper."""
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster(directory, **arguments)
    running_clusters.append(cluster)
    try:
        yield cluster.start()
    finally:
        cluster.close()
        running_clusters.remove(cluster)


@contextlib.contextmanager
def standard(directory: Path, zookeepers: int = 3) -> Iterator[Cluster]:
    """Three brokers, the last of them bent; each process in a namespace where that is possible."""
    with contextlib.ExitStack() as stack:
        own = None
        if not network.missing():
            own = stack.enter_context(contextlib.closing(Network()))
        yield stack.enter_context(running(directory, zookeepers=zookeepers, network=own, bent={3}))
