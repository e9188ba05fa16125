"""Groups of real clients: members join, leave, crash and come back, under every protocol."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent
from tests.e2e.conftest import GROUPS
from tests.e2e.group_process import Member, everything, wait_until_shared
from tests.e2e.message import Message

StartMember = Callable[..., Member]


class Kind(NamedTuple):
    """A client with the strategy by which its members share partitions."""

    client: str
    strategy: str


KINDS = [
    Kind("confluent", "range"),
    Kind("confluent", "cooperative-sticky"),
    Kind("confluent", "consumer"),
    Kind("aiokafka", "range"),
    Kind("kafka-python", "range"),
    Kind("kafka-python", "cooperative-sticky"),
    Kind("kcat", "range"),
    Kind("trioq", "range"),
    Kind("trioq-asyncio", "cooperative-sticky"),
    Kind("trioq", "consumer"),
]
FAMILIES = [
    Kind("confluent", "range"),
    Kind("confluent", "consumer"),
    Kind("aiokafka", "range"),
    Kind("kafka-python", "range"),
    Kind("trioq", "range"),
    Kind("trioq-asyncio", "consumer"),
]
PARTITIONS = 4


def kind_id(kind: Kind) -> str:
    return f"{kind.client}-{kind.strategy}"


def create(broker: BrokerProcess, topic: str, partitions: int = PARTITIONS) -> set[tuple[str, int]]:
    """A topic with one record in each partition, its value `topic-partition`."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(30)
    for number in range(partitions):
        value = f"{topic}-{number}".encode()
        Confluent().write(broker.address, topic, [Message(value)], partition=number)
    return everything(topic, partitions)


def values(topic: str, partitions: int = PARTITIONS) -> set[str]:
    """What `create` wrote."""
    return {f"{topic}-{number}" for number in range(partitions)}


@pytest.mark.parametrize("kind", KINDS, ids=kind_id)
def test_members_join_leave_and_crash(
    group_broker: BrokerProcess, topic: str, kind: Kind, start_member: StartMember
) -> None:
    partitions = create(group_broker, topic)

    def member() -> Member:
        return start_member(
            kind.client, group_broker.address, topic, topics=[topic], strategy=kind.strategy
        )

    first = member()
    wait_until_shared([first], partitions)
    first.wait_for(lambda: set(first.processed) == values(topic), "read everything")
    second = member()
    wait_until_shared([first, second], partitions)
    assert len(second.assigned or ()) == PARTITIONS // 2
    second.stop()
    wait_until_shared([first], partitions)
    third = member()
    wait_until_shared([first, third], partitions)
    third.kill9()
    wait_until_shared([first], partitions)
    # What was committed before is not read again.
    assert sorted(first.processed) == sorted(values(topic)) or kind.client == "kcat"
    assert second.processed == third.processed == [] or kind.client == "kcat"


@pytest.mark.parametrize("kind", FAMILIES, ids=kind_id)
def test_a_static_member_comes_back_without_a_rebalance(
    group_broker: BrokerProcess, topic: str, kind: Kind, start_member: StartMember
) -> None:
    partitions = create(group_broker, topic)

    def member(instance_id: str) -> Member:
        return start_member(
            kind.client,
            group_broker.address,
            topic,
            topics=[topic],
            strategy=kind.strategy,
            instance_id=instance_id,
            session_timeout_ms=10_000,
        )

    stays, restarts = member("stays"), member("restarts")
    wait_until_shared([stays, restarts], partitions)
    owned, seen = restarts.assigned, stays.assignments()
    if kind.strategy == "consumer":
        restarts.stop()  # one that crashed is only let in again when its session has ended
    else:
        restarts.kill9()
    again = member("restarts")
    again.wait_for(lambda: again.assigned == owned, "got its partitions back")
    assert stays.assignments() == seen


def test_a_broker_that_restarts_in_the_middle_of_a_rebalance(
    start_broker: Callable[..., BrokerProcess], topic: str, start_member: StartMember
) -> None:
    """A member that stands still holds the rebalance up while the broker restarts."""
    broker = start_broker(settings=GROUPS)
    partitions = create(broker, topic)

    def member(kind: Kind) -> Member:
        return start_member(
            kind.client,
            broker.address,
            f"{topic}-{kind.strategy}",
            topics=[topic],
            strategy=kind.strategy,
            session_timeout_ms=8_000,
        )

    pairs = []
    for kind in (Kind("confluent", "range"), Kind("confluent", "consumer")):
        first = member(kind)
        wait_until_shared([first], partitions)
        pairs.append((kind, first))
    for _, first in pairs:
        first.freeze()
    groups = [(first, member(kind)) for kind, first in pairs]
    admin = AdminClient({"bootstrap.servers": broker.address})
    group = f"{topic}-range"
    wait_for_state(groups[0][1], admin, group, "PREPARING_REBALANCING")
    assert broker.terminate() == 0
    broker.start()
    for first, _ in groups:
        first.thaw()
    for members in groups:
        wait_until_shared(members, partitions)


def wait_for_state(member: Member, admin: AdminClient, group: str, state: str) -> None:
    """Wait until the group is described with that state."""

    def is_there() -> bool:
        described = admin.describe_consumer_groups([group])[group].result(30)
        return described.state.name == state

    member.wait_for(is_there, f"brought its group into {state}")


def test_members_stay_members_over_a_restart(
    start_broker: Callable[..., BrokerProcess], topic: str, start_member: StartMember
) -> None:
    """Also after a kill -9: no rebalance, and nothing is read twice."""
    broker = start_broker(settings=GROUPS)
    partitions = create(broker, topic)
    groups = [
        [
            start_member(
                kind.client,
                broker.address,
                f"{topic}-{number}",
                topics=[topic],
                strategy=kind.strategy,
                session_timeout_ms=30_000,
            )
            for _ in range(2)
        ]
        for number, kind in enumerate(
            [Kind("confluent", "range"), Kind("confluent", "consumer"), Kind("aiokafka", "range")]
        )
    ]
    for members in groups:
        wait_until_shared(members, partitions)
        processed_by(members, values(topic))
    before = [[member.assignments() for member in members] for members in groups]
    broker.kill9()
    broker.start()
    for number in range(PARTITIONS):
        value = f"later-{number}".encode()
        Confluent().write(broker.address, topic, [Message(value)], partition=number)
    later = {f"later-{number}" for number in range(PARTITIONS)}
    for members in groups:
        processed_by(members, values(topic) | later)
        assert sum(len(member.processed) for member in members) == 2 * PARTITIONS
    assert [[member.assignments() for member in members] for members in groups] == before


def processed_by(members: list[Member], expected: set[str]) -> None:
    """Wait until the members have processed what is expected, together."""

    def is_done() -> bool:
        return set().union(*(member.processed for member in members)) == expected

    members[0].wait_for(is_done, f"processed {expected} with the others")


def test_different_clients_in_one_group(
    group_broker: BrokerProcess, topic: str, start_member: StartMember
) -> None:
    partitions = create(group_broker, topic, 8)
    members = []
    for client in ("confluent", "aiokafka", "trioq", "kafka-python", "kcat"):
        members.append(start_member(client, group_broker.address, topic, topics=[topic]))
        wait_until_shared(members, partitions)
    members.pop(0).kill9()
    wait_until_shared(members, partitions)
    members.pop(0).stop()
    wait_until_shared(members, partitions)


@pytest.mark.parametrize(
    "clients",
    [
        (Kind("trioq", "cooperative-sticky"), Kind("confluent", "cooperative-sticky")),
        (Kind("kafka-python", "cooperative-sticky"), Kind("trioq", "cooperative-sticky")),
        (Kind("trioq", "consumer"), Kind("confluent", "consumer")),
    ],
    ids=lambda kinds: "-".join(map(kind_id, kinds)),
)
def test_ours_and_another_client_in_one_group(
    group_broker: BrokerProcess,
    topic: str,
    start_member: StartMember,
    clients: tuple[Kind, Kind],
) -> None:
    """Whoever comes first leads a classic group, as long as it stays."""
    partitions = create(group_broker, topic, 6)
    members: list[Member] = []
    for client, strategy in [*clients, *clients]:
        settings = {"topics": [topic], "strategy": strategy}
        members.append(start_member(client, group_broker.address, topic, **settings))
        wait_until_shared(members, partitions)
    processed_by(members, values(topic, 6))
    members.pop(0).stop()
    wait_until_shared(members, partitions)
    members.pop(1).kill9()
    wait_until_shared(members, partitions)


@pytest.mark.parametrize("kind", FAMILIES, ids=kind_id)
def test_subscription_by_pattern(
    group_broker: BrokerProcess, kind: Kind, start_member: StartMember
) -> None:
    prefix = f"pattern-{uuid.uuid4().hex[:8]}"
    first = create(group_broker, f"{prefix}-a", 2)
    create(group_broker, f"other-{prefix}-a", 1)
    members = [
        start_member(
            kind.client,
            group_broker.address,
            prefix,
            pattern=re.escape(prefix) + "-.*",
            strategy=kind.strategy,
        )
        for _ in range(2)
    ]
    wait_until_shared(members, first)
    second = create(group_broker, f"{prefix}-b", 2)
    wait_until_shared(members, first | second)


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_assignors_of_the_new_protocol(
    group_broker: BrokerProcess, topic: str, assignor: str, start_member: StartMember
) -> None:
    partitions = create(group_broker, topic) | create(group_broker, f"{topic}-more", PARTITIONS)
    members = [
        start_member(
            "confluent",
            group_broker.address,
            topic,
            topics=[topic, f"{topic}-more"],
            strategy="consumer",
            assignor=assignor,
        )
        for _ in range(2)
    ]
    wait_until_shared(members, partitions)
    owned: list[Any] = [sorted(number for _, number in member.assigned or ()) for member in members]
    if assignor == "range":
        assert sorted(owned) == [[0, 0, 1, 1], [2, 2, 3, 3]]
    else:
        assert [len(numbers) for numbers in owned] == [4, 4]
