"""Prepares what fuzzing needs below build/fuzz, and runs targets one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.native_tree import ROOT, build_tree, tree_environment

ATHERIS = "atheris==3.0.0"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
"""What was found, by target: kept in the repository, replayed by `make test`."""

_BUILD = ROOT / "build" / "fuzz"
_TREE = _BUILD / "tree"
_SITE = _BUILD / "site"
_COVERAGE = _BUILD / "coverage.so"
_COVERAGE_FLAGS = "-O2 -fsanitize-coverage=trace-pc,trace-cmp"
_EXTRA_SECONDS = 120  # to import, to run the seeds, to stop


class Run(NamedTuple):
    """What one target's run gave."""

    name: str
    seconds: float
    executions: int
    per_second: int
    features: int
    inputs: int
    findings: list[Path]


def prepare() -> dict[str, str]:
    """Build the instrumented tree and fetch atheris; the environment to run in.

    With another compiler than gcc on Linux native code is not instrumented, only called.
    """
    is_counted = sys.platform == "linux"
    build_tree(_TREE, **({"CFLAGS": _COVERAGE_FLAGS} if is_counted else {}))
    if not (_SITE / "atheris").exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", _SITE, ATHERIS],
            check=True,
        )
    environment = tree_environment(_TREE)
    environment["PYTHONPATH"] += f"{os.pathsep}{_SITE}"
    if is_counted:
        source = ROOT / "tests" / "fuzz" / "coverage.c"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", _COVERAGE, source], check=True)
        environment |= {"LD_PRELOAD": str(_COVERAGE), "TRIOQ_FUZZ_COVERAGE": str(_COVERAGE)}
    return environment


def run_target(name: str, seconds: int, environment: dict[str, str]) -> Run:
    """Fuzz one target; what it finds is in CORPUS afterwards, its output in build/fuzz/logs."""
    found = CORPUS / name
    grown = _BUILD / "corpus" / name
    log = _BUILD / "logs" / f"{name}.log"
    for directory in (found, grown, log.parent):
        directory.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    started = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.engine", name, str(_BUILD / "seeds" / name)),
                *(f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1500"),
                *("-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={found}/"),
                *(str(grown), str(found)),
            ],
            cwd=_TREE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=seconds + _EXTRA_SECONDS,
            check=False,
        ).returncode
    text = log.read_text(errors="replace")
    findings = sorted(set(found.iterdir()) - before)
    if status and not findings:
        raise SystemExit(f"{name} did not run (status {status}):\n{text[-3000:]}")
    if not any(found.iterdir()):
        found.rmdir()
    return Run(
        name,
        time.monotonic() - started,
        _stat(text, r"number_of_executed_units:\s*(\d+)"),
        _stat(text, r"average_exec_per_sec:\s*(\d+)"),
        _stat(text, r"\bft: (\d+)"),
        sum(1 for _ in grown.iterdir()),
        findings,
    )


def _stat(text: str, pattern: str) -> int:
    values = re.findall(pattern, text)
    return int(values[-1]) if values else 0


def last_error(name: str) -> str:
    """The traceback at the end of a target's output."""
    text = (_BUILD / "logs" / f"{name}.log").read_text(errors="replace")
    start = text.rfind("=== Uncaught Python exception")
    end = text.find("==", start + 40)
    return text[start:end].strip() if start >= 0 else text[-2000:]
