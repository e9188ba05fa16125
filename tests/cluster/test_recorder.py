"""The recorder, on one broker that is killed: its history is whole, and sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import confluent_kafka.admin
import pytest

from tests.cluster.checker import check
from tests.cluster.history import History, read_history
from tests.cluster.recorder import NoProgressError, Recorder
from tests.cluster.replicas import compare_replicas
from tests.e2e.broker_process import BrokerProcess
from trioq.types import TopicPartition

pytestmark = pytest.mark.e2e


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(
        tmp_path / "broker",
        settings={
            "group.initial.rebalance.delay.ms": "0",
            "group.consumer.min.heartbeat.interval.ms": "50",
            "group.consumer.heartbeat.interval.ms": "200",
        },
    ).start()
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([confluent_kafka.admin.NewTopic("t", 3, 1)])["t"].result()
    yield broker
    broker.close()


def test_a_history_through_kills_is_sound(broker: BrokerProcess, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(
        broker.address, "t", 3, history=History(path), abandon_each=200, modern_members=1
    ) as recorder:
        for _ in range(2):
            recorder.await_acks(100)
            recorder.history.note("kill -9")
            broker.kill9()
            broker.start()
        recorder.await_acks(50)
        recorder.await_reads(1)
        report = recorder.finish(60)
    report.insist()
    assert report.counts["acknowledged"] >= 750
    assert report.counts["read"] >= report.counts["acknowledged"]
    assert report.counts["drained"] == 3
    events = read_history(path)
    assert events == recorder.history.events
    kinds = {event["f"] for event in events}
    assert kinds == {
        *("send", "sent", "assign", "poll", "end", "drained", "note"),
        *("commit", "asks_committed", "committed"),
    }
    assert {event["process"] for event in events} > {None, "p0", "c0", "m0", "n0", "last"}

    broker.terminate()
    ends = {TopicPartition("t", number): end for number, end in recorder.ends().items()}
    compared = compare_replicas({broker.node_id: broker.data_dir}, ends=ends)
    assert compared.problems == []
    assert compared.compared.keys() >= ends.keys()

    # What the broker would have lost is found.
    last = next(one for one in reversed(events) if one["f"] == "sent" and one["outcome"] == "ok")
    for event in events:
        if event["f"] == "poll" and event["process"] == "last":
            event["records"] = [one for one in event["records"] if one[2] != last["value"]]
    assert check(events).kinds


def test_a_broker_that_stays_away_is_no_progress(broker: BrokerProcess) -> None:
    settings = {"message.timeout.ms": 500}
    with Recorder(
        broker.address, "t", 3, producers=1, members=0, readers=0, producer_settings=settings
    ) as recorder:
        recorder.await_acks(10)
        broker.kill9()
        with pytest.raises(NoProgressError, match="acknowledgements missing after"):
            recorder.await_acks(1000, timeout_s=0.5)
        with pytest.raises(NoProgressError, match="nobody says where partition"):
            recorder.finish(3)
