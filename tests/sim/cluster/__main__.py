"""`python -m tests.sim.cluster --seeds A:B`: runs these histories; exits with 1 if one fails."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.sim.cluster.history import run_history
from trioq import logs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.cluster", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="one seed, or A:B without B")
    parser.add_argument("--trace", action="store_true", help="show what happens")
    parser.add_argument("--keep-going", action="store_true", help="count failures, show each")
    arguments = parser.parse_args()
    first, colon, end = arguments.seeds.partition(":")
    seeds = range(int(first), int(end) if colon else int(first) + 1)
    logs.configure("error")
    total: Counter[str] = Counter()
    failed = []
    began_s = time.process_time()
    for seed in seeds:
        try:
            outcome = run_history(seed, trace=arguments.trace)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if arguments.trace or not isinstance(error, AssertionError):
                traceback.print_exc()
            if not arguments.keep_going:
                break
        else:
            total.update(outcome._asdict())
    spent_s = time.process_time() - began_s
    print(f"{len(seeds)} histories, {spent_s:.1f} s of CPU: {dict(total)}; failed: {failed}")
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main())
