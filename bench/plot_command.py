"""`python -m bench plot REPORT.json DIR`: the plots of a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.compare import read_report
from bench.plots import plot_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A report of `path` or `figures`, and where the plots go."""
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    parser.add_argument("directory", type=Path, metavar="DIR")


def run(arguments: argparse.Namespace) -> None:
    """Draw, and say what was written."""
    for path in plot_rows(read_report(arguments.report)["rows"], arguments.directory):
        print(path)
