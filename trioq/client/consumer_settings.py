"""Settings of a consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from trioq.client.assignors import Assignor, assignors_named
from trioq.client.settings import at_least_one
from trioq.errors import ClientUsageError, ConfigError
from trioq.types import TopicPartition

CommitMode = Literal["auto", "after_processing", "before_processing", "manual"]
OffsetReset = Literal["earliest", "latest", "error"]
Isolation = Literal["read_uncommitted", "read_committed"]
GroupProtocol = Literal["classic", "consumer"]

Listener = Callable[[frozenset[TopicPartition]], Awaitable[None]]
"""What is called with partitions that come or go; an async function."""

_CHOICES: Final = {
    "commit": ("auto", "after_processing", "before_processing", "manual"),
    "auto_offset_reset": ("earliest", "latest", "error"),
    "isolation": ("read_uncommitted", "read_committed"),
    "group_protocol": ("classic", "consumer"),
}
_MIB: Final = 1024 * 1024


class ConsumerOptions(TypedDict, total=False):
    """What `Client.consumer` takes beside topics and deserializers; see ConsumerSettings."""

    group: str | None
    instance_id: str | None
    group_protocol: GroupProtocol
    assignors: Sequence[str | Assignor]
    server_assignor: str | None
    commit: CommitMode
    auto_commit_interval_ms: int
    auto_offset_reset: OffsetReset
    isolation: Isolation
    session_timeout_ms: int
    heartbeat_interval_ms: int
    max_poll_interval_ms: int
    fetch_min_bytes: int
    fetch_max_wait_ms: int
    fetch_max_bytes: int
    partition_max_bytes: int
    prefetch_bytes: int
    check_crc: bool
    close_timeout_ms: int
    on_assigned: Listener | None
    on_revoked: Listener | None
    on_lost: Listener | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """How one consumer behaves. Wrong values raise ClientUsageError, which names them."""

    group: str | None = None
    """The group whose offsets are used, and which is joined on `subscribe`. Without one, all
    partitions of the topics are read, and nothing can be committed."""

    instance_id: str | None = None
    """A name that survives restarts: the group then waits for this member (KIP-345)."""

    group_protocol: GroupProtocol = "classic"
    """consumer: the coordinator assigns (KIP-848)."""

    assignors: Sequence[str | Assignor] = ("range", "roundrobin")
    """Of the classic protocol, in order of preference: names, or objects like those in
    trioq.client.assignors. With "cooperative-sticky" alone, members keep what does not move."""

    server_assignor: str | None = None
    """Of the consumer protocol: the coordinator's assignor; None for its default."""

    commit: CommitMode = "auto"
    """When offsets are committed. Processed is what came before the record (of `batches()`: the
    batch) that was taken last, and that one too when the next is asked for or the block is left
    without an exception.

    auto: what was processed, every `auto_commit_interval_ms`, and when partitions are given up.
    after_processing: the same, but as soon as something was processed, one commit after the other.
    before_processing: each batch before any of it is given out: nothing is processed twice.
    manual: `commit()` does, and only that.
    """

    auto_commit_interval_ms: int = 5_000
    auto_offset_reset: OffsetReset = "latest"
    """Where to start without a committed offset, or with one that is gone. error: raise."""

    isolation: Isolation = "read_uncommitted"
    """read_committed: records of open transactions wait, those of aborted ones are left out."""

    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 3_000
    max_poll_interval_ms: int = 300_000
    """How long processing may take until the next record is asked for, and how long a rebalance
    waits for it. After that the consumer leaves the group, and joins again when it asks."""

    fetch_min_bytes: int = 1
    fetch_max_wait_ms: int = 500
    fetch_max_bytes: int = 50 * _MIB
    partition_max_bytes: int = _MIB
    prefetch_bytes: int = 64 * _MIB
    """What is fetched ahead of processing, at most (as fetched: before decompression)."""

    check_crc: bool = True
    close_timeout_ms: int = 10_000
    """How long committing, the listener and leaving the group may take at the end of the block;
    a second at most where it is cancelled."""

    on_assigned: Listener | None = None
    """Called with new partitions before any record of them is given out; may seek."""

    on_revoked: Listener | None = None
    """Called with partitions that are given up, while they still may be committed."""

    on_lost: Listener | None = None
    """Called with partitions that others may own already; default is `on_revoked`."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ClientUsageError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
        for name in (
            "auto_commit_interval_ms",
            "session_timeout_ms",
            "heartbeat_interval_ms",
            "max_poll_interval_ms",
            "fetch_min_bytes",
            "fetch_max_bytes",
            "partition_max_bytes",
            "prefetch_bytes",
            "close_timeout_ms",
        ):
            at_least_one(name, getattr(self, name))
        if self.fetch_max_wait_ms < 0:
            raise ClientUsageError(
                f"fetch_max_wait_ms={self.fetch_max_wait_ms}: allowed is 0 or more"
            )
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ClientUsageError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} must be below "
                f"session_timeout_ms={self.session_timeout_ms}; a third of it is usual"
            )
        if self.group is not None and not 0 < len(self.group.encode()) <= 32767:
            raise ClientUsageError("group: a name of 1 to 32767 bytes, or None for no group")
        if self.group is None and self.commit in {"after_processing", "before_processing"}:
            raise ClientUsageError(f"commit={self.commit!r} needs a group to commit for")
        try:
            assignors_named(self.assignors)
        except ConfigError as error:
            raise ClientUsageError(str(error)) from error
