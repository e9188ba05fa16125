"""The micro cases timed in a moment, for the table; `python -m bench micro` does it with pyperf."""

from __future__ import annotations

import timeit

from bench.micro.cases import MicroCase

LEAST_S = 0.02
ROUNDS = 5


def seconds_per_call(case: MicroCase) -> float:
    """The best of some rounds of at least 20 ms: what the code takes when nothing disturbs it."""
    timer = timeit.Timer(case.call)
    calls, took_s = 1, timer.timeit(1)
    while took_s < LEAST_S:
        calls *= 4
        took_s = timer.timeit(calls)
    return min(timer.repeat(ROUNDS, calls)) / calls
