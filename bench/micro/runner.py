"""What pyperf runs, again and again in processes of its own: every micro case, by its name."""

from __future__ import annotations

import os

import pyperf

from bench.micro.cases import cases

ONLY = os.environ.get("TRIOQ_BENCH_ONLY", "")

if __name__ == "__main__":
    runner = pyperf.Runner(program_args=("-m", "bench.micro.runner"))
    for case in cases():
        if ONLY in case.name:
            runner.bench_func(case.name, case.call)
