"""Topic names for tests."""

from __future__ import annotations

import pytest

import trioq.testing
from trioq.controller.topic_rules import check_name
from trioq.testing import unique_topic


@pytest.mark.parametrize(
    "hint", ["topic", "", "...", "test_it[a b/c]", "ü" * 9, "x" * 500, "a.b_c-d"]
)
def test_legal_and_unique(hint):
    names = {unique_topic(hint) for _ in range(20)}
    assert len(names) == 20
    for name in names:
        check_name(name)


def test_the_hint_is_kept():
    assert unique_topic("test_it[a b]").startswith("test_it-a-b-")


def test_the_package_names_what_it_has():
    for name in ("InProcessBroker", "SubprocessBroker", "NotInTime", "BrokerUnderTest"):
        assert name in dir(trioq.testing)
        assert getattr(trioq.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="Nothing"):
        _ = trioq.testing.Nothing
