"""`python -m tests.faults.soak --minutes 30`: mixed load over restarts, then without them.

In the first two thirds the broker is stopped and started, or killed with SIGKILL and started,
every few seconds; in the last third it runs through, so that a leak shows. Every acknowledged
record has to be read, at its offset, in order, once, and no acknowledged commit of a consumer
group may be lost. Prints a table; with --json also a report.
The exit status is 1 when something was lost, out of order, refused for no reason, or grew.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.broker_process import BrokerProcess
from tests.faults.client import Client
from tests.faults.soak_groups import CommitLedger, GroupMember
from tests.faults.soak_load import Churn, ConfluentPartition, RawLedger, Worker

PARTITIONS = 5
MEMBERS = 3
MIB = 1 << 20
GROWTH_ALLOWED_BYTES = 8 * MIB
DESCRIPTORS_ALLOWED = 20
LISTEN = "127.0.0.77:0" if sys.platform == "linux" else "127.0.0.1:0"
"""Where it can be had an address of its own: between two lives nobody else may answer there."""

SETTINGS = {
    "log.segment.bytes": "4000000",
    "log.retention.bytes": "30000000",
    "log.retention.check.interval.ms": "1000",
    "log.flush.offset.checkpoint.interval.ms": "5000",
    "connections.max.idle.ms": "60000",
    "request.receive.timeout.ms": "5000",
    "group.initial.rebalance.delay.ms": "100",
}


class Sample(NamedTuple):
    """What the process has at a moment; `age_s` since it was started."""

    age_s: float
    resident_bytes: int
    descriptors: int


class Life(NamedTuple):
    """One process of the broker's."""

    ended_by: str
    seconds: float
    samples: list[Sample]
    back_after_s: float
    """From its end until the next one was ready."""


class Soak:
    """The broker, its load, and what was seen of both."""

    def __init__(self, directory: Path, minutes: float) -> None:
        self.minutes = minutes
        self.broker = BrokerProcess(directory, listen=LISTEN, settings=SETTINGS)
        self.lives: list[Life] = []
        self.workers: list[Worker] = []
        self._started_s = 0.0

    def run(self) -> None:
        self._start()
        with Client((self.broker.host, self.broker.port)) as client:
            client.create("orders", PARTITIONS)
            client.create("churn", 1)
        commits = CommitLedger()
        self.workers = [
            *(ConfluentPartition(self.broker, "orders", number) for number in range(PARTITIONS)),
            *(RawLedger(self.broker, number) for number in range(2)),
            *(GroupMember(self.broker, "orders", commits, number) for number in range(MEMBERS)),
            Churn(self.broker, "churn"),
        ]
        for worker in self.workers:
            worker.start()
        end_s = time.monotonic() + self.minutes * 60
        restarts_end_s = end_s - self.minutes * 60 / 3
        while time.monotonic() < restarts_end_s and not self.failures():
            samples = self._watch(min(random.uniform(5, 20), restarts_end_s - time.monotonic()))
            self._restart(random.choice(("SIGTERM", "SIGKILL")), samples)
        samples = self._watch(end_s - time.monotonic())
        for worker in self.workers:
            worker.stopping.set()
        for worker in self.workers:
            worker.join(300)
        code = self.broker.terminate()
        self._end_life("SIGTERM" if code == 0 else f"exit {code}", samples, 0.0)

    def _start(self) -> None:
        self.broker.start()
        self._started_s = time.monotonic()

    def _watch(self, seconds: float) -> list[Sample]:
        """Sample until then, or until something failed."""
        samples = []
        end_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end_s and not self.failures():
            if not self.broker.running:
                raise AssertionError("the broker has ended by itself")
            samples.append(
                Sample(
                    now_s - self._started_s,
                    self.broker.resident_bytes(),
                    len(list(Path(f"/proc/{self.broker.pid}/fd").iterdir())),
                )
            )
            time.sleep(min(0.5, max(0.0, end_s - now_s)))
        return samples

    def _restart(self, how: str, samples: list[Sample]) -> None:
        began_s = time.monotonic()
        if how == "SIGKILL":
            self.broker.kill9()
        else:
            code = self.broker.terminate()
            if code != 0:
                how = f"exit {code}"
        down_s = time.monotonic()
        self.broker.start()
        self._end_life(how, samples, time.monotonic() - began_s, until_s=down_s)

    def _end_life(
        self, how: str, samples: list[Sample], back_s: float, *, until_s: float | None = None
    ) -> None:
        now_s = time.monotonic()
        self.lives.append(Life(how, (until_s or now_s) - self._started_s, samples, back_s))
        self._started_s = now_s

    def failures(self) -> list[str]:
        return [worker.failure for worker in self.workers if worker.failure]

    # ---- judging

    def growth(self) -> tuple[int, int]:
        """Resident bytes and descriptors: the last quarter of the last life over its second."""
        samples = self.lives[-1].samples
        quarter = len(samples) // 4
        if not quarter:
            return 0, 0
        second, last = samples[quarter : 2 * quarter], samples[-quarter:]
        resident = statistics.median(one.resident_bytes for one in last) - statistics.median(
            one.resident_bytes for one in second
        )
        return int(resident), max(one.descriptors for one in last) - max(
            one.descriptors for one in second
        )

    def verdict(self) -> list[str]:
        """What is wrong; nothing if the soak is passed."""
        wrong = self.failures()
        wrong += [f"{worker.name} has not ended" for worker in self.workers if worker.is_alive()]
        resident, descriptors = self.growth()
        if resident > GROWTH_ALLOWED_BYTES:
            wrong.append(f"resident memory grew by {resident / MIB:.1f} MiB in the last life")
        if descriptors > DESCRIPTORS_ALLOWED:
            wrong.append(f"{descriptors} more file descriptors at the end of the last life")
        wrong += [f"a life ended by {one.ended_by}" for one in self.lives if "exit" in one.ended_by]
        wrong += [f"log line: {line}" for line in self.broker.problems()[:10]]
        return wrong

    def report(self) -> dict[str, Any]:
        resident, descriptors = self.growth()
        samples = [sample for life in self.lives for sample in life.samples]
        return {
            "minutes": self.minutes,
            "restarts": {
                how: sum(one.ended_by == how for one in self.lives[:-1])
                for how in ("SIGTERM", "SIGKILL")
            },
            "longest_until_ready_again_s": max(one.back_after_s for one in self.lives),
            "work": {worker.name: worker.done for worker in self.workers},
            "resident_mib": {
                "first_life_end": _mib(self.lives[0].samples[-1:]),
                "last_life_end": _mib(self.lives[-1].samples[-1:]),
                "highest": _mib(samples),
                "growth_in_last_life": round(resident / MIB, 1),
            },
            "descriptors": {
                "highest": max((one.descriptors for one in samples), default=0),
                "growth_in_last_life": descriptors,
            },
            "wrong": self.verdict(),
        }


def _mib(samples: list[Sample]) -> float:
    return round(max((one.resident_bytes for one in samples), default=0) / MIB, 1)


def table(report: dict[str, Any]) -> str:
    """The report as lines of two columns."""
    rows = []
    for key, value in report.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {name}", str(one)) for name, one in value.items()]
        elif isinstance(value, list):
            rows += [(key, one) for one in value] or [(key, "nothing")]
        else:
            rows.append((key, str(value)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", type=Path, help="write the report here too")
    parser.add_argument("--directory", type=Path, help="where the data goes; default: temporary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trioq-soak-") as temporary:
        soak = Soak(arguments.directory or Path(temporary), arguments.minutes)
        try:
            soak.run()
        finally:
            soak.broker.close()
        report = soak.report()
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
