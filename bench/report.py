"""Reports: what was measured, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.histogram import Histogram
from bench.path.measure import Measured
from bench.path.work import Work

FORMAT = 1


class Row(NamedTuple):
    """A case against a subject: every run's figures, their medians, all latencies together."""

    case: str
    subject: str
    """A peer's name, "trioq" among them, or a floor's."""

    work: dict[str, Any]
    runs: list[dict[str, float]]
    latency: Histogram
    notes: tuple[str, ...] = ()

    @property
    def medians(self) -> dict[str, float]:
        """Of each figure that every run has."""
        shared = set.intersection(*(set(run) for run in self.runs)) if self.runs else set()
        return {name: statistics.median(run[name] for run in self.runs) for name in sorted(shared)}

    def described(self) -> dict[str, Any]:
        """For a report."""
        return {
            "case": self.case,
            "subject": self.subject,
            "work": self.work,
            "median": self.medians,
            "runs": self.runs,
            "latency": self.latency.as_list(),
            "notes": list(self.notes),
        }


def row_of(case: str, subject: str, work: Work, measured: Sequence[Measured]) -> Row:
    """The row of some runs of one case."""
    notes = []
    if work.kind == "produce" and work.is_idempotent and not measured[-1].is_idempotent:
        notes.append("without producer ids: it gives none")
    answer_bytes = measured[-1].load.bytes_per_s / measured[-1].load.requests_per_s
    if work.kind == "fetch" and answer_bytes > 1.5 * work.batch_bytes:
        notes.append(f"it answers with {answer_bytes / 1e6:.0f} MB, whatever is asked for")
    checked = [one.verified for one in measured if one.verified]
    notes += [f"{found.records} records read back and checked" for found in checked]
    latency = sum((one.load.histogram for one in measured), Histogram())
    runs = [one.load.figures() for one in measured]
    return Row(case, subject, work.described(), runs, latency, tuple(notes))


def write_report(
    path: Path,
    kind: str,
    machine: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    **more: Any,
) -> None:
    """One JSON document; `more` is what only this kind of report has."""
    report = {
        "format": FORMAT,
        "kind": kind,
        "machine": dict(machine),
        "settings": dict(settings),
        "rows": [row.described() for row in rows],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: the first column to the left, the others to the right."""
    widths = [
        max(len(cells[at]) for cells in [columns, *rows]) if rows else len(columns[at])
        for at in range(len(columns))
    ]
    lines = []
    for cells in [columns, *rows]:
        aligned = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


PATH_COLUMNS = (
    "case",
    "subject",
    "req/s",
    "MB/s",
    "us CPU",
    "CPU s/GB",
    "p50 ms",
    "p99 ms",
    "p99.9",
    "max",
)


def path_table(rows: Sequence[Row]) -> str:
    """The figures of cases against brokers, with what is to be said about them below."""
    lines, notes = [], []
    for row in rows:
        median = row.medians
        lines.append(
            (
                row.case,
                row.subject,
                f"{median['requests_per_s']:.0f}",
                f"{median['bytes_per_s'] / 1e6:.1f}",
                f"{median['broker_cpu_us_per_request']:.1f}",
                f"{median['broker_cpu_s_per_gb']:.2f}",
                f"{median['p50_ms']:.2f}",
                f"{median['p99_ms']:.2f}",
                f"{median['p999_ms']:.2f}",
                f"{median['max_ms']:.2f}",
            )
        )
        notes += [f"{row.case}, {row.subject}: {note}" for note in row.notes]
    return "\n".join([table(PATH_COLUMNS, lines), *notes])
