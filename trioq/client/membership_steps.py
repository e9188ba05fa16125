"""What a member of a group has to do next: the vocabulary of both membership machines.

A machine is asked for its next step; the driver takes it (sends the request, calls the listener)
and tells the machine how it went. Time is an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from trioq.errors import (
    ClientError,
    ConnectionFailed,
    CoordinatorNotAvailable,
    KafkaError,
    NotCoordinator,
    TrioqError,
)
from trioq.types import TopicId, TopicPartition

NEVER_S: Final = float("inf")
NO_GENERATION: Final = -1


class MembershipSettings(NamedTuple):
    """How one consumer is a member; the same for as long as it lives."""

    group_id: str
    instance_id: str | None = None
    rack: str | None = None
    session_timeout_ms: int = 45_000
    rebalance_timeout_ms: int = 300_000
    """How long a rebalance may wait for this member: its max_poll_interval."""
    heartbeat_interval_ms: int = 3_000
    retry_backoff_ms: int = 100
    retry_backoff_max_ms: int = 1_000


class Wait(NamedTuple):
    """Nothing to do before `until_s`, unless the machine is told something."""

    until_s: float


class Revoke(NamedTuple):
    """Stop reading `partitions`, commit, call the listener; then `revoked()`.

    `lost`: others may own them already, so that nothing can be committed.
    """

    partitions: frozenset[TopicPartition]
    lost: bool


class Assign(NamedTuple):
    """Start reading `added`, call the listener; then `assigned()`. It may be empty."""

    added: frozenset[TopicPartition]
    owned: frozenset[TopicPartition]


class Failed(NamedTuple):
    """The member cannot go on; `error` is for the user."""

    error: TrioqError


class Join(NamedTuple):
    """Send JoinGroup; then `joined()` or `join_failed()`."""

    member_id: str
    protocols: tuple[tuple[str, bytes], ...]
    reason: str


class Plan(NamedTuple):
    """The member leads: find out how many partitions `topics` have; then `plan()`."""

    topics: frozenset[str]


class Sync(NamedTuple):
    """Send SyncGroup; then `synced()` or `sync_failed()`."""

    generation: int
    member_id: str
    protocol: str
    assignments: Mapping[str, bytes]


class Heartbeat(NamedTuple):
    """Send Heartbeat; then `heartbeat_answered()` with this step."""

    generation: int
    member_id: str


class ResolveTopics(NamedTuple):
    """Find out the names of these topic ids; then `topics_resolved()`."""

    topic_ids: frozenset[TopicId]


class ConsumerHeartbeat(NamedTuple):
    """Send ConsumerGroupHeartbeat; then `heartbeat_answered()` or `heartbeat_failed()`.

    None (-1 for the timeout): not changed since the coordinator was last told.
    """

    member_id: str
    member_epoch: int
    instance_id: str | None = None
    rack: str | None = None
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    server_assignor: str | None = None
    owned: tuple[tuple[TopicId, tuple[int, ...]], ...] | None = None


def is_transient(error: TrioqError) -> bool:
    """Whether the same request may succeed later, perhaps at another coordinator."""
    return isinstance(error, (KafkaError, ClientError)) and error.retriable


def coordinator_is_lost(error: TrioqError) -> bool:
    """Whether to look for the coordinator anew before the next request."""
    return isinstance(error, (ConnectionFailed, NotCoordinator, CoordinatorNotAvailable))


class Backoff:
    """When to try again after failures in a row: twice as long each time, up to a maximum."""

    __slots__ = ("_failures", "_first_s", "_max_s", "retry_at_s")

    def __init__(self, settings: MembershipSettings) -> None:
        self._first_s = settings.retry_backoff_ms / 1000
        self._max_s = settings.retry_backoff_max_ms / 1000
        self._failures = 0
        self.retry_at_s = 0.0

    def failed(self, now_s: float) -> None:
        exponent = min(self._failures, 16)
        self.retry_at_s = now_s + min(self._first_s * 2**exponent, self._max_s)
        self._failures += 1

    def succeeded(self) -> None:
        self._failures = 0
        self.retry_at_s = 0.0
