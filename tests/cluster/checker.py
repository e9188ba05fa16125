"""Judges a history (history.py) in the manner of jepsen.tests.kafka.

    lost write            acknowledged, and not among what is read in the end
    vanished read         read once, and not among what is read in the end
    unseen                acknowledged beyond the last offset that anybody read
    duplicate             one value at two offsets
    inconsistent offsets  two values at one offset
    phantom read          a value that nobody sent there
    aborted read          a value whose send failed for certain, or whose transaction was aborted
    torn transaction      some of a transaction is read in the end, some is not
    reordered sends       a producer's messages are not in the order in which it sent them
    nonmonotonic poll     offsets that do not ascend, in a poll or from poll to poll
    skipped poll          a record that is known lies between two that were read after one another
    end went back         a consumer was told an end below one it knew of, or below what it had read
    refused position      a consumer was told that nothing is where it reads
    commit went back      a member was told an older position than one whose commit was acknowledged

`python -m tests.cluster.checker FILE ...` judges files, and exits with 1 if something is found.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.cluster.history import Event, read_history

MAX_SHOWN = 20


class Anomaly(NamedTuple):
    kind: str
    partition: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind}, partition {self.partition}: {self.text}"


class Anomalies(AssertionError):
    """What was found, in words."""


@dataclass
class Report:
    """`counts` are of what was judged, so that a test can insist that there was something."""

    anomalies: list[Anomaly]
    counts: Counter[str]

    @property
    def kinds(self) -> set[str]:
        return {anomaly.kind for anomaly in self.anomalies}

    def __str__(self) -> str:
        judged = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        found = Counter(anomaly.kind for anomaly in self.anomalies)
        lines = [f"judged: {judged}", *(f"{count} x {kind}" for kind, count in found.items())]
        shown: Counter[str] = Counter()
        for anomaly in self.anomalies:
            shown[anomaly.kind] += 1
            if shown[anomaly.kind] <= MAX_SHOWN:
                lines.append(f"  {anomaly}")
        return "\n".join(lines)

    def insist(self) -> None:
        """Raises Anomalies if there are any."""
        if self.anomalies:
            raise Anomalies(str(self))


@dataclass(slots=True)
class _Send:
    process: str
    partition: int
    value: int
    txn: int | None
    outcome: str = "unknown"
    offset: int | None = None


@dataclass
class _Facts:
    """What a history says, by value and by place."""

    sends: dict[int, _Send] = field(default_factory=dict)
    """In the order of sending."""
    txns: dict[int, str] = field(default_factory=dict)
    stored: defaultdict[int, defaultdict[int, set[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    """By partition and offset: the values that somebody read or was told to be there."""
    places: defaultdict[int, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    """By value: the places where somebody read it or was told that it is."""
    read: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By partition: the values that anybody read."""
    last_read: dict[int, int] = field(default_factory=dict)
    """By partition: the greatest offset that anybody read."""
    final: dict[int, set[int]] = field(default_factory=dict)
    """By partition: the values of the last read of all that is there."""

    def is_promised(self, send: _Send) -> bool:
        """True if the message was acknowledged for good."""
        if send.txn is not None and self.txns.get(send.txn) != "commit":
            return False
        return send.outcome == "ok"


def check(events: Iterable[Event], *, idempotent: bool = True) -> Report:
    """Judge a whole history. Without `idempotent` a value may be stored twice and out of order."""
    events = list(events)
    facts = _facts(events)
    checks = [
        _missing(facts),
        _inconsistent(facts),
        _unfounded(facts),
        _torn(facts),
        _polls(events, facts),
        _ends(events),
        _commits(events),
    ]
    if idempotent:
        checks += [_duplicates(facts), _reordered(facts)]
    anomalies = [anomaly for one in checks for anomaly in one]
    counts: Counter[str] = Counter(
        sends=len(facts.sends),
        acknowledged=sum(send.outcome == "ok" for send in facts.sends.values()),
        read=sum(map(len, facts.read.values())),
        drained=len(facts.final),
        commits=sum(event["f"] == "commit" for event in events),
        positions=sum(event["f"] == "committed" for event in events),
    )
    return Report(anomalies, counts)


def _facts(events: list[Event]) -> _Facts:
    facts = _Facts()
    since_assign: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(
        lambda: defaultdict(set)
    )
    for event in events:
        process = event["process"]
        match event["f"]:
            case "send":
                value = event["value"]
                assert value not in facts.sends, f"the value {value} is sent twice"
                facts.sends[value] = _Send(process, event["partition"], value, event.get("txn"))
            case "sent":
                send = facts.sends[event["value"]]
                send.outcome, send.offset = event["outcome"], event.get("offset")
                if send.outcome == "ok" and send.offset is not None:
                    facts.stored[send.partition][send.offset].add(send.value)
                    facts.places[send.value].add((send.partition, send.offset))
            case "txn":
                facts.txns[event["txn"]] = event["outcome"]
            case "assign":
                since_assign.pop(process, None)
            case "poll":
                for partition, offset, value in event["records"]:
                    facts.stored[partition][offset].add(value)
                    facts.places[value].add((partition, offset))
                    facts.read[partition].add(value)
                    facts.last_read[partition] = max(offset, facts.last_read.get(partition, -1))
                    since_assign[process][partition].add(value)
            case "drained":
                for partition in event["partitions"]:
                    facts.final[partition] = set(since_assign[process][partition])
    return facts


def _missing(facts: _Facts) -> Iterator[Anomaly]:
    """lost write, vanished read, unseen."""
    for send in facts.sends.values():
        partition = send.partition
        was_read = send.value in facts.read[partition]
        there = send.value in facts.final[partition] if partition in facts.final else was_read
        if there or (not was_read and not facts.is_promised(send)):
            continue
        offset = send.offset if send.offset is not None else _place(facts, send)
        where = f"value {send.value} of {send.process}, offset {offset}"
        last = facts.last_read.get(partition, -1)
        if was_read:
            told = "acknowledged and read" if send.outcome == "ok" else "read"
            yield Anomaly("vanished read", partition, f"{where}: {told} before, now gone")
        elif offset is not None and offset > last:
            yield Anomaly("unseen", partition, f"{where}: nobody read beyond {last}")
        else:
            yield Anomaly("lost write", partition, f"{where}: acknowledged, but not there")


def _place(facts: _Facts, send: _Send) -> int | None:
    return min((offset for _, offset in facts.places.get(send.value, ())), default=None)


def _inconsistent(facts: _Facts) -> Iterator[Anomaly]:
    for partition, offsets in facts.stored.items():
        for offset, values in sorted(offsets.items()):
            if len(values) > 1:
                text = f"offset {offset} holds the values {sorted(values)}"
                yield Anomaly("inconsistent offsets", partition, text)


def _duplicates(facts: _Facts) -> Iterator[Anomaly]:
    for value, places in facts.places.items():
        if len(places) > 1:
            partition = min(places)[0]
            yield Anomaly("duplicate", partition, f"value {value} is at {sorted(places)}")


def _unfounded(facts: _Facts) -> Iterator[Anomaly]:
    """phantom read, aborted read."""
    for partition, values in facts.read.items():
        for value in values:
            send = facts.sends.get(value)
            if send is None or send.partition != partition:
                sent = "nobody sent it" if send is None else f"was sent to {send.partition}"
                yield Anomaly("phantom read", partition, f"value {value} was read: {sent}")
            elif send.txn is not None and facts.txns.get(send.txn) == "abort":
                text = f"value {value} of transaction {send.txn}, which was aborted, was read"
                yield Anomaly("aborted read", partition, text)
            elif send.outcome == "fail":
                text = f"value {value} of {send.process} was read, but its send had failed"
                yield Anomaly("aborted read", partition, text)


def _torn(facts: _Facts) -> Iterator[Anomaly]:
    """Only where all its partitions are drained can a transaction be judged."""
    members: defaultdict[int, list[_Send]] = defaultdict(list)
    for send in facts.sends.values():
        if send.txn is not None and send.outcome != "fail":
            members[send.txn].append(send)
    for txn, sends in members.items():
        if all(send.partition in facts.final for send in sends):
            missing = [one.value for one in sends if one.value not in facts.final[one.partition]]
            if 0 < len(missing) < len(sends):
                text = f"transaction {txn} is there without the values {missing}"
                yield Anomaly("torn transaction", sends[0].partition, text)


def _reordered(facts: _Facts) -> Iterator[Anomaly]:
    latest: dict[tuple[str, int], tuple[int, int]] = {}
    for send in facts.sends.values():
        offset = _place(facts, send)
        if offset is None:
            continue
        producer = send.process, send.partition
        before, value = latest.get(producer, (-1, -1))
        if offset < before:
            text = f"{send.process} sent {value} (at {before}) before {send.value} (at {offset})"
            yield Anomaly("reordered sends", send.partition, text)
        latest[producer] = max((before, value), (offset, send.value))


def _polls(events: list[Event], facts: _Facts) -> Iterator[Anomaly]:
    """nonmonotonic poll, skipped poll."""
    known = {partition: _visible(facts, partition) for partition in facts.stored}
    positions: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for event in events:
        process = event["process"]
        if event["f"] == "assign":
            positions[process] = {
                partition: offset - 1
                for partition, offset in event["partitions"]
                if offset is not None
            }
        elif event["f"] == "poll":
            position = positions[process]
            for partition, offset, _ in event["records"]:
                before = position.get(partition)
                position[partition] = offset
                if before is None:
                    continue
                step = f"{process} read {offset} after {before}"
                if offset <= before:
                    yield Anomaly("nonmonotonic poll", partition, step)
                    continue
                offsets = known[partition]
                start, end = bisect_right(offsets, before), bisect_left(offsets, offset)
                if start < end:
                    text = f"{step}; {end - start} between are known, the first is {offsets[start]}"
                    yield Anomaly("skipped poll", partition, text)


def _visible(facts: _Facts, partition: int) -> list[int]:
    """The offsets that every reader is to be given, in order."""
    visible = []
    for offset, values in facts.stored[partition].items():
        for value in values:
            send = facts.sends.get(value)
            if value in facts.read[partition] or (send is not None and facts.is_promised(send)):
                visible.append(offset)
                break
    return sorted(visible)


def _ends(events: list[Event]) -> Iterator[Anomaly]:
    """end went back, refused position."""
    known: dict[tuple[str, int], tuple[int, str]] = {}
    for event in events:
        process = event["process"]
        if event["f"] == "poll":
            for partition, offset, _ in event["records"]:
                reached = offset + 1, f"had read {offset}"
                known[process, partition] = max(reached, known.get((process, partition), reached))
        elif event["f"] == "end":
            partition, offset = event["partition"], event["offset"]
            told = offset, f"had been told that it ends at {offset}"
            before, how = known.get((process, partition), told)
            if offset < before:
                text = f"{process} was told that it ends at {offset}, and {how}"
                yield Anomaly("end went back", partition, text)
            known[process, partition] = max(told, (before, how))
        elif event["f"] == "refused":
            text = f"{process} was told: {event['error']}"
            yield Anomaly("refused position", event["partition"], text)


def _commits(events: list[Event]) -> Iterator[Anomaly]:
    """commit went back.

    Owed to a member is what was acknowledged last, before it began to ask: clients that find no
    coordinator for some time repeat older commits after newer ones.
    """
    acknowledged: dict[tuple[str, int], int] = {}
    owed: dict[str, dict[tuple[str, int], int]] = {}
    for event in events:
        process = event["process"]
        match event["f"]:
            case "commit":
                acknowledged[event["group"], event["partition"]] = event["offset"]
            case "asks_committed":
                owed[process] = acknowledged.copy()
            case "committed":
                before = owed[process].get((event["group"], event["partition"]))
                if before is not None and event["offset"] < before:
                    text = f"{process} was told {event['offset']}, acknowledged was {before}"
                    yield Anomaly("commit went back", event["partition"], text)


def main(paths: list[str]) -> int:
    found = 0
    for path in paths:
        report = check(read_history(Path(path)))
        print(path, report, sep="\n")
        found += bool(report.anomalies)
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
