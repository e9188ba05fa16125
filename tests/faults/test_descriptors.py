"""File descriptors run out: connections are refused, logs go on working, and it passes."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.client import Client
from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.ledger import Ledger

Make = Callable[..., FaultyBroker]

PARTITIONS = 60


def connect_until_refused(broker: FaultyBroker, most: int) -> list[Client]:
    """Connections that are served; stops at the first that is not."""
    held: list[Client] = []
    while len(held) < most:
        client = broker.client(timeout_s=2)
        try:
            client.topics()
        except (ConnectionError, TimeoutError):
            client.close()
            return held
        held.append(client)
    return held


def test_more_connections_than_descriptors(make_broker: Make) -> None:
    """The limits leave the logs their share, so that only connections are refused."""
    broker = make_broker()
    broker.limit_descriptors(220)
    broker.start()
    client = broker.client()
    client.create("t", PARTITIONS)
    ledgers = [Ledger("t", number) for number in range(PARTITIONS)]
    held = connect_until_refused(broker, 400)
    assert 10 <= len(held) < 220
    wait_until(lambda: bool(broker.events("connection refused")), "the refusal is logged")
    for ledger in ledgers:
        ledger.send(client, 2)
        ledger.check(client)
    for one in held:
        one.close()
    wait_until(lambda: len(connect_until_refused(broker, 5)) == 5, "connections are taken again")
    client = broker.client()
    for ledger in ledgers:
        ledger.send(client)
        ledger.check(client)
    assert not broker.events("log_dir_offline")
    broker.stop_sound()


def test_fewer_descriptors_than_the_broker_wants(make_broker: Make) -> None:
    """So few that its own reserve does not fit: it still serves, and no directory goes offline."""
    broker = make_broker(settings={"log.segment.bytes": "2000"})
    broker.limit_descriptors(100)
    broker.start()
    client = broker.client()
    client.create("t", PARTITIONS)
    ledgers = [Ledger("t", number) for number in range(PARTITIONS)]
    held = connect_until_refused(broker, 120)
    for ledger in ledgers:
        ledger.send(client, 8)
    for one in held:
        one.close()
    wait_until(lambda: bool(connect_until_refused(broker, 1)), "connections are taken again")
    client = broker.client()
    for ledger in ledgers:
        ledger.check(client)
    assert not broker.events("log_dir_offline")
    broker.stop_sound()
