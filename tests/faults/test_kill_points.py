"""kill -9 of a real broker between two steps: what was acknowledged is there, in order, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.faults.client import Client
from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.ledger import Ledger

Make = Callable[..., FaultyBroker]

SMALL_SEGMENTS = {"log.segment.bytes": "2000", "log.retention.check.interval.ms": "50"}


class Step(NamedTuple):
    """Where the process dies, and what it is made to do for it."""

    operation: str
    path: str
    when: str = "before"
    skip: int = 0

    def rule(self) -> dict[str, Any]:
        return {**self._asdict(), "do": "kill"}


def step_name(step: Step) -> str:
    name = step.path.rpartition("/")[2].replace("*", "")
    return f"{step.when}-{step.operation}-{name}-{step.skip}"


def steps(*them: Step) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", [pytest.param(one, id=step_name(one)) for one in them])


def die(broker: FaultyBroker, step: Step, act: Callable[[Client], object]) -> None:
    """Arm, act, and see the process die; it is started again without faults."""
    client = broker.client()
    broker.arm(step.rule())
    with pytest.raises(ConnectionError):
        act(client)
        client.read_frame()  # it was answered, and died after that
    broker.wait_killed()
    broker.heal()
    broker.start()


def assert_sound(broker: FaultyBroker, *ledgers: Ledger) -> None:
    """All is there, more can be written, and what is on disk after a clean stop is sound."""
    client = broker.client()
    for ledger in ledgers:
        ledger.check(client)
        ledger.settle(client)
        ledger.send(client, 3)
        ledger.check(client)
    broker.stop_sound()


@steps(
    Step("make_directory", "*/t-0"),
    Step("write_file", "*/t-0/partition.metadata", "after"),
    Step("open", "*/t-0/00000000000000000000.log", "before"),
    Step("pwritev", "*/t-0/*.log", "before"),
    Step("pwritev", "*/t-0/*.log", "torn"),
    Step("pwritev", "*/t-0/*.log", "after"),
    Step("replace_file", "*/t-0/leader-epoch-checkpoint", "after"),
)
def test_the_first_append(make_broker: Make, step: Step) -> None:
    broker = make_broker(settings={"flush.policy": "commit"}).start()
    broker.client().create("t")
    ledger = Ledger("t")
    die(broker, step, ledger.send)
    assert_sound(broker, ledger)


@steps(
    Step("pwritev", "*/t-0/*.log", "torn", skip=2),
    Step("fdatasync", "*/t-0/*.log", "before", skip=1),
    Step("write_file", "*/t-0/*.index", "after"),
    Step("write_file", "*/t-0/*.timeindex", "before"),
    Step("fault_point", "roll.sealed"),
    Step("fsync_dir", "*/t-0", "before"),
)
def test_appending_and_rolling(make_broker: Make, step: Step) -> None:
    settings = {**SMALL_SEGMENTS, "flush.policy": "commit"}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    ledger.send(client, 2)
    die(broker, step, lambda client: ledger.send(client, 20))
    assert_sound(broker, ledger)


@steps(
    Step("rename", "*/t-0/*.log", "before"),
    Step("rename", "*/t-0/*.log", "after"),
    Step("rename", "*/t-0/*.timeindex", "after", skip=1),
    Step("unlink", "*.deleted", "after", skip=1),
    Step("replace_file", "*/log-start-offset-checkpoint", "before"),
)
def test_retention(make_broker: Make, step: Step) -> None:
    settings = {**SMALL_SEGMENTS, "log.retention.bytes": "4000"}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    die(broker, step, lambda client: [ledger.send(client) for _ in range(400)])
    client = broker.client()
    wait_until(lambda: ledger.check(client) > 0, "retention goes on")
    assert_sound(broker, ledger)


@steps(
    Step("rename", "*/t-0/*.log", "after", skip=1),
    Step("replace_file", "*/log-start-offset-checkpoint", "before"),
    Step("replace_file", "*/log-start-offset-checkpoint", "after"),
)
def test_delete_records(make_broker: Make, step: Step) -> None:
    broker = make_broker(settings=SMALL_SEGMENTS).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    ledger.send(client, 20)
    die(broker, step, lambda client: client.delete_records("t", 33))
    assert ledger.check(broker.client()) <= 33
    assert_sound(broker, ledger)


def test_answered_delete_records_stays(make_broker: Make) -> None:
    """DeleteRecords is answered when the log's start is durable, not a second later."""
    broker = make_broker().start()
    client = broker.client()
    client.create("t", 3)
    ledgers = [Ledger("t", partition) for partition in range(3)]
    for ledger in ledgers:
        ledger.send(client, 10)
    for offset in (3, 7, 20):
        for partition in range(3):
            assert client.delete_records("t", offset, partition=partition) == (0, offset)
        broker.kill9()
        broker.start()
        client = broker.client()
        assert [ledger.check(client) for ledger in ledgers] == [offset] * 3
    broker.stop_sound()


@steps(
    Step("rename", "*/t-0", "before"),
    Step("rename", "*/t-0", "after"),
    Step("remove_tree", "*-delete", "before"),
    Step("remove_tree", "*-delete", "after"),
)
def test_topic_deletion(make_broker: Make, step: Step) -> None:
    """A deleted topic does not come back, whatever is left of its files."""
    broker = make_broker().start()
    client = broker.client()
    client.create("t")
    client.create("kept")
    gone, kept = Ledger("t"), Ledger("kept")
    gone.send(client, 5)
    kept.send(client, 5)
    die(broker, step, lambda client: client.delete("t"))
    client = broker.client()
    assert client.topics() == {"kept"}
    client.create("t")
    fresh = Ledger("t", producer_id=8)
    fresh.send(client, 2)
    assert_sound(broker, kept, fresh)


@steps(
    Step("replace_file", "*/recovery-point-offset-checkpoint", "before"),
    Step("replace_file", "*/recovery-point-offset-checkpoint", "after"),
    Step("fault_point", "checkpoint.written", skip=2),
)
def test_checkpoint(make_broker: Make, step: Step) -> None:
    settings = {
        **SMALL_SEGMENTS,
        "log.flush.offset.checkpoint.interval.ms": "1",
        "flush.policy": "interval",
    }
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    ledger.send(client, 10)
    die(broker, step, lambda client: ledger.send(client, 5))
    assert_sound(broker, ledger)


@steps(
    Step("write_file", "*/t-0/*.snapshot", "after"),
    Step("fdatasync", "*/t-0/*.log", "before"),
    Step("replace_file", "*/replication-offset-checkpoint", "before"),
    Step("fault_point", "close.checkpointed"),
    Step("replace_file", "*/.kafka_cleanshutdown", "after"),
)
def test_clean_stop(make_broker: Make, step: Step) -> None:
    broker = make_broker(settings=SMALL_SEGMENTS).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    ledger.send(client, 10)
    die(broker, step, lambda _: broker.signal(15))
    assert_sound(broker, ledger)
