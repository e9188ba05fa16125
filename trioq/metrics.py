"""Counters on the hot path: plain integers, read by a collector when somebody asks.

A floor declares what it counts as a subclass of `Counters` with integer slots, adds to
the slots directly (`counters.bytes_in += n`, no call), and registers the object once.
Reading is a walk over the registered objects; nothing is computed before that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Sample(NamedTuple):
    """One counter at the moment of collection."""

    group: str
    name: str
    value: int


class Counters:
    """Base of a group of integer counters; every slot of a subclass starts at 0.

    Written by the broker's loop thread only; a reader on another thread sees each
    counter whole, but not several of one moment.
    """

    __slots__: tuple[str, ...] = ()

    def __init__(self) -> None:
        for name in self.names():
            setattr(self, name, 0)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The counters of this group, in the order of declaration."""
        return tuple(
            name for base in reversed(cls.__mro__) for name in base.__dict__.get("__slots__", ())
        )


class Metrics:
    """Every group of counters of one broker, by name."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[str, Counters] = {}

    def register(self, group: str, counters: Counters) -> None:
        """Make `counters` known under `group`; a group is registered once."""
        if group in self._groups:
            raise ValueError(f"the counters {group} are registered twice")
        self._groups[group] = counters

    def collect(self) -> Iterator[Sample]:
        """Every counter as it stands now."""
        for group, counters in self._groups.items():
            for name in counters.names():
                yield Sample(group, name, getattr(counters, name))
