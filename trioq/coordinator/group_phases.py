"""The phases of a group of the classic protocol, and which follows which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final


class GroupPhase(Enum):
    """Where a group is in its life; the values are the names that admin clients are shown."""

    EMPTY = "Empty"
    """No members; there may be committed offsets."""
    PREPARING_REBALANCE = "PreparingRebalance"
    """Waits until every member has (re)joined, or the rebalance timeout has passed."""
    COMPLETING_REBALANCE = "CompletingRebalance"
    """A new generation: waits for its leader's plan."""
    STABLE = "Stable"
    """Every member can have its part of the plan."""
    DEAD = "Dead"
    """Its state is being deleted; nothing follows."""


TRANSITIONS: Final[Mapping[GroupPhase, frozenset[GroupPhase]]] = MappingProxyType(
    {
        GroupPhase.EMPTY: frozenset({GroupPhase.PREPARING_REBALANCE, GroupPhase.DEAD}),
        GroupPhase.PREPARING_REBALANCE: frozenset(
            {GroupPhase.COMPLETING_REBALANCE, GroupPhase.EMPTY, GroupPhase.DEAD}
        ),
        GroupPhase.COMPLETING_REBALANCE: frozenset(
            {GroupPhase.STABLE, GroupPhase.PREPARING_REBALANCE, GroupPhase.DEAD}
        ),
        GroupPhase.STABLE: frozenset({GroupPhase.PREPARING_REBALANCE, GroupPhase.DEAD}),
        GroupPhase.DEAD: frozenset(),
    }
)
"""The phases that may follow each; the machine raises BrokerBug for any other step."""
