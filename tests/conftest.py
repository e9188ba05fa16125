"""How the tests are shared between processes (`pytest -n 2`)."""

from __future__ import annotations

from typing import Any

import pytest

CLUSTERS = "tests/cluster/"


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
