"""`python -m bench figures`: the whole table, with targets, floors and peers side by side."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Final

from bench import machine
from bench.errors import BenchError
from bench.figures.steps import Step, steps
from bench.figures.targets import FLOOR, Figures, Verdict, judge
from bench.histogram import Histogram
from bench.path.measure import Measured, started
from bench.path.work import Work
from bench.peers.registry import PEERS, present
from bench.report import Row, row_of, table, write_report

QUICK_SECONDS: Final = 0.7
SECONDS: Final = 3.0
RUNS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """With the defaults it takes about an hour; --quick some ten minutes, and is good for nothing
    but seeing that everything works."""
    parser.add_argument("--runs", type=int, help=f"rounds; medians are shown (default {RUNS})")
    parser.add_argument("--seconds", type=float, help=f"of each run (default {SECONDS:g})")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing read back")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--peers", default="all", help="of: " + ",".join(p.name for p in PEERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report too")


def run(arguments: argparse.Namespace) -> None:
    """Measure in rounds, judge, print, write."""
    runs = arguments.runs or (1 if arguments.quick else RUNS)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    names = None if arguments.peers == "all" else {"trioq", *arguments.peers.split(",")}
    peers, absent = present(names)
    about = machine.describe()
    failures = {f"{name} is absent": reason for name, reason in absent.items()}
    with contextlib.ExitStack() as stack:
        kept = {one.name: stack.enter_context(started(one, {})) for one in peers if one.is_kept}
        chosen = [
            step
            for step in steps(peers, kept, is_verified=not arguments.quick)
            if arguments.only in step.case
        ]
        rows, failed = measure_steps(chosen, runs, seconds)
    failures |= failed
    verdicts = judge(Figures(rows))
    print(machine.sentence(about))
    print(f"median of {runs} interleaved runs of {seconds:g} s")
    subjects = [FLOOR, *(one.name for one in peers if one.name != "trioq")]
    print(figures_table(verdicts, subjects))
    for row in rows:
        for note in row.notes:
            print(f"{row.case}, {row.subject}: {note}")
    for what, reason in failures.items():
        print(f"{what}: {reason}")
    if arguments.json:
        versions = {one.name: one.version() for one in peers}
        settings = {"runs": runs, "seconds": seconds}
        write_report(
            arguments.json,
            "figures",
            about,
            settings,
            rows,
            peers=versions,
            failures=failures,
            targets=[_described(verdict) for verdict in verdicts],
        )


def measure_steps(
    chosen: list[Step], runs: int, seconds: float
) -> tuple[list[Row], dict[str, str]]:
    """Every step once in each round; a step that has failed is not tried again."""
    found: dict[tuple[str, str], list[Measured | dict[str, float]]] = {}
    failures: dict[str, str] = {}
    begun_s = time.monotonic()
    for number in range(runs):
        for step in chosen:
            name = f"{step.case}, {step.subject}"
            if name in failures or (step.is_once and number):
                continue
            _progress(f"round {number + 1} of {runs}, {time.monotonic() - begun_s:.0f} s: {name}")
            try:
                found.setdefault((step.case, step.subject), []).append(step.run(seconds))
            except BenchError as error:
                failures[name] = str(error)
    _progress("")
    works = {(step.case, step.subject): step.work for step in chosen}
    rows = [_row(*key, works[key], runs_of) for key, runs_of in found.items() if runs_of]
    return rows, failures


def _row(
    case: str, subject: str, work: Work | None, found: list[Measured | dict[str, float]]
) -> Row:
    measured = [one for one in found if isinstance(one, Measured)]
    if measured and work:
        return row_of(case, subject, work, measured)
    plain = [one for one in found if not isinstance(one, Measured)]
    return Row(case, subject, work.described() if work else {}, plain, Histogram())


def _progress(text: str) -> None:
    """A line on the terminal that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def figures_table(verdicts: list[Verdict], subjects: list[str]) -> str:
    """A line per target; `MISSED` stands out, and what could not be measured says so."""
    others = [
        *subjects,
        *sorted({name for one in verdicts for name in one.beside if name not in subjects}),
    ]
    lines = []
    for verdict in verdicts:
        if verdict.value is None and not verdict.beside:
            continue
        check = verdict.check
        beside = [verdict.beside.get(name) for name in others]
        lines.append(
            (
                check.title or check.case,
                check.unit,
                _shown(verdict.value, check.scale),
                _target(verdict),
                {True: "met", False: "MISSED", None: "?"}[verdict.is_met],
                *(_shown(value, check.scale) for value in beside),
            )
        )
    return table(("work", "unit", "trioq", "target", "", *others), lines)


def _target(verdict: Verdict) -> str:
    check = verdict.check
    sign = ">=" if check.is_least else "<="
    limit = _shown(verdict.limit, check.scale)
    return f"{sign} {limit} ({check.limit.shown})" if check.limit.shown else f"{sign} {limit}"


def _shown(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.3g}"


def _described(verdict: Verdict) -> dict[str, object]:
    """For a report."""
    return {
        "case": verdict.check.case,
        "figure": verdict.check.figure,
        "value": verdict.value,
        "target": verdict.limit,
        "sign": ">=" if verdict.check.is_least else "<=",
        "of": verdict.check.limit.shown,
        "met": verdict.is_met,
    }
