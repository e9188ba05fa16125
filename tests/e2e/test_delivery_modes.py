"""What arrives how often, shown by killing the consumer at the worst moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent
from tests.e2e.conftest import GROUPS
from tests.e2e.group_member import AFTER, BEFORE
from tests.e2e.group_process import Member
from tests.e2e.message import Message

StartMember = Callable[..., Member]

COUNT = 6
KILLED_AT = 3
CLIENTS = ["confluent", "aiokafka", "kafka-python", "trioq", "trioq-asyncio"]


def values(count: int = COUNT) -> list[str]:
    return [f"v{number}" for number in range(count)]


def write(broker: BrokerProcess, topic: str, *, acks: int) -> None:
    """One partition, so that the order is the producer's."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    broker.settle()  # what is sent with acks=0 to a broker that does not lead yet is lost
    messages = [Message(value.encode()) for value in values()]
    Confluent().write(broker.address, topic, messages, acks=acks)


def killed_and_replaced(
    broker: BrokerProcess, topic: str, client: str, commit: str, start_member: StartMember
) -> tuple[list[str], list[str]]:
    """What a member processed that was killed at its worst moment, and what its successor did."""
    first = start_member(
        client,
        broker.address,
        topic,
        topics=[topic],
        commit=commit,
        pause_at=f"v{KILLED_AT}",
        session_timeout_ms=1_000,
    )
    first.wait_for_event("paused")
    first.kill9()
    second = start_member(client, broker.address, topic, topics=[topic], commit=commit)
    second.wait_for(lambda: values()[-1] in second.processed, "read up to the end")
    second.stop()
    return first.processed, second.processed


@pytest.mark.parametrize("client", CLIENTS)
def test_at_most_once(
    group_broker: BrokerProcess, topic: str, client: str, start_member: StartMember
) -> None:
    """Commit, then process; acks=0. Killed between the two: a record is lost, none comes twice."""
    write(group_broker, topic, acks=0)
    first, second = killed_and_replaced(group_broker, topic, client, BEFORE, start_member)
    assert first == values()[:KILLED_AT]
    assert second == values()[KILLED_AT + 1 :]


@pytest.mark.parametrize("client", CLIENTS)
def test_at_least_once(
    group_broker: BrokerProcess, topic: str, client: str, start_member: StartMember
) -> None:
    """Process, then commit; acks=all. Killed between: a record comes twice, none is lost."""
    write(group_broker, topic, acks=-1)
    first, second = killed_and_replaced(group_broker, topic, client, AFTER, start_member)
    assert first == values()[: KILLED_AT + 1]
    assert second == values()[KILLED_AT:]


def test_an_idempotent_producer_and_a_broker_that_is_killed(
    start_broker: Callable[..., BrokerProcess], topic: str, start_member: StartMember
) -> None:
    """Retries write nothing twice; consumer and broker are killed meanwhile, nothing is lost."""
    broker = start_broker(settings=GROUPS)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Confluent.producer(
        broker.address,
        **{"enable.idempotence": True, "linger.ms": 5, "reconnect.backoff.max.ms": 200},
    )
    refused: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            refused.append(error)

    consumers = [
        start_member(
            "confluent", broker.address, topic, topics=[topic], pause_at="n150",
            session_timeout_ms=1_000,
        )
    ]  # fmt: skip
    expected = [f"n{number}" for number in range(400)]
    for number, value in enumerate(expected):
        producer.produce(topic, value.encode(), on_delivery=delivered)
        producer.poll(0)
        if number == 200:
            consumers[0].wait_for_event("paused")
            consumers[0].kill9()
            broker.kill9()
            broker.start()
            consumers.append(start_member("confluent", broker.address, topic, topics=[topic]))
    assert producer.flush(30) == 0
    assert refused == []
    stored = Confluent().read(broker.address, topic, 0, len(expected))
    assert [record.value.decode() for record in stored] == expected
    last = consumers[1]
    last.wait_for(lambda: expected[-1] in last.processed, "read up to the end")
    processed = consumers[0].processed + last.processed
    assert list(dict.fromkeys(processed)) == expected
    # What was processed and not committed when the consumer was killed comes again; no more.
    assert len(processed) <= len(expected) + 1
