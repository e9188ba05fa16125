"""Clusters for the fault tests: one that all share, and what a test makes for itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, running_clusters, standard
from tests.faults.conftest import mount_tmpfs  # noqa: F401  a fixture

LOG_TAIL_LINES = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of every log with a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for cluster in running_clusters:
        for number, broker in cluster.brokers.items():
            tail = "\n".join(broker.log_text().splitlines()[-LOG_TAIL_LINES:])
            report.sections.append((f"log of broker {number} in {broker.data_dir}", tail))


@pytest.fixture(scope="package")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers and three ZooKeeper servers, each in a namespace where that is possible."""
    with standard(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared cluster, whole: the test may break it as it likes."""
    shared_cluster.mend()
    return shared_cluster


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test uses."""
    return f"{request.node.originalname[:40]}-{uuid.uuid4().hex[:8]}"
