"""Random histories of a consumer group: clients that lag, crash, lose answers; a broker that dies.

What was answered was written before, so a broker that comes back begins with the last write. The
clients are of both protocols. At the end everybody behaves, and every partition has an owner.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machines.classic_member_support import ClassicClient
from tests.machines.consumer_group_support import Bench, Client, FakeTopics, pairs
from trioq.coordinator.consumer_group_state import ConsumerGroupState
from trioq.coordinator.consumer_requests import (
    ConsumerGroupPhase,
    ConsumerGroupSettings,
    MigrationPolicy,
)
from trioq.coordinator.effects import Persist
from trioq.coordinator.group_requests import LeavingMember
from trioq.errors import KafkaError
from trioq.types import TopicId

NAMES = ["orders", "payments", "orders_eu"]
SETTINGS = ConsumerGroupSettings(migration_policy=MigrationPolicy.UPGRADE, max_size=6)
MAX_CLIENTS = 6

subscriptions = st.frozensets(st.sampled_from(NAMES), min_size=1)
indices = st.integers(0, MAX_CLIENTS - 1)


class DurableBench(Bench):
    """Knows what is written: the group as it was when an answer was last waited for."""

    def __init__(self, topics: FakeTopics) -> None:
        super().__init__(topics, SETTINGS)
        self.written = self.group.snapshot()

    def write(self) -> None:
        self.written = self.group.snapshot()

    def restart(self) -> None:
        self.group = ConsumerGroupState.restore(
            self.written, self.settings, self.now_s, make_member_id=self.new_id
        )


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.topics = FakeTopics(orders=4, payments=3)
        self.bench = DurableBench(self.topics)
        self.clients: list[Client | ClassicClient] = []
        self.crashed: list[Client | ClassicClient] = []
        self.names = 0

    @initialize(
        kinds=st.lists(st.sampled_from(["lazy", "prompt", "classic"]), min_size=2, max_size=4)
    )
    def begin(self, kinds: list[str]) -> None:
        """A group that works; one of the consumer protocol comes first."""
        self.start(frozenset(["orders"]), None, kinds[0] == "lazy", static=True, assignor=None)
        for kind in kinds[1:]:
            if kind == "classic":
                self.start_classic(frozenset(["orders", "payments"]), eager=False, static=False)
            else:
                self.start(frozenset(["orders"]), None, kind == "lazy", static=False, assignor=None)
        for _ in range(3):
            self.beat_all()

    # Clients come and go.

    def new_name(self) -> str:
        self.names += 1
        return f"m{self.names}"

    def add(self, client: Client | ClassicClient) -> None:
        self.clients.append(client)

    @property
    def has_room(self) -> bool:
        return len(self.clients) < MAX_CLIENTS

    @precondition(lambda self: self.has_room)
    @rule(
        names=subscriptions,
        regex=st.none() | st.sampled_from(["orders.*", ".*"]),
        lazy=st.booleans(),
        static=st.booleans(),
        assignor=st.sampled_from([None, "uniform", "range"]),
    )
    def start(
        self,
        names: frozenset[str],
        regex: str | None,
        lazy: bool,
        static: bool,
        assignor: str | None,
    ) -> None:
        name = self.new_name()
        self.add(
            Client(
                self.bench, name, *names, regex=regex, lazy=lazy, assignor=assignor,
                instance_id=f"instance of {name}" if static else None,
            )
        )  # fmt: skip

    @precondition(lambda self: self.has_room)
    @rule(names=subscriptions, eager=st.booleans(), static=st.booleans())
    def start_classic(self, names: frozenset[str], eager: bool, static: bool) -> None:
        instance_id = f"instance of {self.new_name()}" if static else None
        self.add(ClassicClient(self.bench, "", *names, eager=eager, instance_id=instance_id))

    def pick(self, index: int) -> Client | ClassicClient | None:
        return self.clients[index % len(self.clients)] if self.clients else None

    @rule(index=indices)
    def crash(self, index: int) -> None:
        client = self.pick(index)
        if client is not None:
            self.clients.remove(client)
            self.crashed.append(client)

    @rule(index=indices)
    def leave(self, index: int) -> None:
        client = self.pick(index)
        if client is None:
            return
        self.clients.remove(client)
        if isinstance(client, Client):
            client.leave()
        elif not self.bench.group.is_empty:
            leaving = [LeavingMember(client.member_id, client.instance_id)]
            self.bench.group.classic_leave(leaving, self.bench.now_ms)
        self.bench.write()

    @rule(index=indices, leaves=st.booleans())
    def restart_static(self, index: int, leaves: bool) -> None:
        """A process is replaced by another one with its instance id; perhaps it said so."""
        client = self.pick(index)
        if not isinstance(client, Client) or client.instance_id is None:
            return
        if leaves:
            client.leave(-2)
            self.bench.write()
        else:
            self.crashed.append(client)
        position = self.clients.index(client)
        self.clients[position] = Client(
            self.bench, self.new_name(), *client.names, instance_id=client.instance_id
        )

    @rule(index=indices, names=subscriptions)
    def resubscribe(self, index: int, names: frozenset[str]) -> None:
        client = self.pick(index)
        if isinstance(client, Client):
            client.names, client.says_all = names, True
        elif client is not None:
            client.names, client.must_join = tuple(names), True

    # Heartbeats.

    def can_beat(self, client: Client | ClassicClient) -> bool:
        return isinstance(client, Client) or not self.bench.group.is_empty

    def beat_client(self, client: Client | ClassicClient) -> None:
        if self.can_beat(client):
            epoch = client.epoch if isinstance(client, Client) else client.generation
            before = self.written_now()
            writes = self.bench.writes
            result = client.beat()
            if self.bench.writes == writes:
                assert self.written_now() == before
            self.bench.write()
            if isinstance(client, Client) and not isinstance(result, KafkaError):
                assert client.epoch >= epoch
                assert client.epoch <= self.bench.group.assignment_epoch
                assert (result.assignment is not None) or epoch != 0

    def written_now(self) -> Any:
        return self.bench.group.snapshot()

    @rule(order=st.lists(indices, min_size=1, max_size=6))
    def beat(self, order: list[int]) -> None:
        for index in order:
            client = self.pick(index)
            if client is not None:
                self.beat_client(client)

    @rule()
    def beat_all(self) -> None:
        for client in list(self.clients):
            self.beat_client(client)

    @rule(index=indices)
    def lose_answer(self, index: int) -> None:
        client = self.pick(index)
        if isinstance(client, Client):
            client.lose()
            self.bench.write()

    @rule(index=indices)
    def revoke(self, index: int) -> None:
        client = self.pick(index)
        if isinstance(client, Client):
            client.revoke()

    @rule(index=indices)
    def say_everything(self, index: int) -> None:
        client = self.pick(index)
        if isinstance(client, Client):
            client.says_all = True

    # The broker, the cluster and time.

    @rule()
    def restart_broker(self) -> None:
        self.bench.restart()

    @rule(index=indices)
    def broker_dies_before_it_wrote(self, index: int) -> None:
        client = self.pick(index)
        if isinstance(client, Client):
            client.lose()
            self.bench.restart()

    @rule(name=st.sampled_from(NAMES), more=st.integers(1, 3))
    def create_or_grow(self, name: str, more: int) -> None:
        topic_id = self.topics.id_of(name)
        if topic_id is None:
            self.topics.create(name, more)
        else:
            self.topics.grow(name, min(self.topics.partitions_of(topic_id) + more, 8))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if self.topics.id_of(name) is not None:
            self.topics.delete(name)

    @rule()
    def see_topics(self) -> None:
        if self.bench.group.topics_changed(self.topics) == [Persist()]:
            self.bench.write()

    @rule(seconds=st.sampled_from([1, 5, 20, 31, 46, 61]))
    def pass_time(self, seconds: int) -> None:
        if self.bench.pass_time(seconds):
            self.bench.write()

    # What always holds.

    def owned_by_members(self) -> list[tuple[str, set[tuple[TopicId, int]]]]:
        """What each client that is a member has, as it sees it; who was removed does not count."""
        ids = {m.member_id for m in self.bench.group.snapshot().members}
        return [
            (c.member_id, c.owned if isinstance(c, Client) else c.owned_ids())
            for c in self.clients + self.crashed
            if c.member_id in ids
        ]

    @invariant()
    def a_partition_has_one_owner_who_was_given_it(self) -> None:
        members = {m.member_id: m for m in self.bench.group.snapshot().members}
        seen: dict[tuple[TopicId, int], str] = {}
        for member_id, owned in self.owned_by_members():
            member = members[member_id]
            assert owned <= pairs(member.assigned) | pairs(member.pending_revocation)
            for partition in owned:
                assert seen.setdefault(partition, member_id) == member_id

    @invariant()
    def nothing_is_assigned_twice(self) -> None:
        seen: set[tuple[TopicId, int]] = set()
        for member in self.bench.group.snapshot().members:
            has = pairs(member.assigned) | pairs(member.pending_revocation)
            assert not seen & has
            assert not pairs(member.assigned) & pairs(member.pending_revocation)
            seen |= has

    @invariant()
    def epochs_are_in_order_and_records_fresh(self) -> None:
        group = self.bench.group
        assert 0 <= group.assignment_epoch <= group.group_epoch
        for member in group._members.values():
            assert member.epoch <= group.assignment_epoch
            kept = member.record()
            member._record = None
            assert member.record() == kept
            assert group.next_deadline_s() <= member.deadline_s()

    def teardown(self) -> None:
        """Everybody behaves from now on."""
        for client in self.clients:
            if isinstance(client, Client):
                client.lazy = False
                client.revoke()
        for _ in range(16):
            self.pass_time(5)
            for client in list(self.clients):
                self.beat_client(client)
        self.a_partition_has_one_owner_who_was_given_it()
        group = self.bench.group
        if group.is_empty:
            assert all(isinstance(client, ClassicClient) for client in self.clients)
            return
        assert group.phase is ConsumerGroupPhase.STABLE
        wanted = {
            (topic_id, p)
            for name in group.subscribed_topics(self.topics)
            if (topic_id := self.topics.id_of(name)) is not None
            for p in range(self.topics.partitions_of(topic_id))
        }
        owned = [partition for _, has in self.owned_by_members() for partition in has]
        assert len(owned) == len(set(owned))
        assert set(owned) == wanted


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
