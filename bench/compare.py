"""`python -m bench compare A.json B.json`: what has changed between two reports."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.errors import BenchError
from bench.report import table

GREATER_IS_BETTER: Final = ("requests_per_s", "bytes_per_s", "rounds_per_s")
COMPARED: Final = (
    ("requests_per_s", "req/s"),
    ("broker_cpu_us_per_request", "us CPU"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two reports of the same kind."""
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")


def run(arguments: argparse.Namespace) -> None:
    """Print both, and B in terms of A."""
    print(compared(read_report(arguments.before), read_report(arguments.after)))


def read_report(path: Path) -> dict[str, Any]:
    """A report; raises BenchError for a file that is none."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from error
    if not isinstance(report, dict) or "rows" not in report:
        raise BenchError(f"{path} is no report of this bench")
    return report


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A table: cases of both reports, A, B, and the factor; `!` where B's runs are all worse.

    All runs of B being worse than all of A is what chance does in one of 20 with three runs
    each, in one of 252 with five.
    """
    old = {(row["case"], row["subject"]): row for row in before["rows"]}
    new = {(row["case"], row["subject"]): row for row in after["rows"]}
    lines = []
    for key in [key for key in old if key in new]:
        for figure, title in COMPARED:
            line = _line(key, old[key], new[key], figure, title)
            if line:
                lines.append(line)
    only = [f"only in A: {', '.join(key)}" for key in old if key not in new]
    only += [f"only in B: {', '.join(key)}" for key in new if key not in old]
    return "\n".join(
        [
            *_differences(before["machine"], after["machine"], "machine"),
            *_differences(before["settings"], after["settings"], "settings"),
            table(("case", "subject", "figure", "A", "B", "B/A", ""), lines),
            *only,
        ]
    )


def _line(
    key: tuple[str, str], old: dict[str, Any], new: dict[str, Any], figure: str, title: str
) -> tuple[str, ...] | None:
    a, b = old["median"].get(figure), new["median"].get(figure)
    if a is None or b is None:
        return None
    factor = f"{b / a:.2f}" if a else "-"
    verdict = _verdict(
        [run[figure] for run in old["runs"]],
        [run[figure] for run in new["runs"]],
        is_greater_better=figure in GREATER_IS_BETTER,
    )
    return (*key, title, f"{a:.4g}", f"{b:.4g}", factor, verdict)


def _verdict(old: list[float], new: list[float], *, is_greater_better: bool) -> str:
    """ "+" or "!" where the runs do not overlap."""
    if max(old) < min(new):
        return "+" if is_greater_better else "!"
    if max(new) < min(old):
        return "!" if is_greater_better else "+"
    return ""


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> list[str]:
    """Sentences about what is not the same, but for what never is."""
    names = [name for name in {**old, **new} if name not in {"time", "load_average"}]
    return [
        f"{what} {name}: {old.get(name)} in A, {new.get(name)} in B"
        for name in names
        if old.get(name) != new.get(name)
    ]
