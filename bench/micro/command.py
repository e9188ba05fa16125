"""`python -m bench micro`: pyperf over the micro cases, and what is compared side by side."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.errors import BenchError
from bench.path.process import ROOT
from bench.report import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """pyperf's own report can be kept, for `pyperf compare_to`."""
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--fast", action="store_true", help="fewer values: quicker, less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep pyperf's report")


def run(arguments: argparse.Namespace) -> None:
    """Raises BenchError without pyperf, or when it fails."""
    if importlib.util.find_spec("pyperf") is None:
        raise BenchError("micro needs pyperf: python -m pip install --group bench, in a checkout")
    with tempfile.TemporaryDirectory(prefix="trioq-bench-") as directory:
        report = (arguments.json or Path(directory) / "micro.json").absolute()
        if arguments.json:
            report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "bench.micro.runner", "-o", str(report)]
        command += ["--inherit-environ", "PYTHONPATH,TRIOQ_BENCH_ONLY"]
        command += ["--fast"] if arguments.fast else []
        environment = {"PYTHONPATH": str(ROOT), "TRIOQ_BENCH_ONLY": arguments.only}
        done = subprocess.run(command, check=False, env={**os.environ, **environment})
        if done.returncode or not report.exists():
            raise BenchError("pyperf has no figures: no case has this name, or one failed")
        print(side_by_side(report))


def side_by_side(report: Path) -> str:
    """A line per group: ours, the others', and how many times as fast ours is."""
    import pyperf

    means: dict[str, dict[str, float]] = defaultdict(dict)
    for benchmark in pyperf.BenchmarkSuite.load(str(report)).get_benchmarks():
        group, _, subject = benchmark.get_name().rpartition(": ")
        means[group][subject] = benchmark.mean()
    lines = []
    for group, found in means.items():
        ours = found.get("trioq", 0.0)
        others = [name for name in found if name != "trioq"]
        beside = ", ".join(f"{name} {_shown(found[name])}" for name in others)
        factor = f"{found[others[0]] / ours:.2f}" if others and ours else ""
        lines.append((group, _shown(ours), beside, factor))
    return table(("case", "trioq", "beside", "times as fast"), lines)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-5 else f"{seconds * 1e6:.1f} us"
