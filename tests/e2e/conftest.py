"""Brokers for the end-to-end tests: one shared by a module, and as many more as a test starts."""

from __future__ import annotations

import itertools
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.broker_process import BrokerProcess

with warnings.catch_warnings():
    # kafka-python reads its schemas, at import, in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

LOG_TAIL_LINES = 60
_running: list[BrokerProcess] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
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


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker with default settings for every test that needs no other."""
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
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
def broker(shared_broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """The shared broker; the test fails if the broker logs an error meanwhile."""
    before = len(shared_broker.problems())
    yield shared_broker
    assert shared_broker.running
    assert shared_broker.problems()[before:] == []


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., BrokerProcess]]:
    """Start a broker of the test's own; see BrokerProcess for the arguments."""
    numbers = itertools.count()
    own: list[BrokerProcess] = []

    def start(**arguments: Any) -> BrokerProcess:
        broker = BrokerProcess(tmp_path / f"broker-{next(numbers)}", **arguments)
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
