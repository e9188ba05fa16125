"""A cluster's topics and clients of the consumer protocol, for tests of the group's machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import count
from typing import Any

from trioq.coordinator.consumer_group_state import ConsumerGroupState
from trioq.coordinator.consumer_requests import (
    ConsumerGroupSettings,
    ConsumerHeartbeat,
    ConsumerHeartbeatResult,
)
from trioq.coordinator.effects import Answer, Effect, Persist
from trioq.errors import KafkaError
from trioq.metastore.group_layout import Assignment
from trioq.types import TopicId

GROUP = "readers"
SETTINGS = ConsumerGroupSettings(session_timeout_ms=45_000, heartbeat_interval_ms=5_000)
REBALANCE_TIMEOUT_MS = 60_000


class FakeTopics:
    """Topics that tests create, delete and grow."""

    def __init__(self, **partitions: int) -> None:
        self.generation = 0
        self._ids: dict[str, TopicId] = {}
        self._counts: dict[TopicId, int] = {}
        self._names: dict[TopicId, str] = {}
        for name, number in partitions.items():
            self.create(name, number)

    def create(self, name: str, partitions: int) -> TopicId:
        topic_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{name}/{self.generation}")
        self._ids[name] = topic_id
        self._counts[topic_id] = partitions
        self._names[topic_id] = name
        self.generation += 1
        return topic_id

    def delete(self, name: str) -> None:
        topic_id = self._ids.pop(name)
        del self._counts[topic_id], self._names[topic_id]
        self.generation += 1

    def grow(self, name: str, partitions: int) -> None:
        self._counts[self._ids[name]] = partitions
        self.generation += 1

    def id_of(self, name: str) -> TopicId | None:
        return self._ids.get(name)

    def name_of(self, topic_id: TopicId) -> str | None:
        return self._names.get(topic_id)

    def partitions_of(self, topic_id: TopicId) -> int:
        return self._counts.get(topic_id, 0)

    def names(self) -> AbstractSet[str]:
        return self._ids.keys()

    def by_name(self, assignment: Assignment) -> dict[str, list[int]]:
        """An assignment as people read it."""
        return {self._names.get(t, str(t)): sorted(p) for t, p in assignment.items()}


def pairs(assignment: Assignment) -> set[tuple[TopicId, int]]:
    return {(topic_id, p) for topic_id, numbers in assignment.items() for p in numbers}


def as_assignment(owned: Iterable[tuple[TopicId, int]]) -> Assignment:
    found: dict[TopicId, set[int]] = {}
    for topic_id, partition in owned:
        found.setdefault(topic_id, set()).add(partition)
    return {topic_id: frozenset(numbers) for topic_id, numbers in found.items()}


class Bench:
    """A group with a clock, and what its effects came to."""

    def __init__(
        self,
        topics: FakeTopics | None = None,
        settings: ConsumerGroupSettings = SETTINGS,
    ) -> None:
        self.topics = FakeTopics(orders=6) if topics is None else topics
        self.settings = settings
        self.now_s = 1_000.0
        self._numbers = count(1)
        self.group = ConsumerGroupState(GROUP, settings, self.now_ms, make_member_id=self.new_id)
        self.writes = 0

    def new_id(self) -> str:
        return f"generated-{next(self._numbers)}"

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def send(self, request: ConsumerHeartbeat) -> Any:
        """The answer; a write came before it if there was one."""
        effects = self.group.heartbeat(request, "waiter", self.topics, self.now_s, self.now_ms)
        assert effects.count(Persist()) <= 1
        self.writes += effects.count(Persist())
        answers = [effect for effect in effects if isinstance(effect, Answer)]
        assert len(answers) == 1
        assert effects[-1] is answers[0]
        assert answers[0].waiter == "waiter"
        return answers[0].result

    def pass_time(self, seconds: float) -> list[Effect]:
        self.now_s += seconds
        if self.now_s < self.group.next_deadline_s():
            return []
        return self.group.on_time(self.now_s, self.now_ms)

    def restart(self) -> None:
        """The broker comes back with what was kept."""
        snapshot = self.group.snapshot()
        self.group = ConsumerGroupState.restore(
            snapshot, self.settings, self.now_s, make_member_id=self.new_id
        )
        assert self.group.snapshot() == snapshot


class Client:
    """A consumer that keeps to the protocol.

    It revokes in `revoke`, which `beat` does at once unless `lazy`; what it is newly given it has
    at once.
    """

    def __init__(
        self,
        bench: Bench,
        member_id: str,
        *names: str,
        regex: str | None = None,
        instance_id: str | None = None,
        assignor: str | None = None,
        lazy: bool = False,
    ) -> None:
        self.bench = bench
        self.member_id = member_id
        self.names = frozenset(names)
        self.regex = regex
        self.instance_id = instance_id
        self.assignor = assignor
        self.lazy = lazy
        self.epoch = 0
        self.owned: set[tuple[TopicId, int]] = set()
        self.to_revoke: set[tuple[TopicId, int]] = set()
        self.says_all = True
        self.says_owned = False

    def request(self, **changes: Any) -> ConsumerHeartbeat:
        request = ConsumerHeartbeat(
            group_id=GROUP,
            member_id=self.member_id,
            member_epoch=self.epoch,
            instance_id=self.instance_id,
            client_id="client",
            client_host="/127.0.0.1",
        )
        if self.says_all:
            request = request._replace(
                rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
                subscribed_names=self.names,
                subscribed_regex=self.regex,
                server_assignor=self.assignor,
                owned=as_assignment(self.owned),
            )
        elif self.says_owned:
            request = request._replace(owned=as_assignment(self.owned))
        return request._replace(**changes)

    def beat(self, **changes: Any) -> Any:
        """One heartbeat and what follows from its answer, which is returned."""
        result = self.bench.send(self.request(**changes))
        self.take(result)
        return result

    def lose(self, **changes: Any) -> Any:
        """One heartbeat whose answer never arrives: the next one says everything."""
        result = self.bench.send(self.request(**changes))
        self.says_all = True
        return result

    def take(self, result: Any) -> None:
        if isinstance(result, KafkaError):
            self.owned.clear()
            self.to_revoke.clear()
            self.epoch = 0
            self.says_all = True
            return
        assert isinstance(result, ConsumerHeartbeatResult)
        self.says_all = self.says_owned = False
        self.member_id, self.epoch = result.member_id, result.member_epoch
        if result.assignment is not None:
            wanted = pairs(result.assignment)
            self.to_revoke = self.owned - wanted
            if wanted - self.owned:
                self.says_owned = True
            self.owned |= wanted
            if not self.lazy:
                self.revoke()

    def revoke(self) -> None:
        if self.to_revoke:
            self.owned -= self.to_revoke
            self.to_revoke = set()
            self.says_owned = True

    def leave(self, epoch: int = -1) -> Any:
        self.revoke()
        result = self.bench.send(self.request(member_epoch=epoch, owned=None))
        self.owned.clear()
        self.epoch = 0
        self.says_all = True
        return result

    @property
    def assignment(self) -> dict[str, list[int]]:
        return self.bench.topics.by_name(as_assignment(self.owned))


def settle(clients: Iterable[Client], rounds: int = 8) -> None:
    """Heartbeats all around until nobody has anything left to do."""
    everyone = list(clients)
    for _ in range(rounds):
        for client in everyone:
            client.beat()


def sizes(clients: Iterable[Client]) -> list[int]:
    return sorted(len(client.owned) for client in clients)
