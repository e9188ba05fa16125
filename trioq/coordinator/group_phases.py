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


TRANSITIONS: Final[Mapping[GroupPhase, Mapping[GroupPhase, str]]] = MappingProxyType(
    {
        GroupPhase.EMPTY: MappingProxyType(
            {
                GroupPhase.PREPARING_REBALANCE: "the first member joins",
                GroupPhase.DEAD: "deleted",
            }
        ),
        GroupPhase.PREPARING_REBALANCE: MappingProxyType(
            {
                GroupPhase.COMPLETING_REBALANCE: "all have joined, or time is up",
                GroupPhase.EMPTY: "nobody is left",
            }
        ),
        GroupPhase.COMPLETING_REBALANCE: MappingProxyType(
            {
                GroupPhase.STABLE: "the leader's plan arrives",
                GroupPhase.PREPARING_REBALANCE: "a member joins, leaves, fails or does not sync",
            }
        ),
        GroupPhase.STABLE: MappingProxyType(
            {
                GroupPhase.PREPARING_REBALANCE: (
                    "a member joins, leaves or fails, its metadata changes, or the leader rejoins"
                ),
            }
        ),
        GroupPhase.DEAD: MappingProxyType({}),
    }
)
"""The phases that may follow each, with what leads there; the machine raises BrokerBug for any
other step. The diagram of docs/consumer-groups.md is made of it."""
