"""Counters."""

from __future__ import annotations

import pytest

from trioq.metrics import Counters, Metrics, Sample


class Base(Counters):
    __slots__ = ("first",)


class Group(Base):
    __slots__ = ("second",)


def test_counters_start_at_zero_and_are_collected_as_they_stand() -> None:
    metrics = Metrics()
    group = Group()
    metrics.register("group", group)
    group.second += 5
    assert list(metrics.collect()) == [Sample("group", "first", 0), Sample("group", "second", 5)]


def test_a_group_is_registered_once() -> None:
    metrics = Metrics()
    metrics.register("group", Group())
    with pytest.raises(ValueError, match="group"):
        metrics.register("group", Group())
