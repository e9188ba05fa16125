"""`python -m bench cluster`: what replication costs, and how fast leaders are replaced."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench import machine
from bench.cluster import failing, processes, replicating, standing
from bench.errors import BenchError
from bench.histogram import Histogram
from bench.report import Row, table, write_report

Figures = dict[str, float]

REPLICATED = "acks=all on three beside acks=1 on one, "
KILLED_LEADER = "leader of 200 partitions killed"
SHUTDOWN = "leader of 200 partitions stops in order"
IDLE = "2,000 partitions x 3 at rest"
KILLED_CONTROLLER = "controller of 2,000 partitions x 3 killed"

TARGETS: Final = {
    (REPLICATED + "100 KB", "cpu_ratio"): (">=", 0.4),
    (REPLICATED + "100 KB", "follower_cpu_s_per_gb"): ("<=", 0.5),
    (KILLED_LEADER, "after_session_p99_s"): ("<=", 0.5),
    (SHUTDOWN, "longest_ms"): ("<=", 100.0),
    (IDLE, "busiest_cores"): ("<=", 0.05),
    (KILLED_CONTROLLER, "after_session_s"): ("<=", 3.0),
}
"""What is asked of a figure."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It needs Java and ZooKeeper, as `trioq dev-cluster` does."""
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--runs", type=int, default=3, help="runs per case; medians are shown")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load per run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report too")


def run(arguments: argparse.Namespace) -> None:
    """Measure every case, print, write."""
    missing = processes.absent()
    if missing:
        raise BenchError(missing)
    about = machine.describe()
    print(machine.sentence(about))
    rows: list[Row] = []
    failures: dict[str, str] = {}
    for name, measure in _cases(arguments.seconds).items():
        if arguments.only not in name:
            continue
        runs: list[Figures] = []
        for _ in range(arguments.runs):
            try:
                runs.append(measure())
            except BenchError as error:
                failures[name] = str(error)
        if runs:
            rows.append(Row(name, "trioq", {}, runs, Histogram()))
    print(_table(rows))
    for what, reason in failures.items():
        print(f"{what}: {reason}")
    if arguments.json:
        settings = {"runs": arguments.runs, "seconds": arguments.seconds}
        write_report(arguments.json, "cluster", about, settings, rows, failures=failures)


def _cases(seconds: float) -> dict[str, Callable[[], Figures]]:
    cases: dict[str, Callable[[], Figures]] = {}
    for name, work in replicating.WORKS.items():
        cases[REPLICATED + name] = partial(replicating.compared, work, seconds)
    return cases | {
        KILLED_LEADER: failing.killed_leader,
        SHUTDOWN: failing.controlled_shutdown,
        IDLE: standing.idle,
        KILLED_CONTROLLER: standing.killed_controller,
    }


def _table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for figure, value in row.medians.items():
            sign, bound = TARGETS.get((row.case, figure), ("", 0.0))
            target = f"{sign} {bound:g}" if sign else ""
            lines.append((row.case, figure, f"{value:.4g}", target))
    return table(("case", "figure", "median", "target"), lines)
