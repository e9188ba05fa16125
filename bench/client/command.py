"""`python -m bench client`: records per second, and per CPU-second of the client.

Clients take turns, round after round, against the same broker; shown are medians, and how many
times the others' figures trioq's are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import machine
from bench.errors import BenchError
from bench.path.ask import Asker
from bench.path.measure import make_topic, started
from bench.path.process import ROOT, BrokerProcess
from bench.peers import trioq
from bench.report import table

FORMAT: Final = 1
PATIENCE_S: Final = 300.0
RECORD_BYTES: Final = (100, 1000)
CASES: Final = ("producing", "consuming")
LOOPS: Final = ("trio", "asyncio", "uvloop")


class Subject(NamedTuple):
    """One way of one client, under one loop if it has a choice."""

    module: str
    """Of the program that runs it."""

    name: str
    loop: str
    records: Mapping[int, int]
    """How many records of each size it takes a few seconds for."""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.loop})" if self.loop else self.name


_FAST: Final = {100: 2_000_000, 1000: 500_000}
_SLOW: Final = {100: 200_000, 1000: 100_000}

PRODUCING: Final = (
    *(
        Subject("bench.client.producing", f"trioq {how}", loop, _FAST)
        for how in ("send_many", "send_nowait")
        for loop in LOOPS
    ),
    Subject("bench.client.producing", "confluent-kafka produce", "", _FAST),
    Subject("bench.client.producing", "aiokafka send", "", _SLOW),
)

CONSUMING: Final = (
    *(
        Subject("bench.client.consuming", f"trioq {how}", loop, {100: 1_000_000, 1000: 250_000})
        for how in ("batches", "async for")
        for loop in LOOPS
    ),
    *(
        Subject(
            "bench.client.consuming", f"confluent-kafka {how}", "", {100: 500_000, 1000: 200_000}
        )
        for how in ("consume", "poll")
    ),
    *(
        Subject("bench.client.consuming", f"aiokafka {how}", "", _SLOW)
        for how in ("getmany", "async for")
    ),
)
FILL: Final = Subject("bench.client.consuming", "fill", "trio", {})


class Figures(NamedTuple):
    """What a run, or the median of several, found."""

    records_per_s: float
    records_per_cpu_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument("--runs", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=CASES, help="what the clients do"
    )
    parser.add_argument("--only", default="", help="clients whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the records")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report too")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    about = machine.describe()
    print(machine.sentence(about))
    cases = {
        case: (measure, [subject for subject in subjects if arguments.only in subject.label])
        for case, measure, subjects in (
            ("producing", measured, PRODUCING),
            ("consuming", measured_reading, CONSUMING),
        )
        if case in arguments.cases
    }
    if not any(chosen for _, chosen in cases.values()):
        raise BenchError(f"no client's name contains {arguments.only!r}")
    rows = []
    for record_bytes in RECORD_BYTES:
        for case, (measure, chosen) in cases.items():
            found = measure(
                chosen, record_bytes, runs=arguments.runs, share=0.05 if arguments.quick else 1.0
            )
            print(f"\n{case}, {record_bytes}-byte records")
            print(figures_table(found))
            rows += [
                {"case": f"{case}, {record_bytes} B", "subject": label, **figures._asdict()}
                for label, figures in found.items()
            ]
    if arguments.json:
        report = {"format": FORMAT, "kind": "client", "machine": about, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def measured(
    subjects: Sequence[Subject], record_bytes: int, *, runs: int, share: float
) -> dict[str, Figures]:
    """The medians of each subject, by its label, in rounds against one broker."""
    found: dict[str, list[Figures]] = {subject.label: [] for subject in subjects}
    with started(trioq.PEER, {}) as broker:
        for number in range(runs):
            for place, subject in enumerate(subjects):
                topic = f"client{number}-{place}"
                with Asker(broker) as asker:
                    make_topic(trioq.PEER, asker, topic, 1)
                    records = max(1, int(subject.records[record_bytes] * share))
                    seen = _run(broker, subject, topic, records, record_bytes)
                    asker.delete_topic(topic)
                found[subject.label].append(_figures(seen))
    return _medians(found)


def measured_reading(
    subjects: Sequence[Subject], record_bytes: int, *, runs: int, share: float
) -> dict[str, Figures]:
    """As `measured`, of subjects that all read the same topic."""
    found: dict[str, list[Figures]] = {subject.label: [] for subject in subjects}
    records = {
        subject.label: max(1, int(subject.records[record_bytes] * share)) for subject in subjects
    }
    with started(trioq.PEER, {}) as broker:
        with Asker(broker) as asker:
            make_topic(trioq.PEER, asker, "client", 1)
        _run(broker, FILL, "client", max(records.values(), default=1), record_bytes)
        for _ in range(runs):
            for subject in subjects:
                seen = _run(broker, subject, "client", records[subject.label], record_bytes)
                found[subject.label].append(_figures(seen))
    return _medians(found)


def _figures(seen: Mapping[str, Any]) -> Figures:
    return Figures(seen["records"] / seen["seconds"], seen["records"] / seen["cpu_s"])


def _medians(found: Mapping[str, Sequence[Figures]]) -> dict[str, Figures]:
    return {
        label: Figures(
            statistics.median(one.records_per_s for one in seen),
            statistics.median(one.records_per_cpu_s for one in seen),
        )
        for label, seen in found.items()
    }


def _run(
    broker: BrokerProcess, subject: Subject, topic: str, records: int, record_bytes: int
) -> dict[str, Any]:
    plan = {
        "subject": subject.name,
        "loop": subject.loop,
        "address": f"{broker.host}:{broker.port}",
        "topic": topic,
        "records": records,
        "record_bytes": record_bytes,
    }
    done = subprocess.run(
        [sys.executable, "-m", subject.module, json.dumps(plan)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise BenchError(f"{subject.label}: {done.stderr.strip()[-500:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def figures_table(found: Mapping[str, Figures]) -> str:
    """A line for each client, and how many times as much each of trioq's does."""
    others = [label for label in found if not label.startswith("trioq")]
    lines = []
    for label, figures in found.items():
        ratios = [
            f"{figures.records_per_cpu_s / found[other].records_per_cpu_s:.1f}"
            if label not in others
            else ""
            for other in others
        ]
        lines.append(
            [
                label,
                f"{figures.records_per_s:,.0f}",
                f"{figures.records_per_cpu_s:,.0f}",
                f"{1e6 / figures.records_per_cpu_s:.2f}",
                *ratios,
            ]
        )
    columns = ("client", "records/s", "per CPU s", "us CPU", *(f"x {other}" for other in others))
    return table(columns, lines)
