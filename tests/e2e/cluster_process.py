"""A cluster that stands in for the one broker of the end-to-end tests.

With E2E=cluster every broker that the tests ask for is three, with a ZooKeeper ensemble that
all share: `address` are those of all of them, and what is done to the broker is done to each.
Where a test connects by itself, `host` and `port` are of the broker that leads what it is about.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.harness import Cluster
from tests.e2e.broker_process import STOP_TIMEOUT_S, BrokerProcess
from tests.zookeeper.server import ZooKeeperServer

SESSION_TIMEOUT_MS = "10000"
"""Machines that run tests are busy: a broker that stands still for less is missed by nobody."""


class ClusterProcess(BrokerProcess):
    """Three brokers in the place of one; see BrokerProcess.

    `topic` is the topic that the test is about.
    """

    def __init__(
        self,
        directory: Path,
        ensemble: Sequence[ZooKeeperServer],
        *,
        settings: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, settings=settings, arguments=arguments, environment=environment)
        self.topic: str | None = None
        self.cluster = Cluster(
            directory,
            ensemble=ensemble,
            settings={"zookeeper.session.timeout.ms": SESSION_TIMEOUT_MS, **(settings or {})},
        )
        for broker in self._brokers:
            broker.arguments += arguments
            broker.environment.update(environment or {})

    @property
    def _brokers(self) -> list[Any]:
        return list(self.cluster.brokers.values())

    # ---- life

    def start(self) -> BrokerProcess:
        self.cluster.start()
        self.cluster.until_all_whole()
        self.ready_lines = [line for broker in self._brokers for line in broker.ready_lines]
        return self

    @property
    def running(self) -> bool:
        return all(broker.running for broker in self._brokers)

    def signal(self, number: signal.Signals) -> None:
        for broker in self._brokers:
            broker.signal(number)

    def kill9(self) -> None:
        for broker in self._brokers:
            broker.kill9()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        return max(broker.wait(timeout_s) for broker in self._brokers)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        return max(broker.terminate(timeout_s) for broker in self._brokers)

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()

    # ---- where it is

    @property
    def address(self) -> str:
        return self.cluster.bootstrap

    @property
    def given_config(self) -> dict[str, str]:
        return {"min.insync.replicas": "2"}

    def settle(self) -> None:
        """A change that is seen everywhere is behind all that was changed before it."""
        name = f"settle-{uuid.uuid4().hex[:8]}"
        self.cluster.create(name, replicas=1)
        with self.cluster.client(self.cluster.controller()) as client:
            assert client.delete(name) == 0
        self.cluster.until(
            lambda: all(
                self.cluster.view(name, asked=number).partitions == {}
                for number in self.cluster.up()
            ),
            "what was deleted is gone everywhere",
        )

    @property
    def nodes(self) -> dict[int, str]:
        return {broker.number: broker.address for broker in self._brokers}

    @property
    def controller_id(self) -> int:
        return self.cluster.controller()

    @property
    def stdout(self) -> bytes:
        return b"".join(broker.stdout for broker in self._brokers)

    @stdout.setter
    def stdout(self, _: bytes) -> None:
        """What they print is theirs."""

    @property
    def one(self) -> Any:
        """The broker that leads partition 0 of the topic, as all know; else the first."""
        number = 1
        if self.running and (topic := self.topic or self._only_topic()):
            number = self._leader(topic)
        return self.cluster.brokers[number]

    def _leader(self, topic: str) -> int:
        """Who leads the topic, once all say the same; 1 if nobody knows of such a topic."""

        def found() -> int:
            up = self.cluster.up()
            views = [self.cluster.view(topic, asked=one).partitions for one in up]
            told = {view[topic, 0].leader if (topic, 0) in view else None for view in views}
            leader = told.pop()
            if told:
                return 0
            return 1 if leader is None else leader if leader in up else 0

        return self.cluster.until(found, f"all brokers say who leads {topic}")

    def coordinator_of(self, group: str) -> tuple[str, int]:
        try:
            number = self.cluster.coordinator(group)
        except ValueError:  # what is no group is refused by any broker
            number = 1
        return self.cluster.brokers[number].host, self.cluster.brokers[number].port

    def _only_topic(self) -> str | None:
        with self.cluster.client() as client:
            topics = client.topics()
        return topics.pop() if len(topics) == 1 else None

    @property
    def endpoint(self) -> tuple[str, int]:
        one = self.one
        return one.host, one.port

    @property
    def host(self) -> str:
        return str(self.one.host)

    @property
    def port(self) -> int:
        return int(self.one.port)

    @property
    def node_id(self) -> int:
        return int(self.one.number)

    @property
    def data_dir(self) -> Path:
        return Path(self.one.data_dir)

    @data_dir.setter
    def data_dir(self, _: Path) -> None:
        """Each has its own."""

    @property
    def pid(self) -> int:
        return int(self.one.pid)

    # ---- what it says and holds

    def problems(self) -> list[dict[str, Any]]:
        return self.cluster.problems()

    def log_text(self) -> str:
        return "".join(broker.log_text() for broker in self._brokers)

    def segment_paths(self, topic: str, partition: int = 0) -> list[Path]:
        """Those of the leader, or of the first broker while none runs."""
        leader = self.cluster.leader(topic, partition) if self.cluster.up() else 1
        return list(self.cluster.brokers[leader].segment_paths(topic, partition))

    def resident_bytes(self) -> int:
        return sum(broker.resident_bytes() for broker in self._brokers)

    def open_sockets(self) -> int:
        return sum(broker.open_sockets() for broker in self._brokers)
