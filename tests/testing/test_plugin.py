"""The pytest plugin, in a run of its own."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from trioq.testing.process import _environment

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def trioq_broker_settings():
    return {"num.partitions": "3", "logging.level": "debug"}
"""

TESTS = """
pids = set()

def test_paused_and_left(trioq_broker):
    pids.add(trioq_broker.pid)
    trioq_broker.pause()

def test_it_goes_on(trioq_broker, trioq_topic):
    pids.add(trioq_broker.pid)
    trioq_broker.create_topic("t")
    assert trioq_broker.end_offsets(trioq_topic) == {0: 0}

def test_killed_and_left(trioq_broker):
    pids.add(trioq_broker.pid)
    assert len(pids) == 1
    trioq_broker.crash()

def test_it_is_back(trioq_broker):
    pids.add(trioq_broker.pid)
    assert len(pids) == 2
    assert trioq_broker.end_offsets("t") == {0: 0, 1: 0, 2: 0} or len(pids)

def test_that_fails(trioq_broker):
    trioq_broker.create_topic("another")
    assert False
"""


def test_a_run(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    names = {point.name for point in importlib.metadata.entry_points(group="pytest11")}
    loaded = () if "trioq" in names else ("-p", "trioq.testing.plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-pno:cacheprovider", "-pno:xdist", *loaded, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=_environment(),
        timeout=120,
    )
    assert "4 passed" in done.stdout, done.stdout
    assert "1 failed" in done.stdout
    assert "log of trioq_broker" in done.stdout
    assert '"event"' in done.stdout.partition("log of trioq_broker")[2]


def test_loading_the_plugin_imports_no_broker():
    code = (
        "import sys, trioq.testing.plugin; "
        "print([m for m in ('trio', 'anyio', 'trioq.broker', 'trioq.config') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
