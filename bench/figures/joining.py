"""How soon a consumer that joins a steady group reads: librdkafka's members, our coordinator."""

from __future__ import annotations

import time
from typing import Any

from bench.errors import BenchError
from bench.path.ask import Asker
from bench.path.measure import make_topic
from bench.path.process import BrokerProcess, running_broker
from bench.peers import trioq

Figures = dict[str, float]

TOPIC = "joined"
PARTITIONS = 44
STEADY_MEMBERS = 10
HEARTBEAT_S = 1.0
STEADY_S = 3.0
PATIENCE_S = 60.0
POLL_S = 0.002


def join_steady_group(_seconds: float) -> Figures:
    """Heartbeats from the subscription of an eleventh member to its partitions."""
    with running_broker({"group.initial.rebalance.delay.ms": "0"}) as broker:
        with Asker(broker) as asker:
            make_topic(trioq.PEER, asker, TOPIC, PARTITIONS)
        members = _Members(broker)
        try:
            for _ in range(STEADY_MEMBERS):
                members.add()
            members.poll_until(members.is_shared)
            members.poll_for(STEADY_S)
            started = time.perf_counter()
            members.add()
            members.poll_until(lambda: bool(members.assigned[-1]))
            joined_s = time.perf_counter() - started
            members.poll_until(members.is_shared)
        finally:
            members.close()
    return {"heartbeats_until_assigned": joined_s / HEARTBEAT_S}


class _Members:
    """Consumers of one group in this process, polled in turn."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._settings = {
            "bootstrap.servers": f"{broker.host}:{broker.port}",
            "group.id": "steady",
            "heartbeat.interval.ms": int(HEARTBEAT_S * 1000),
            "partition.assignment.strategy": "range",
            "log_level": 0,
        }
        self._consumers: list[Any] = []
        self.assigned: list[int] = []

    def add(self) -> None:
        """One more member; `assigned` tells how many partitions each has."""
        import confluent_kafka

        number = len(self._consumers)

        def given(_consumer: Any, partitions: list[Any]) -> None:
            self.assigned[number] = len(partitions)

        def taken(_consumer: Any, _partitions: list[Any]) -> None:
            self.assigned[number] = 0

        self.assigned.append(0)
        consumer = confluent_kafka.Consumer(self._settings)
        self._consumers.append(consumer)
        consumer.subscribe([TOPIC], on_assign=given, on_revoke=taken)

    def is_shared(self) -> bool:
        """Every member has its part of all partitions."""
        return all(self.assigned) and sum(self.assigned) == PARTITIONS

    def poll_until(self, condition: Any) -> None:
        """Raises BenchError when it takes a minute."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise BenchError(f"the group does not come to rest: {self.assigned}")
            self.poll_for(POLL_S)

    def poll_for(self, seconds: float) -> None:
        """Let every member work."""
        end = time.monotonic() + seconds
        while True:
            for consumer in self._consumers:
                consumer.poll(0)
            if time.monotonic() >= end:
                return
            time.sleep(POLL_S)

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
