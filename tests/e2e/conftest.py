"""Brokers for the end-to-end tests: one shared by a module, and as many more as a test starts."""

from __future__ import annotations

import gc
import itertools
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.cluster_process import ClusterProcess
from tests.e2e.group_process import Member
from tests.zookeeper.server import ZooKeeperServer, ensemble

with warnings.catch_warnings():
    # kafka-python reads its schemas, at import, in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

LOG_TAIL_LINES = 60
ON_A_CLUSTER = os.environ.get("E2E") == "cluster"
"""Every broker of the tests is three brokers around a ZooKeeper ensemble."""

LEFT_SOCKETS = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
"""kafka-python leaves sockets that did not connect, to a broker that was down, unclosed."""


GROUPS = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "2000",
    "group.consumer.min.heartbeat.interval.ms": "50",
    "group.consumer.heartbeat.interval.ms": "250",
    "num.partitions": "4",
}
"""Settings with which groups need no long waits: of brokers that test them."""

_running: list[BrokerProcess] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(LEFT_SOCKETS)


@pytest.fixture(autouse=True, scope="module")
def collect_left_sockets() -> Iterator[None]:
    """What clients leave to the garbage collector goes here, not in somebody else's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


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


Make = Callable[..., BrokerProcess]


@pytest.fixture(scope="package")
def zookeepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ZooKeeperServer]]:
    """The servers of every cluster, where the brokers are clusters."""
    with ensemble(tmp_path_factory.mktemp("zookeeper")) as servers:
        yield servers


@pytest.fixture(scope="package")
def new_broker(request: pytest.FixtureRequest) -> Make:
    """Makes a broker that is not started: one process, or a cluster with E2E=cluster."""
    if not ON_A_CLUSTER:
        return BrokerProcess
    return partial(_new_cluster, request.getfixturevalue("zookeepers"))


def _new_cluster(
    servers: list[ZooKeeperServer], directory: Path, *, listen: str | None = None, **arguments: Any
) -> BrokerProcess:
    if listen is not None or "node.id" in arguments.get("settings", {}):
        pytest.skip("a test of one broker's own address or id")
    return ClusterProcess(directory, servers, **arguments)


@pytest.fixture(scope="package")
def shared_broker(
    tmp_path_factory: pytest.TempPathFactory, new_broker: Make
) -> Iterator[BrokerProcess]:
    """One broker with default settings for every test that needs no other."""
    yield from _shared(new_broker(tmp_path_factory.mktemp("broker")))


@pytest.fixture(scope="package")
def shared_group_broker(
    tmp_path_factory: pytest.TempPathFactory, new_broker: Make
) -> Iterator[BrokerProcess]:
    """One broker for every test of groups that leaves it running."""
    yield from _shared(new_broker(tmp_path_factory.mktemp("groups"), settings=GROUPS))


def _shared(broker: BrokerProcess) -> Iterator[BrokerProcess]:
    _running.append(broker)
    try:
        yield broker.start()
        assert broker.problems() == []
        code = broker.terminate()
        assert code == 0
        assert broker.stdout.decode().splitlines() == broker.ready_lines
    finally:
        broker.close()
        _running.remove(broker)


@pytest.fixture
def broker(shared_broker: BrokerProcess, request: pytest.FixtureRequest) -> Iterator[BrokerProcess]:
    """The shared broker; the test fails if the broker logs an error meanwhile."""
    yield from _watched(shared_broker, request)


@pytest.fixture
def group_broker(
    shared_group_broker: BrokerProcess, request: pytest.FixtureRequest
) -> Iterator[BrokerProcess]:
    """The shared broker of groups; the test fails if the broker logs an error meanwhile."""
    yield from _watched(shared_group_broker, request)


def _watched(broker: BrokerProcess, request: pytest.FixtureRequest) -> Iterator[BrokerProcess]:
    before = len(broker.problems())
    if isinstance(broker, ClusterProcess):
        names = request.fixturenames
        broker.topic = request.getfixturevalue("topic") if "topic" in names else None
    yield broker
    assert broker.running
    assert broker.problems()[before:] == []


@pytest.fixture
def start_member() -> Iterator[Callable[..., Member]]:
    """Start a member of a group as a process; see Member.start for the arguments.

    What still runs at the end of the test is killed.
    """
    members: list[Member] = []

    def start(*arguments: Any, **settings: Any) -> Member:
        members.append(Member.start(*arguments, **settings))
        return members[-1]

    yield start
    for member in members:
        if member.runs:
            member.kill9()


@pytest.fixture
def no_cluster() -> None:
    """For tests of what becomes of a broker that has nobody beside it."""
    if ON_A_CLUSTER:
        pytest.skip("a test of a broker that is alone")


@pytest.fixture
def start_broker(tmp_path: Path, new_broker: Make) -> Iterator[Make]:
    """Start a broker of the test's own; see BrokerProcess for the arguments."""
    numbers = itertools.count()
    own: list[BrokerProcess] = []

    def start(**arguments: Any) -> BrokerProcess:
        broker = new_broker(tmp_path / f"broker-{next(numbers)}", **arguments)
        own.append(broker)
        _running.append(broker)
        return broker.start()

    yield start
    try:
        for broker in own:
            broker.close()
            assert broker.problems() == []
    finally:
        for broker in own:
            broker.kill9()
            _running.remove(broker)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test uses."""
    return f"{request.node.originalname[:40]}-{uuid.uuid4().hex[:8]}"
