"""A live group changes its protocol: real clients of both in it at once (KIP-848)."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.group_process import Member, wait_until_shared
from tests.e2e.test_groups import Kind, create, kind_id, values

StartMember = Callable[..., Member]

CLASSIC = [
    Kind("confluent", "cooperative-sticky"),
    Kind("aiokafka", "range"),
    Kind("kafka-python", "range"),
]


@pytest.mark.parametrize("kind", CLASSIC, ids=kind_id)
def test_a_rolling_upgrade_and_the_way_back(
    group_broker: BrokerProcess, topic: str, kind: Kind, start_member: StartMember
) -> None:
    group = f"group-{uuid.uuid4()}"
    partitions = create(group_broker, topic)

    def member(of: Kind) -> Member:
        return start_member(
            of.client, group_broker.address, group, topics=[topic], strategy=of.strategy
        )

    new = Kind("confluent", "consumer")
    olds = [member(kind)]
    wait_until_shared(olds, partitions)
    olds.append(member(kind))
    wait_until_shared(olds, partitions)
    first = member(new)
    wait_until_shared([*olds, first], partitions)
    olds[0].stop()
    wait_until_shared([olds[1], first], partitions)
    second = member(new)
    wait_until_shared([olds[1], first, second], partitions)
    olds[1].stop()
    wait_until_shared([first, second], partitions)

    back = member(kind)
    wait_until_shared([back, first, second], partitions)
    first.stop()
    second.kill9()
    wait_until_shared([back], partitions)
    last = member(kind)
    wait_until_shared([back, last], partitions)
    processed = [value for one in (*olds, first, second, back, last) for value in one.processed]
    assert set(processed) == values(topic)
