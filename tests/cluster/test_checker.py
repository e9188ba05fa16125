"""Each check of the checker fails on a history that has what it looks for, and on no sound one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.cluster.checker import Anomalies, check
from tests.cluster.history import Event, History, read_history, write_history


class Told:
    """Writes a history by hand."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, f: str, process: str, **fields: Any) -> None:
        self.events.append({"f": f, "process": process, **fields})

    def send(
        self,
        value: int,
        offset: int | None = None,
        *,
        process: str = "p0",
        partition: int = 0,
        outcome: str = "ok",
        txn: int | None = None,
    ) -> None:
        extra = {} if txn is None else {"txn": txn}
        self.add("send", process, partition=partition, value=value, **extra)
        self.add("sent", process, value=value, outcome=outcome, offset=offset)

    def assign(self, process: str = "c0", *places: tuple[int, int | None]) -> None:
        self.add("assign", process, partitions=[list(one) for one in places or ((0, 0),)])

    def poll(self, *records: tuple[int, int], process: str = "c0", partition: int = 0) -> None:
        self.add("poll", process, records=[[partition, *record] for record in records])

    def drain(self, *records: tuple[int, int], process: str = "last", partition: int = 0) -> None:
        self.assign(process, (partition, 0))
        self.poll(*records, process=process, partition=partition)
        self.add("drained", process, partitions=[partition])

    def end(self, offset: int, *, process: str = "c0") -> None:
        self.add("end", process, partition=0, offset=offset)

    def kinds(self, **options: Any) -> set[str]:
        return check(self.events, **options).kinds


@pytest.fixture
def told() -> Told:
    return Told()


def sound(seed: int, length: int = 300) -> tuple[Told, dict[int, list[int]]]:
    """A history in which all is well: two producers, two partitions, readers, lost answers."""
    told, random = Told(), Random(seed)
    logs: dict[int, list[int]] = {0: [], 1: []}
    positions: dict[str, dict[int, int]] = {}
    for value in range(length):
        partition, log = random.choice(list(logs.items()))
        match random.choices(["ok", "untold", "unknown", "lost", "fail"], [8, 1, 1, 1, 1])[0]:
            case "ok":
                told.send(value, len(log), process=f"p{value % 2}", partition=partition)
                log.append(value)
            case "untold":
                told.send(value, process=f"p{value % 2}", partition=partition)
                log.append(value)
            case "unknown":
                told.send(value, process=f"p{value % 2}", partition=partition, outcome="unknown")
                log.append(value)
            case "lost":
                told.send(value, partition=partition, outcome="unknown")
            case "fail":
                told.send(value, partition=partition, outcome="fail")
        reader = random.choice(["c0", "c1"])
        if reader not in positions or random.random() < 0.05:
            positions[reader] = {
                number: random.randint(0, len(log)) for number, log in logs.items()
            }
            told.assign(reader, *positions[reader].items())
        elif random.random() < 0.5:
            position = positions[reader]
            count = random.randint(1, 5)
            records = list(enumerate(log))[position[partition] :][:count]
            position[partition] += len(records)
            told.poll(*records, process=reader, partition=partition)
        if partition == 0:
            told.end(len(log), process=reader)
    for partition, log in logs.items():
        told.drain(*enumerate(log), process=f"last{partition}", partition=partition)
    return told, logs


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_history_passes(seed: int) -> None:
    told, logs = sound(seed)
    report = check(told.events)
    assert report.anomalies == []
    report.insist()
    assert report.counts["sends"] == 300
    assert report.counts["read"] == len(logs[0]) + len(logs[1])
    assert report.counts["drained"] == 2


@pytest.mark.parametrize("seed", range(10))
def test_one_acknowledged_record_that_vanishes_is_found(seed: int) -> None:
    told, _ = sound(seed)
    acknowledged = {
        one["value"] for one in told.events if one["f"] == "sent" and one["outcome"] == "ok"
    }
    poll = next(one for one in told.events if one["process"] == "last0" and one["f"] == "poll")
    gone = next(record for record in poll["records"] if record[2] in acknowledged)
    poll["records"].remove(gone)
    assert told.kinds() & {"lost write", "vanished read", "unseen"}
    with pytest.raises(Anomalies, match=f"value {gone[2]} "):
        check(told.events).insist()


def test_lost_write(told: Told) -> None:
    told.send(1, 0)
    told.send(2, 1)
    told.drain((1, 2))
    assert told.kinds() == {"lost write", "skipped poll"}


def test_a_write_without_an_offset_can_be_lost(told: Told) -> None:
    told.send(1)
    told.drain()
    assert told.kinds() == {"lost write"}


def test_a_write_is_lost_although_nobody_drained(told: Told) -> None:
    told.send(1, 0)
    told.send(2, 1)
    told.assign("c0", (0, None))
    told.poll((1, 2))
    assert told.kinds() == {"lost write"}


def test_a_write_of_unknown_outcome_may_be_missing(told: Told) -> None:
    told.send(1, outcome="unknown")
    told.drain()
    assert told.kinds() == set()


def test_vanished_read(told: Told) -> None:
    """Even what was never acknowledged must stay once somebody has read it."""
    told.send(1, outcome="unknown")
    told.assign()
    told.poll((0, 1))
    told.drain()
    assert told.kinds() == {"vanished read"}


def test_unseen(told: Told) -> None:
    told.send(1, 0)
    told.send(2, 1)
    told.drain((0, 1))
    assert told.kinds() == {"unseen"}


def test_duplicate(told: Told) -> None:
    told.send(1, 0)
    told.drain((0, 1), (1, 1))
    assert told.kinds() == {"duplicate"}
    assert told.kinds(idempotent=False) == set()


def test_a_record_read_elsewhere_than_acknowledged_is_a_duplicate(told: Told) -> None:
    told.send(1, 0)
    told.assign("c0", (0, None))
    told.poll((1, 1))
    assert told.kinds() == {"duplicate"}


def test_inconsistent_offsets(told: Told) -> None:
    told.send(1, 0)
    told.send(2, process="p1", outcome="unknown")
    told.drain((0, 1))
    told.drain((0, 2), process="other")
    assert "inconsistent offsets" in told.kinds()


def test_two_values_acknowledged_at_one_offset_are_inconsistent(told: Told) -> None:
    told.send(1, 0)
    told.send(2, 0, process="p1")
    assert "inconsistent offsets" in told.kinds()


def test_phantom_read(told: Told) -> None:
    told.drain((0, 9))
    assert told.kinds() == {"phantom read"}


def test_a_record_in_another_partition_than_it_was_sent_to_is_a_phantom(told: Told) -> None:
    told.send(1, outcome="unknown", partition=1)
    told.drain((0, 1), partition=0)
    assert told.kinds() == {"phantom read"}


def test_aborted_read_of_a_failed_send(told: Told) -> None:
    told.send(1, outcome="fail")
    told.drain((0, 1))
    assert told.kinds() == {"aborted read"}


def test_aborted_read_of_an_aborted_transaction(told: Told) -> None:
    told.send(1, 0, txn=7)
    told.add("txn", "p0", txn=7, outcome="abort")
    told.drain((0, 1))
    assert told.kinds() == {"aborted read"}


def test_an_aborted_transaction_is_not_missed(told: Told) -> None:
    told.send(1, 0, txn=7)
    told.add("txn", "p0", txn=7, outcome="abort")
    told.send(2, 2)
    told.drain((2, 2))
    assert told.kinds() == set()


def test_torn_transaction(told: Told) -> None:
    for value in (1, 2):
        told.send(value, value, txn=7)
    told.add("txn", "p0", txn=7, outcome="unknown")
    told.drain((1, 1))
    assert told.kinds() == {"torn transaction"}


def test_reordered_sends(told: Told) -> None:
    told.send(1, 1)
    told.send(2, 0)
    told.drain((0, 2), (1, 1))
    assert told.kinds() == {"reordered sends"}
    assert told.kinds(idempotent=False) == set()


def test_reordered_sends_that_were_not_acknowledged(told: Told) -> None:
    told.send(1, outcome="unknown")
    told.send(2, outcome="unknown")
    told.drain((0, 2), (1, 1))
    assert told.kinds() == {"reordered sends"}


def test_two_producers_have_no_order(told: Told) -> None:
    told.send(1, 1)
    told.send(2, 0, process="p1")
    told.drain((0, 2), (1, 1))
    assert told.kinds() == set()


@pytest.mark.parametrize("in_one_poll", [True, False])
@pytest.mark.parametrize(
    ("offsets", "kind"), [((1, 0), "nonmonotonic poll"), ((0, 2), "skipped poll")]
)
def test_polls(told: Told, in_one_poll: bool, offsets: tuple[int, int], kind: str) -> None:
    for value in range(3):
        told.send(value, value)
    told.drain((0, 0), (1, 1), (2, 2))
    told.assign("c0", (0, offsets[0]))
    records = [(offset, offset) for offset in offsets]
    if in_one_poll:
        told.poll(*records)
    else:
        for record in records:
            told.poll(record)
    assert told.kinds() == {kind}


def test_reading_again_after_a_new_assignment_is_sound(told: Told) -> None:
    for value in range(3):
        told.send(value, value)
    told.drain((0, 0), (1, 1), (2, 2))
    told.assign("c0", (0, 2))
    told.poll((2, 2))
    told.assign("c0", (0, 0))
    told.poll((0, 0))
    told.assign("c0", (0, None))
    told.poll((2, 2))
    assert told.kinds() == set()


def test_a_first_poll_that_skips_what_was_assigned(told: Told) -> None:
    told.send(0, 0)
    told.send(1, 1)
    told.drain((0, 0), (1, 1))
    told.assign("c0", (0, 0))
    told.poll((1, 1))
    assert told.kinds() == {"skipped poll"}


def test_a_hole_that_holds_nothing_known_is_not_skipped(told: Told) -> None:
    told.send(0, 0)
    told.send(1, 2)
    told.drain((0, 0), (2, 1))
    assert told.kinds() == set()


def test_an_end_that_went_back(told: Told) -> None:
    told.end(5)
    told.end(4)
    assert told.kinds() == {"end went back"}


def test_an_end_below_what_was_read(told: Told) -> None:
    told.send(1, 0)
    told.drain((0, 1), process="c0")
    told.end(0)
    assert told.kinds() == {"end went back"}


def test_a_position_that_is_refused(told: Told) -> None:
    told.add("refused", "c0", partition=0, error="offset out of range")
    assert told.kinds() == {"refused position"}


@pytest.mark.parametrize(
    ("group", "position", "kinds"),
    [
        ("g", 7, set()),
        ("g", 8, set()),
        ("g", 5, {"commit went back"}),
        ("g", -1001, {"commit went back"}),
        ("other", -1001, set()),
    ],
    ids=["last", "newer", "older", "none", "of another group"],
)
def test_a_commit_that_goes_back(told: Told, group: str, position: int, kinds: set[str]) -> None:
    told.add("commit", "m0", group="g", partition=0, offset=5)
    told.add("commit", "m0", group="g", partition=0, offset=7)
    told.add("asks_committed", "m1", group=group)
    told.add("commit", "m0", group="g", partition=0, offset=8)  # it need not know of that one
    told.add("committed", "m1", group=group, partition=0, offset=position)
    assert told.kinds() == kinds


def test_a_commit_that_the_client_repeats_late(told: Told) -> None:
    for offset in (5, 9, 5):
        told.add("commit", "m0", group="g", partition=0, offset=offset)
    told.add("asks_committed", "m1", group="g")
    told.add("committed", "m1", group="g", partition=0, offset=5)
    assert told.kinds() == set()


def test_ends_are_each_readers_own(told: Told) -> None:
    told.end(5)
    told.end(4, process="c1")
    told.end(5)
    assert told.kinds() == set()


def test_a_value_must_be_unique(told: Told) -> None:
    told.send(1, 0)
    told.send(1, 1)
    with pytest.raises(AssertionError, match="the value 1 is sent twice"):
        check(told.events)


def test_a_history_in_a_file_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.add("send", "p0", partition=0, value=1)
    history.note("kill -9 of broker 2")
    history.close()
    assert read_history(path) == history.events
    assert [event["f"] for event in history.events] == ["send", "note"]


def test_the_checker_is_a_command(tmp_path: Path, told: Told) -> None:
    sound_path, broken_path = tmp_path / "sound.jsonl", tmp_path / "broken.jsonl"
    write_history(sound(1)[0].events, sound_path)
    told.send(1, 0)
    told.drain()
    write_history(told.events, broken_path)
    command = [sys.executable, "-m", "tests.cluster.checker"]
    passed = subprocess.run([*command, sound_path], capture_output=True, text=True, check=False)
    assert passed.returncode == 0
    found = subprocess.run(
        [*command, sound_path, broken_path], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "unseen, partition 0: value 1 of p0, offset 0" in found.stdout
