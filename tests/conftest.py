"""What holds for all tests: how they are shared between processes, and that Ctrl-C works."""

from __future__ import annotations

import gc
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest

CLUSTERS = "tests/cluster/"
WAIT = (CLUSTERS, *(f"tests/{name}/" for name in ("e2e", "faults", "zookeeper", "contract")))
"""Tests that wait more than they compute, the longest first."""

MANY_FILES = 200

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Run in the background by a shell (`make test &`). Programs started by tests would inherit it,
    # and some are ended by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits comes first: short tests at the end leave no process without work."""

    def rank(item: pytest.Item) -> int:
        waits = (n for n, place in enumerate(WAIT) if item.nodeid.startswith(place))
        return next(waits, len(WAIT))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the garbage collector need not look at it each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """Files of logs in memory wait for the garbage collector, as a log and its directory know each
    other; where it comes by too rarely they would use up the descriptors of the process.
    """
    if len(list(Path("/dev/fd").iterdir())) > MANY_FILES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of clients that leave sockets
            gc.collect()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs all tests of clusters: two clusters on two cores would disturb each other.

    What `--dist loadgroup` is for, but in xdist 3.8 it has no effect with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling  # only where it is used

    class ClustersTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return CLUSTERS if nodeid.startswith(CLUSTERS) else nodeid

    return ClustersTogether(config, log)
