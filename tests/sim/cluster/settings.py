"""What a seed makes of a history: how long things take, which faults there are."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

FAULTS = (
    "kill",
    "power",
    "wipe",
    "disk",
    "damage",
    "slow",
    "min-insync",
    "clean",
    "pause",
    "one-way",
    "isolate",
    "metastore",
    "reassign",
    "prefer",
    "outage",
)


@dataclass(slots=True)
class Settings:
    brokers: int
    flush_policy: str
    faults: tuple[str, ...]
    fault_each_ms: float
    loss: float
    unanswered: float
    """How many operations the metastore does not answer."""
    slow: float
    """How many messages take up to `slow_ms`."""
    sync_each_ms: float
    slow_ms: float = 400.0
    late: float = 0.5
    """How many of what it does not answer it does, and how many of these late."""
    commit_ms: float = 6.0
    """The longest that a sync takes with flush.policy=commit."""
    session_ms: float = 400.0
    lag_ms: float = 250.0
    fetch_timeout_ms: float = 60.0
    active_ms: float = 3000.0
    healing_ms: float = 12_000.0
    write_each_ms: float = 25.0


def settings_of(seed: int) -> Settings:
    """A few kinds of faults at a time find more than all at once."""
    random = Random(seed * 7 + 1)
    faults = tuple(random.sample(FAULTS, random.randint(1, 5)))
    loss = random.choice([0, 0, 0.01, 0.05])
    return Settings(
        brokers=4 if "reassign" in faults else 3,
        flush_policy=random.choice(["os", "commit"]),
        faults=faults,
        fault_each_ms=random.choice([60, 120, 250]),
        loss=loss,
        unanswered=loss,
        slow=random.choice([0, 0.01, 0.05]),
        sync_each_ms=random.choice([100, 400, 3000]),
    )
