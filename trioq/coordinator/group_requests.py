"""What a group of the classic protocol is asked and what it answers: values, no behaviour.

Ids are as on the wire, an empty member id being a member that has none yet. Times are
milliseconds as clients state them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from trioq.errors import KafkaError

NO_GENERATION: Final = -1
"""The generation of a commit by a client that is no member (a simple consumer, an admin tool)."""

CONSUMER_PROTOCOL_TYPE: Final = "consumer"
"""The protocol type of Kafka's consumers: their metadata names the topics they subscribe to."""


class GroupSettings(NamedTuple):
    """Bounds of every group of a broker: its configuration keys `group.*`."""

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    max_size: int = 2_147_483_647
    new_member_join_timeout_ms: int = 300_000
    """How long a member that has not been in a generation yet may wait for one: nothing else
    bounds it, as it does not heartbeat."""


class JoinRequest(NamedTuple):
    """A JoinGroup request. `protocols` are (name, metadata) in the member's order of preference.

    `rebalance_timeout_ms` is the session timeout where the version has none (v0).
    """

    group_id: str
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    session_timeout_ms: int
    rebalance_timeout_ms: int
    reason: str | None = None
    requires_known_member_id: bool = True
    """v4 and later: a new member is told its id first and joins with it (KIP-394)."""
    supports_skip_assignment: bool = True
    """v9: a static leader that comes back can be told that there is nothing to assign (KIP-814)."""


class JoinedMember(NamedTuple):
    """A member as its leader is told of it: with its metadata for the protocol chosen."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinResult(NamedTuple):
    """The answer of JoinGroup without error. `members` are for the leader only."""

    generation: int
    protocol_type: str | None
    protocol: str | None
    leader: str
    skip_assignment: bool
    member_id: str
    members: tuple[JoinedMember, ...] = ()


class JoinRefused(NamedTuple):
    """The answer of JoinGroup with an error that comes with a member id: MEMBER_ID_REQUIRED."""

    error: KafkaError
    member_id: str


class SyncRequest(NamedTuple):
    """A SyncGroup request. `assignments` by member id are the leader's plan, else empty."""

    generation: int
    member_id: str
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: Mapping[str, bytes] = {}


class SyncResult(NamedTuple):
    """The answer of SyncGroup without error: this member's part of the leader's plan."""

    protocol_type: str | None
    protocol: str | None
    assignment: bytes


class LeavingMember(NamedTuple):
    """A member that leaves, or that an admin removes by its instance id (empty member id)."""

    member_id: str
    instance_id: str | None = None
    reason: str | None = None


class LeaveResult(NamedTuple):
    """What became of one LeavingMember; its ids are repeated."""

    member_id: str
    instance_id: str | None
    error: KafkaError | None


class MemberDescription(NamedTuple):
    """A member as DescribeGroups shows it; metadata and assignment only in a stable group."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


class GroupDescription(NamedTuple):
    """A group as DescribeGroups shows it: `state` is a GroupPhase's value."""

    group_id: str
    state: str
    protocol_type: str
    protocol: str
    members: tuple[MemberDescription, ...]
