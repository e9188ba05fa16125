"""Clients of the classic protocol in a group of the consumer protocol."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from tests.machines.consumer_group_support import GROUP, Bench
from trioq.coordinator.effects import Answer, Convert, Effect, Persist
from trioq.coordinator.group_requests import JoinRefused, JoinRequest, JoinResult, SyncRequest
from trioq.errors import KafkaError, RebalanceInProgress
from trioq.types import TopicId
from trioq.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
    ConsumerProtocolTopicPartition,
    decode_assignment,
    encode_assignment,
    encode_subscription,
)

SESSION_TIMEOUT_MS = 30_000
REBALANCE_TIMEOUT_MS = 60_000


def named(owned: AbstractSet[tuple[str, int]]) -> list[ConsumerProtocolTopicPartition]:
    return [
        ConsumerProtocolTopicPartition(
            topic=topic, partitions=sorted(p for name, p in owned if name == topic)
        )
        for topic in sorted({name for name, _ in owned})
    ]


NOTHING: frozenset[tuple[str, int]] = frozenset()


def subscription(
    *names: str, owned: AbstractSet[tuple[str, int]] = NOTHING, version: int = 1
) -> bytes:
    return encode_subscription(
        ConsumerProtocolSubscription(topics=sorted(names), owned_partitions=named(owned)), version
    )


def assignment(*owned: tuple[str, int]) -> bytes:
    content = ConsumerProtocolAssignment(assigned_partitions=named(set(owned)))
    return encode_assignment(content, 0)


class ClassicClient:
    """A consumer that joins, syncs and heartbeats; `eager` ones give up everything before."""

    def __init__(
        self,
        bench: Bench,
        member_id: str,
        *names: str,
        eager: bool = False,
        instance_id: str | None = None,
    ) -> None:
        self.bench = bench
        self.member_id = member_id
        self.names = names
        self.eager = eager
        self.instance_id = instance_id
        self.generation = -1
        self.owned: set[tuple[str, int]] = set()
        self.protocol = "range" if eager else "cooperative-sticky"
        self.must_join = True
        self.joined_protocol: str | None = None
        self.ids: dict[str, TopicId] = {}

    def request(self, **changes: Any) -> JoinRequest:
        metadata = subscription(*self.names, owned=self.owned, version=0 if self.eager else 1)
        return JoinRequest(
            group_id=GROUP,
            member_id=self.member_id,
            instance_id=self.instance_id,
            client_id="client",
            client_host="/127.0.0.1",
            protocol_type="consumer",
            protocols=((self.protocol, metadata), ("shared", metadata)),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            requires_known_member_id=True,
        )._replace(**changes)

    def join_effects(self, **changes: Any) -> list[Effect]:
        bench = self.bench
        if self.eager:
            self.owned.clear()
        request = self.request(**changes)
        return bench.group.classic_join(request, self, bench.topics, bench.now_s, bench.now_ms)

    def join(self, **changes: Any) -> Any:
        effects = self.join_effects(**changes)
        assert not any(isinstance(effect, Convert) for effect in effects)
        self.bench.writes += effects.count(Persist())
        answer = effects[-1]
        assert isinstance(answer, Answer)
        assert answer.waiter is self
        result = answer.result
        if isinstance(result, JoinRefused):
            self.member_id = result.member_id
            return self.join(**changes)
        if isinstance(result, JoinResult):
            self.member_id, self.generation = result.member_id, result.generation
            self.joined_protocol = result.protocol
            self.must_join = False
        else:
            self.take(result)
        return result

    def sync(self) -> Any:
        bench = self.bench
        request = SyncRequest(
            self.generation, self.member_id, self.instance_id, "consumer", self.joined_protocol
        )
        (answer,) = bench.group.classic_sync(request, self, bench.topics, bench.now_s)
        assert isinstance(answer, Answer)
        result = answer.result
        if isinstance(result, KafkaError):
            self.take(result)
            return result
        _, content = decode_assignment(result.assignment)
        given = {(t.topic, p) for t in content.assigned_partitions for p in t.partitions}
        self.ids = {name: topic_id for name in self.names if (topic_id := bench.topics.id_of(name))}
        self.must_join = not self.owned <= given  # tells others that it gave something up
        self.owned = given
        return result

    def beat(self) -> KafkaError | None:
        """What such a client does in one heartbeat interval."""
        if not self.must_join:
            bench = self.bench
            error = bench.group.classic_heartbeat(
                self.member_id, self.instance_id, self.generation, bench.now_s
            )
            if error is None:
                return None
            self.take(error)
        result = self.join()
        if isinstance(result, KafkaError):
            return result
        result = self.sync()
        return result if isinstance(result, KafkaError) else None

    def take(self, error: KafkaError) -> None:
        self.must_join = True
        if not isinstance(error, RebalanceInProgress):
            self.owned.clear()
            self.generation = -1
            self.member_id = ""

    def owned_ids(self) -> set[tuple[TopicId, int]]:
        """What it owns, by the ids that its topics had when it was given them."""
        return {(self.ids[name], p) for name, p in self.owned if name in self.ids}
