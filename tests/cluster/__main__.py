"""`python -m tests.cluster --minutes 60`: faults by chance, over and over, on one cluster.

Each run is a new topic under load of one of several shapes, one fault of the suite's or of those
beside them, and the verdict on the history; `--pairs` strikes with two at a time. Prints a line a
run, and in the end how many passed of each. A run that failed leaves its history and the brokers'
logs in the directory, and the next one has a new cluster. The exit status is 1 when one failed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.cluster import network
from tests.cluster.change_faults import CHANGE_FAULTS
from tests.cluster.faults import FAULTS, Fault
from tests.cluster.harness import Cluster, standard
from tests.cluster.loop_faults import LOOP_FAULTS
from tests.cluster.scene import SHAPES, Shape, under_load

ALL = FAULTS | CHANGE_FAULTS | LOOP_FAULTS


def one_run(cluster: Cluster, faults: list[Fault], shape: Shape, seed: int, directory: Path) -> str:
    """What went wrong; empty if nothing did."""
    topic = f"run-{seed}"
    try:
        cluster.mend()
        errors = frozenset[str]().union(*(one.errors for one in faults))
        with under_load(cluster, topic, directory, seed=seed, errors=errors, shape=shape) as scene:
            for number, fault in enumerate(faults):
                if number:
                    scene.ready_for_more()
                fault.strike(scene)
    except Exception:
        return traceback.format_exc()
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--faults", help=f"some of {', '.join(ALL)}")
    parser.add_argument(
        "--pairs", action="store_true", help="two faults in each run, one after the other"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 20))
    parser.add_argument("--zookeepers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--directory", type=Path, help="where what failed is kept")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)  # nothing is left behind
    names = arguments.faults.split(",") if arguments.faults else list(ALL)
    chosen = [ALL[name] for name in names]
    if reason := network.missing():
        print(reason)
        chosen = [one for one in chosen if not one.cuts_network]
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="trioq-faults-"))
    print(f"seed {arguments.seed}, directory {directory}")
    loop = Loop(chosen, arguments.seed, directory, pairs=arguments.pairs)
    end_s = time.monotonic() + arguments.minutes * 60
    while time.monotonic() < end_s:
        loop.life(end_s, arguments.zookeepers)
    loop.tell()
    return 1 if loop.failed else 0


class Loop:
    """Run after run; `life` is those on one cluster."""

    def __init__(self, faults: list[Fault], seed: int, directory: Path, *, pairs: bool) -> None:
        self.passed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._faults = faults
        self._seed = seed
        self._directory = directory
        self._pairs = pairs
        self._due: list[Fault] = []

    def _next(self) -> list[Fault]:
        """Every fault comes once before any comes again."""
        if len(self._due) < 2:
            fresh = self._faults.copy()
            random.Random(self._seed).shuffle(fresh)
            self._due += fresh
        return [self._due.pop(0) for _ in range(2 if self._pairs else 1)]

    def life(self, end_s: float, zookeepers: int) -> None:
        """Runs on one cluster until the time is over, or one fails."""
        with tempfile.TemporaryDirectory(prefix="trioq-cluster-") as name:
            own = Path(name)
            with standard(own, zookeepers) as cluster:
                while time.monotonic() < end_s:
                    faults = self._next()
                    names = "+".join(one.name for one in faults)
                    began_s = time.monotonic()
                    shape = SHAPES[self._seed % len(SHAPES)]
                    problem = one_run(cluster, faults, shape, self._seed, own)
                    took_s = time.monotonic() - began_s
                    verdict = "FAILED" if problem else "passed"
                    print(
                        f"{self._seed} {names} ({shape.name}) {verdict} in {took_s:.1f} s",
                        flush=True,
                    )
                    (self.failed if problem else self.passed)[names] += 1
                    self._seed += 1
                    if problem:
                        self._keep(cluster, own, names, problem)
                        return

    def _keep(self, cluster: Cluster, own: Path, names: str, problem: str) -> None:
        """Set aside what explains a failure."""
        print(problem, file=sys.stderr)
        where = self._directory / f"{self._seed - 1}-{names}"
        where.mkdir(parents=True)
        (where / "problem.txt").write_text(problem)
        for path in own.glob("*.history"):
            shutil.copy(path, where)
        for number, broker in cluster.brokers.items():
            shutil.copy(broker.log_path, where / f"broker-{number}.log")
        for server in cluster.zookeepers:
            shutil.copy(server.log_path, where / f"{server.directory.name}.log")

    def tell(self) -> None:
        for name in sorted(self.passed | self.failed):
            print(f"{name:40} {self.passed[name]} passed, {self.failed[name]} failed")
        print(f"{self.passed.total()} runs passed, {self.failed.total()} failed")


if __name__ == "__main__":
    sys.exit(main())
