"""The wall clock jumps: nothing is deleted early for it, nothing hangs, timestamps say the truth.

Retention compares the clock with the records' own timestamps. Deadlines, waits and limits run on
the monotonic clock, which does not jump.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.client import now_ms
from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.ledger import Ledger

Make = Callable[..., FaultyBroker]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
INVALID_TIMESTAMP = 32


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS])
def test_a_jump_within_the_retention_time_costs_nothing(make_broker: Make, jump_ms: int) -> None:
    settings = {
        "log.retention.ms": str(DAY_MS + HOUR_MS),
        "log.retention.check.interval.ms": "20",
        "log.segment.bytes": "2000",
        "log.roll.ms": str(30 * MINUTE_MS),
        "log.message.timestamp.after.max.ms": str(2 * DAY_MS),
    }
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    client.create("short", retention_ms="1")
    ledger, short = Ledger("t"), Ledger("short", producer_id=8)
    ledger.send(client, 10)
    for there_and_back in (jump_ms, 0):
        broker.set_clock(there_and_back)
        ledger.send(client, 5)
        # Retention has been round since, as a topic that keeps nothing shows.
        short.send(client)
        if there_and_back >= 0:
            end = len(short.acknowledged)
            wait_until(lambda end=end: client.offset("short", -2) == (0, end), "retention")
        assert ledger.check(client) == 0
        # Waits are not measured with the clock that jumped.
        assert client.fetch("t", len(ledger.acknowledged), max_wait_ms=20).records == []
    broker.kill9()
    broker.start()
    client = broker.client()
    assert ledger.check(client) == 0
    ledger.send(client)
    ledger.check(client)
    broker.stop_sound()


def test_a_clock_far_ahead_deletes_what_is_old_by_it(make_broker: Make) -> None:
    """The price of a clock that is wrong by more than the retention time, and its bound: what is
    written after that stays, and the offsets go on."""
    settings = {"log.retention.check.interval.ms": "20", "log.retention.hours": "12"}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    ledger = Ledger("t")
    ledger.send(client, 5)
    broker.set_clock(DAY_MS)
    wait_until(lambda: client.offset("t", -2) == (0, 10), "retention")
    broker.set_clock(0)
    ledger.send(client, 5)
    assert ledger.check(client) == 10
    broker.stop_sound()


def test_append_times_follow_the_clock_and_are_found(make_broker: Make) -> None:
    """LogAppendTime over a clock that goes back: searches by time still find the first record
    that is late enough."""
    settings = {"log.segment.bytes": "2000", "log.index.interval.bytes": "200"}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t", message_timestamp_type="LogAppendTime")
    ledger = Ledger("t")
    for offset_ms in (0, HOUR_MS, -HOUR_MS, 0, -DAY_MS, DAY_MS):
        broker.set_clock(offset_ms)
        before_ms = now_ms() + offset_ms
        ledger.send(client, 4)
        records = client.fetch_all("t").records
        assert all(stamp >= before_ms for _, stamp, _ in records[-8:])
        for target_ms in (before_ms, before_ms - HOUR_MS // 2, before_ms + HOUR_MS // 2):
            expected = next((at for at, stamp, _ in records if stamp >= target_ms), -1)
            assert client.offset("t", target_ms) == (0, expected)
    ledger.check(client)


def test_records_from_the_future_are_refused_by_the_clock_of_the_moment(make_broker: Make) -> None:
    broker = make_broker().start()
    client = broker.client()
    client.create("t")
    ahead_ms = now_ms() + 2 * HOUR_MS
    assert client.produce("t", [b"v"], timestamp_ms=ahead_ms).error_code == INVALID_TIMESTAMP
    broker.set_clock(2 * HOUR_MS)
    assert client.produce("t", [b"v"], timestamp_ms=ahead_ms).error_code == 0
    broker.set_clock(-HOUR_MS)
    assert client.produce("t", [b"v"]).error_code in (0, INVALID_TIMESTAMP)
    broker.set_clock(0)
    assert client.produce("t", [b"v"]).error_code == 0
