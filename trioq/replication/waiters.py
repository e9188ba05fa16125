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
    from trioq.replication.partition import Partition


__all__ = ["AckQueue", "AckWaiter", "ProgressListener"]


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

    def progressed(self, partition: Partition, new_bytes: int) -> None:
        """`new_bytes` (an estimate) more can be read, or 0 when the partition's state
        changed so that a fetch should answer at once (leadership, failure, deletion).
        """
        ...
