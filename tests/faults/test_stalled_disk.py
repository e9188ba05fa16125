"""A disk that is slow or stands still: producers wait with their connections muted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tests.faults.client import batch_of, produce_frame
from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.test_backpressure import MIB, SLACK_BYTES, Memory, send_what_goes

Make = Callable[..., FaultyBroker]

UNWRITTEN_BYTES = 64 * MIB
"""What a log directory holds in memory for its disk before producers have to wait."""

STALL = {"operation": "pwritev", "path": "*/t-0/*.log", "do": "stall"}
SLOW = {"operation": "pwritev", "path": "*/t-0/*.log", "do": "slow", "seconds": 0.15, "times": 1}


def stalled(broker: FaultyBroker) -> None:
    """Have one slow write bring the writes to the thread, then stop the disk."""
    client = broker.client()
    client.create("t")
    client.create("read")
    for number in range(5):
        assert client.produce("read", [b"%d" % number]).error_code == 0
    broker.arm(SLOW)
    assert client.produce("t", [b"slow"]) == (0, 0)
    broker.arm(STALL)


def test_producers_wait_for_a_stalled_disk(make_broker: Make) -> None:
    """No error, no lost place in the order, bounded memory; everybody else is served."""
    broker = make_broker().start()
    stalled(broker)
    memory = Memory(broker)
    batch = batch_of([os.urandom(900_000)])
    frames = [produce_frame("t", batch, correlation=number) for number in range(40)]
    producers = [broker.client() for _ in range(4)]
    sent = [send_what_goes(one.socket, b"".join(frames)) for one in producers]
    assert sum(sent) < sum(map(len, frames)) * len(producers), "the broker stops reading"
    others = broker.client()
    for _ in range(20):
        assert len(others.fetch_all("read").records) == 5
    memory.assert_within(UNWRITTEN_BYTES + len(producers) * 8 * MIB + SLACK_BYTES)
    rest = b"".join(frames)
    threads = []
    for one, size in zip(producers, sent, strict=True):
        one.socket.settimeout(30)
        thread = threading.Thread(target=one.socket.sendall, args=(rest[size:],))
        thread.start()
        threads.append(thread)
    broker.heal()
    offsets = []
    for one in producers:
        answers = [one.produced(number) for number in range(len(frames))]
        assert {answer.error_code for answer in answers} == {0}
        found = [answer.base_offset for answer in answers]
        assert found == sorted(found)
        offsets += found
    for thread in threads:
        thread.join()
    assert sorted(offsets) == list(range(1, len(offsets) + 1))
    assert others.offset("t", -1) == (0, len(offsets) + 1)
    broker.stop_sound()


def test_a_stalled_directory_leaves_the_others(make_broker: Make, tmp_path: Path) -> None:
    """Who produces to another directory does not wait for this one."""
    broker = make_broker(data_dirs=[tmp_path / "first", tmp_path / "second"]).start()
    stalled(broker)
    batch = batch_of([os.urandom(900_000)])
    frames = b"".join(produce_frame("t", batch, correlation=number) for number in range(120))
    producer = broker.client()
    assert send_what_goes(producer.socket, frames) < len(frames)
    others = broker.client()
    for number in range(5, 25):
        assert others.produce("read", [b"%d" % number]) == (0, number)
    assert len(others.fetch_all("read").records) == 25
    broker.heal()


def test_a_broker_on_a_stalled_disk_is_killed(make_broker: Make) -> None:
    """What waited for the disk was not acknowledged, and nothing else is lost."""
    broker = make_broker().start()
    stalled(broker)
    producer = broker.client()
    batch = batch_of([os.urandom(900_000)])
    send_what_goes(producer.socket, b"".join(produce_frame("t", batch) for _ in range(20)))
    broker.kill9()
    broker.heal()
    broker.start()
    client = broker.client()
    found = client.fetch_all("t")
    assert found.values[0] == b"slow"
    wait_until(lambda: client.offset("t", -1) == (0, len(found.values)), "the end is known")
    assert len(client.fetch_all("read").records) == 5
    broker.stop_sound()
