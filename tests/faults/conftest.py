"""Brokers for the fault tests, and file systems that can be filled or made read-only."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.faulty_broker import FaultyBroker

LOG_TAIL_LINES = 40
REAL = {
    "test_backpressure",
    "test_clock",
    "test_damage",
    "test_descriptors",
    "test_full_disk",
    "test_kill_points",
    "test_log_dirs",
    "test_stalled_disk",
}
"""Modules that run brokers as processes."""

_running: list[FaultyBroker] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.stem in REAL:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the brokers' logs with a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for broker in _running:
        tail = "\n".join(broker.log_text().splitlines()[-LOG_TAIL_LINES:])
        report.sections.append((f"log of the broker in {broker.data_dir}", tail))


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., FaultyBroker]]:
    """A broker that is not started yet; see FaultyBroker for the arguments."""
    numbers = itertools.count()
    own: list[FaultyBroker] = []

    def make(**arguments: Any) -> FaultyBroker:
        broker = FaultyBroker(tmp_path / f"broker-{next(numbers)}", **arguments)
        own.append(broker)
        _running.append(broker)
        return broker

    yield make
    for broker in own:
        broker.heal()
        broker.kill9()
        _running.remove(broker)


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Mount a small file system in memory, which is what may fill up."""
    mounted: list[Path] = []

    def mount(name: str, size_bytes: int) -> Path:
        path = tmp_path / name
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"this user may not mount a file system here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
