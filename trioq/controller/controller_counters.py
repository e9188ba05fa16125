"""What the controller counts."""

from __future__ import annotations

from trioq.metrics import Counters


class ControllerCounters(Counters):
    """`active` (1 on the controller) and `offline_partitions` (only known there) are gauges."""

    __slots__ = (
        "active",
        "elections",
        "offline_partitions",
        "partition_changes",
        "terms",
    )

    active: int
    elections: int
    offline_partitions: int
    partition_changes: int
    terms: int
