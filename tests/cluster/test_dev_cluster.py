"""`trioq dev-cluster` as a process, with a real ZooKeeper."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.zookeeper.server import missing

PATIENCE_S = 120.0
BROKER = re.compile(r"  broker (\d+)  (\S+)  process (\d+)")


@pytest.fixture
def needs_zookeeper() -> None:
    if reason := missing():
        pytest.skip(reason)


class Run:
    """One `trioq dev-cluster` with its output."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trioq.cli", "dev-cluster", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = ""

    def until(self, pattern: str) -> None:
        """Read on until the pattern was printed."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.output):
            left_s = deadline - time.monotonic()
            assert left_s > 0, self.output
            if select.select([descriptor], [], [], left_s)[0]:
                chunk = os.read(descriptor, 65536)
                assert chunk, self.output
                self.output += chunk.decode()

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal if one is given; the exit status."""
        if number is not None:
            self.process.send_signal(number)
        self.output += self.process.communicate(timeout=PATIENCE_S)[0].decode()
        return self.process.returncode

    def pids(self) -> list[int]:
        """The processes that it runs."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(one) for children in tasks for one in children.read_text().split()]


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Those in the list are ended with the test."""
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            pids = run.pids()
            run.process.kill()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            run.process.wait()
        if run.process.stdout is not None:
            run.process.stdout.close()


def test_a_zookeeper_that_does_not_answer_is_named(tmp_path, runs):
    runs.append(Run("--data-dir", str(tmp_path), "--zookeeper", "127.0.0.1:1"))
    assert runs[0].end() == 1
    assert runs[0].output == (
        "trioq: no ZooKeeper answers at 127.0.0.1:1: start it, or correct --zookeeper\n"
    )


@pytest.mark.usefixtures("needs_zookeeper")
def test_a_broker_that_cannot_start_ends_it_all_with_its_reason(tmp_path, runs):
    runs.append(Run("2", "--port", "0", "--data-dir", str(tmp_path), "--set", "metastore=embedded"))
    assert runs[0].end() == 1
    reason = "metastore is set twice: --metastore and --set"
    assert re.search(rf"broker \d \| trioq: {reason}\n", runs[0].output)
    assert re.search(rf"trioq: broker \d ended with status 2: {reason}\n", runs[0].output)


def command(*arguments: str, at: str, stdin: str = "") -> str:
    """What `trioq ...` prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trioq.cli", *arguments],
        env={**os.environ, "TRIOQ_BOOTSTRAP_SERVER": at},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.usefixtures("needs_zookeeper")
def test_it_does_what_it_says_to_try(tmp_path, runs):
    lines = [f"{number}" for number in range(100)]
    arguments = ("3", "--port", "0", "--data-dir", str(tmp_path), "--restart-after", "0")
    for is_first in (True, False):
        run = Run(*arguments)
        runs.append(run)
        run.until(r"Ctrl-C stops everything\.\n")
        (at,) = re.findall(r"export TRIOQ_BOOTSTRAP_SERVER=(\S+)\n", run.output)
        brokers = {int(n): (a, int(pid)) for n, a, pid in BROKER.findall(run.output)}
        assert at == ",".join(address for address, _ in brokers.values())
        pids = run.pids()
        assert len(pids) == 4
        if is_first:
            command("topic", "create", "orders", "--partitions", "3", at=at)
            command("produce", "orders", at=at, stdin="\n".join(lines))
            assert "orders" in command("cluster", "describe", "--partitions", at=at)
            # One that is killed is missed, and is back.
            os.kill(brokers[1][1], signal.SIGKILL)
            run.until(r"broker 1 was ended by SIGKILL; it is started again in 0 s\n")
            run.until(r"broker 1 \| .*registered(.*\n)*broker 1 \| .*registered")
        found = command("consume", "orders", at=at)
        assert sorted(found.split(), key=int) == lines
        left = run.pids()
        assert run.end(signal.SIGINT) == 0
        assert "stopping; Ctrl-C again ends everything at once" in run.output
        assert not [pid for pid in (*pids, *left) if Path(f"/proc/{pid}").exists()]
        stops = re.findall(r"broker (\d) \| .*stopping", run.output)
        assert stops == ["3", "2", "1"], "one after the other, the last one first"


@pytest.mark.usefixtures("needs_zookeeper")
def test_one_directory_has_one_cluster(tmp_path, runs):
    first = Run("1", "--port", "0", "--data-dir", str(tmp_path))
    runs.append(first)
    first.until(r"Ctrl-C stops everything\.\n")
    runs.append(Run("1", "--port", "0", "--data-dir", str(tmp_path)))
    assert runs[-1].end() == 1
    assert f"trioq: {tmp_path} is in use: by another dev-cluster" in runs[-1].output
    assert str(first.process.pid) in runs[-1].output
    # A second signal waits for nobody.
    pids = first.pids()
    first.process.send_signal(signal.SIGTERM)
    assert first.end(signal.SIGTERM) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
