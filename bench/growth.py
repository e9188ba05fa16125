"""`python -m bench growth`: what a request costs with 1 to 5,000 partitions and connections.

Nothing may grow faster than linearly, and what a request costs must not grow with partitions
or connections that are only there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from bench import machine
from bench.errors import BenchError
from bench.figures.standing import loaded_start, write_partitions
from bench.histogram import Histogram
from bench.path.measure import measure, started
from bench.path.process import BrokerProcess
from bench.path.work import Work, produce
from bench.peers import trioq
from bench.report import Row, table, write_report

Figures = dict[str, float]
COUNTS: Final = (1, 10, 100, 1000, 5000)
QUICK_COUNTS: Final = (1, 10, 100)
SENDING: Final = 16
IDLE_BOUND: Final = 1.25
"""A request may cost so much more beside idle partitions or connections: what caches do."""


class Series(NamedTuple):
    """A figure for each count of something."""

    name: str
    figure: str
    unit: str
    is_idle: bool
    """What is counted does nothing, so the figure should not depend on it."""

    values: dict[int, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Counts are 1, 10, 100, 1000, 5000; with --quick up to 100."""
    parser.add_argument("--runs", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--quick", action="store_true", help="small counts, for a look")
    parser.add_argument("--only", default="", help="series whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report too")


def run(arguments: argparse.Namespace) -> None:
    """Measure every series in rounds, print, write."""
    counts = QUICK_COUNTS if arguments.quick else COUNTS
    about = machine.describe()
    print(machine.sentence(about))
    found = []
    failures = {}
    for name, figure, unit, is_idle, measure_one in _series():
        if arguments.only not in name:
            continue
        series = Series(name, figure, unit, is_idle, {count: [] for count in counts})
        for _ in range(arguments.runs):
            for count in counts:
                try:
                    series.values[count].append(measure_one(count, arguments.seconds)[figure])
                except BenchError as error:
                    failures[f"{name}, {count}"] = str(error)
        found.append(series)
    print(growth_table(found, counts))
    for what, reason in failures.items():
        print(f"{what}: {reason}")
    if arguments.json:
        settings = {"runs": arguments.runs, "seconds": arguments.seconds}
        write_report(
            arguments.json, "growth", about, settings, list(_rows(found)), failures=failures
        )


def _series() -> list[tuple[str, str, str, bool, Callable[[int, float], Figures]]]:
    cpu, ready, resident = "broker_cpu_us_per_request", "ready_s", "resident_bytes"
    return [
        ("produce, partitions idle", cpu, "us CPU/request", True, idle_partitions),
        ("produce, partitions written", cpu, "us CPU/request", False, written_partitions),
        ("produce, connections idle", cpu, "us CPU/request", True, idle_connections),
        ("produce, connections sending", cpu, "us CPU/request", False, sending_connections),
        ("metadata of all partitions", cpu, "us CPU/request", False, described_partitions),
        ("start after a clean stop, partitions", ready, "s", False, _loaded_start),
        ("resident, partitions written", resident, "bytes", False, _resident),
    ]


_loaded: dict[int, list[Figures]] = {}


def _loaded_start(count: int, _seconds: float) -> Figures:
    figures = loaded_start(count)
    _loaded.setdefault(count, []).append(figures)
    return figures


def _resident(count: int, _seconds: float) -> Figures:
    """From the same runs as the start, as long as there are any."""
    return _loaded[count].pop() if _loaded.get(count) else loaded_start(count)


def _measured(work: Work, seconds: float, partitions: int = 0) -> Figures:
    """`work` beside `partitions` partitions that were written once."""
    with started(trioq.PEER, {}) as broker:
        if partitions:
            write_partitions(broker, partitions)
        return _figures(broker, work, seconds)


def _figures(broker: BrokerProcess, work: Work, seconds: float) -> Figures:
    return measure(trioq.PEER, broker, work, seconds=seconds).load.figures()


def idle_partitions(count: int, seconds: float) -> Figures:
    """Small requests to one topic of four partitions, beside `count` others."""
    return _measured(produce(SENDING, 5, 1, 100), seconds, partitions=count)


def written_partitions(count: int, seconds: float) -> Figures:
    """Small requests that go round `count` partitions."""
    return _measured(produce(SENDING, 5, 1, 100, partitions=count), seconds)


def idle_connections(count: int, seconds: float) -> Figures:
    """Small requests on 16 connections, beside `count` that are only held."""
    return _measured(produce(SENDING + count, 5, 1, 100, partitions=4, active=SENDING), seconds)


def sending_connections(count: int, seconds: float) -> Figures:
    """One small request in flight on each of `count` connections."""
    return _measured(produce(count, 1, 1, 100), seconds)


def described_partitions(count: int, seconds: float) -> Figures:
    """Metadata of a topic with `count` partitions; the answer grows with it."""
    return _measured(Work("metadata", 4, partitions=count), seconds)


def growth_table(found: Sequence[Series], counts: Sequence[int]) -> str:
    """A line per series with a column per count, and a verdict on how it grows."""
    lines = []
    for series in found:
        medians = {count: statistics.median(runs) for count, runs in series.values.items() if runs}
        cells = [f"{medians[count]:.4g}" if count in medians else "-" for count in counts]
        lines.append((series.name, series.unit, *cells, verdict(medians, is_idle=series.is_idle)))
    return table(("growth", "unit", *map(str, counts), ""), lines)


def verdict(medians: dict[int, float], *, is_idle: bool) -> str:
    """How the figure grows from the least count to the greatest.

    For what only stands by: level, or by how much it has grown. Otherwise: sublinear, linear at
    most, or FASTER where a step of the counts multiplies the figure by more than itself.
    """
    if len(medians) < 2:
        return "?"
    ordered = sorted(medians)
    if is_idle:
        factor = medians[ordered[-1]] / medians[ordered[0]]
        return "level" if factor <= IDLE_BOUND else f"GROWS x {factor:.2f}"
    steps = pairwise(ordered)
    faster = [
        f"{low} to {high}" for low, high in steps if medians[high] / medians[low] > high / low
    ]
    return f"FASTER than linear from {', '.join(faster)}" if faster else "not above linear"


def _rows(found: Sequence[Series]) -> Iterator[Row]:
    for series in found:
        for count, runs in series.values.items():
            case = f"{series.name}: {count}"
            figures = [{series.figure: value} for value in runs]
            yield Row(case, "trioq", {"count": count}, figures, Histogram())
