"""The programs in examples/ run, and do what they say."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.broker_process import BrokerProcess
from trioq.testing.process import _environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TIMEOUT_S = 120


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        command(name, *arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "asyncio_and_trio.py",
        "consumer.py",
        "producer.py",
        "test_orders.py",
    }


def test_orders_are_produced_and_consumed(group_broker: BrokerProcess, topic: str) -> None:
    printed = run("producer.py", group_broker.address, topic)
    assert "1002 orders are acknowledged" in printed
    consumer = subprocess.Popen(
        command("consumer.py", group_broker.address, topic, f"group-of-{topic}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**_environment(), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert consumer.stdout is not None
        lines = [consumer.stdout.readline() for _ in range(1003)]
        consumer.send_signal(signal.SIGINT)
        out, errors = consumer.communicate(timeout=TIMEOUT_S)
    finally:
        consumer.kill()
        consumer.wait()
    assert lines[0].startswith(f"reading {topic}-0, {topic}-1")
    assert sum("of water" in line for line in lines) == 1000
    assert "left the group" in out
    assert consumer.returncode == 0, errors


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_same_code_under_both_loops(broker: BrokerProcess, topic: str, loop: str) -> None:
    assert run("asyncio_and_trio.py", loop, broker.address, topic) == "b'ping'\n"


def test_the_tests(tmp_path: Path) -> None:
    names = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
    loaded = () if "trioq" in names else ("-p", "trioq.testing.plugin")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-pno:xdist", *loaded),
            *("-c", os.devnull, "--rootdir", str(tmp_path), str(EXAMPLES / "test_orders.py")),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=tmp_path,
        env=_environment(),
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
