"""What goes into and comes out of the machine of a consumer group (KIP-848)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Final, NamedTuple, Protocol

from trioq.metastore.group_layout import Assignment, ConsumerGroup
from trioq.types import TopicId

JOIN_EPOCH: Final = 0
LEAVE_EPOCH: Final = -1
LEAVE_STATIC_EPOCH: Final = -2
"""The member leaves for now: another process with its instance id takes its place soon."""


class MigrationPolicy(Enum):
    """Which way a live group may change its protocol (group.consumer.migration.policy)."""

    BIDIRECTIONAL = "bidirectional"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    DISABLED = "disabled"

    @property
    def upgrades(self) -> bool:
        return self in {MigrationPolicy.BIDIRECTIONAL, MigrationPolicy.UPGRADE}

    @property
    def downgrades(self) -> bool:
        return self in {MigrationPolicy.BIDIRECTIONAL, MigrationPolicy.DOWNGRADE}


class ConsumerGroupSettings(NamedTuple):
    """The group.consumer.* keys; `assignors` are names of ASSIGNORS, the default first.

    The last three are for members of the classic protocol: their session timeouts' bounds, and
    how many of them a group may have to go back to the classic protocol.
    """

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 5_000
    max_size: int = 2**31 - 1
    assignors: tuple[str, ...] = ("uniform", "range")
    migration_policy: MigrationPolicy = MigrationPolicy.BIDIRECTIONAL
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    classic_max_size: int = 2**31 - 1


class ConsumerHeartbeat(NamedTuple):
    """A ConsumerGroupHeartbeat request; None (-1 for the timeout) is "as before".

    `subscribed_regex` "" means none any more. `owned` is what the member says that it owns now.
    `requires_member_id`: the client makes the member id itself (version 1).
    """

    group_id: str
    member_id: str
    member_epoch: int
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    subscribed_names: frozenset[str] | None = None
    subscribed_regex: str | None = None
    server_assignor: str | None = None
    owned: Assignment | None = None
    requires_member_id: bool = False


class ConsumerHeartbeatResult(NamedTuple):
    """`assignment` is None where the member knows it already."""

    member_id: str
    member_epoch: int
    heartbeat_interval_ms: int = 0
    assignment: Assignment | None = None


class ConsumerGroupPhase(Enum):
    """The state of a group as tools show it; derived from its members, kept nowhere."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


class ConsumerGroupDescription(NamedTuple):
    """`group.members` hold what each owns (`assigned`) and is to own (`target`), by topic id."""

    phase: ConsumerGroupPhase
    group: ConsumerGroup


class Topics(Protocol):
    """The cluster's live topics, as a machine sees them during one event."""

    @property
    def generation(self) -> int:
        """Another number whenever a topic was created or deleted or got more partitions."""
        ...

    def id_of(self, name: str) -> TopicId | None: ...
    def name_of(self, topic_id: TopicId) -> str | None: ...
    def partitions_of(self, topic_id: TopicId) -> int:
        """How many partitions the topic has; 0 if there is no such topic."""
        ...

    def names(self) -> AbstractSet[str]:
        """All that a regular expression may match."""
        ...
