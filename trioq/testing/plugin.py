"""The pytest plugin `trioq`: brokers as fixtures. See docs/testing.md.

Every test run of an environment that has trioq loads this module, so it imports little; a broker
and what it needs come with the first test that asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from trioq.testing.in_process import InProcessBroker
    from trioq.testing.process import SubprocessBroker

_LOG_LINES: Final = 60
_session_broker: list[SubprocessBroker] = []


@pytest.fixture(scope="session")
def trioq_broker_settings() -> Mapping[str, str]:
    """Broker keys for `trioq_broker`; override it in a conftest.py."""
    return {}


@pytest.fixture(scope="session")
def trioq_broker(trioq_broker_settings: Mapping[str, str]) -> Iterator[SubprocessBroker]:
    """A broker in a process of its own, shared by all tests of the run.

    Use topics of your own in each test (`trioq_topic`). A test may pause, crash or stop it: it
    runs again before the next test begins.
    """
    from trioq.testing.process import SubprocessBroker  # noqa: PLC0415  see above

    broker = SubprocessBroker(settings=trioq_broker_settings)
    with broker:
        _session_broker.append(broker)
        try:
            yield broker
        finally:
            _session_broker.remove(broker)


@pytest.fixture
def trioq_topic(trioq_broker: SubprocessBroker, request: pytest.FixtureRequest) -> str:
    """A new topic of one partition on `trioq_broker`, named after the test."""
    from trioq.testing.broker import unique_topic  # noqa: PLC0415  see above

    return trioq_broker.create_topic(unique_topic(request.node.name))


@pytest.fixture
def trioq_in_process_broker() -> Iterator[InProcessBroker]:
    """A broker of the test's own, in a thread: its inside open to inspection."""
    from trioq.testing.in_process import InProcessBroker  # noqa: PLC0415  see above

    with InProcessBroker() as broker:
        yield broker


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Bring the shared broker back when a test has left it paused or ended."""
    for broker in _session_broker:
        broker.resume()
        if not broker.is_running:
            broker.crash()
            broker.start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the shared broker's log with the failure of a test that used it."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and "trioq_broker" in getattr(item, "fixturenames", ()):
        for broker in _session_broker:
            tail = broker.log().splitlines()[-_LOG_LINES:]
            report.sections.append(("log of trioq_broker", "\n".join(tail)))
