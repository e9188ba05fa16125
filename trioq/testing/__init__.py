"""A real broker inside a test: see docs/testing.md.

    from trioq.testing import InProcessBroker

    with InProcessBroker() as broker:
        ...  # any Kafka client, at broker.address

The pytest plugin (trioq.testing.plugin) brings fixtures. Names are imported when they are first
used, so that a test run that uses none of them pays for none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trioq.testing.broker import BrokerUnderTest as BrokerUnderTest
    from trioq.testing.broker import unique_topic as unique_topic
    from trioq.testing.in_process import InProcessBroker as InProcessBroker
    from trioq.testing.process import SubprocessBroker as SubprocessBroker
    from trioq.testing.waiting import NotInTime as NotInTime

_LAZY: Final = {
    "BrokerUnderTest": "trioq.testing.broker",
    "InProcessBroker": "trioq.testing.in_process",
    "NotInTime": "trioq.testing.waiting",
    "SubprocessBroker": "trioq.testing.process",
    "unique_topic": "trioq.testing.broker",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'trioq.testing' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
