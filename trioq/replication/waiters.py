"""Those who wait for a partition: acknowledgements and long polls.

Waits are slots, not tasks (ARCHITECTURE 5, rule 2): whoever moves the high watermark
completes them by a plain call. This is the one place where a lower floor calls what an
upper floor handed down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trioq._native.ack_queue import AckQueue
from trioq.errors import KafkaError

if TYPE_CHECKING:
    from trioq.replication.replica import Replica


__all__ = [
    "AckQueue",
    "AckWaiter",
    "JoinWatcher",
    "ProgressListener",
    "ReplicaListener",
    "SettleWatcher",
]


class AckWaiter(Protocol):
    """A produce request that waits until its batches are durable or replicated.

    Exactly one of the two calls is made per registration, on the loop thread. Neither may
    raise, and neither may append to the partition.
    """

    def acknowledged(self, index: int) -> None:
        """The batch registered as `index` is safe as far as the request asked for."""
        ...

    def refused(self, index: int, error: type[KafkaError]) -> None:
        """The batch registered as `index` was lost or its leader was deposed."""
        ...


class ProgressListener(Protocol):
    """A fetch (or fetch session) that wants to know when a partition has more to read."""

    def progressed(self, partition: Replica, new_bytes: int) -> None:
        """`new_bytes` (an estimate) more can be read, or 0 when the partition's state
        changed so that a fetch should answer at once (leadership, failure, deletion).
        """
        ...


class ReplicaListener(Protocol):
    """A follower's fetch (or fetch session) that wants to know of more to read."""

    def progressed(self, partition: Replica, new_bytes: int) -> None:
        """As ProgressListener's, of the log's written end."""
        ...

    def high_watermark_moved(self, partition: Replica) -> None:
        """The next answer has a new high watermark to tell."""
        ...

    def log_start_moved(self, partition: Replica) -> None:
        """The next answer has a new log start to tell, which wakes nobody."""
        ...


class SettleWatcher(Protocol):
    """Whoever fetches for a partition that follows."""

    def settled(self, partition: Replica) -> None:
        """What the partition appended is as safe as it must be before it is stated."""
        ...

    def log_start_moved(self, partition: Replica) -> None:
        """Retention was here: the next fetch is to state where the log begins now."""
        ...


class JoinWatcher(Protocol):
    """Whoever lets followers join the in-sync replicas, and says which replicas have failed."""

    def may_join(self, partition: Replica) -> None:
        """A follower of this partition has reached what it needs to join."""
        ...

    def log_failed(self, partition: Replica) -> None:
        """The log of this replica has failed, whether it leads or follows."""
        ...
