"""Those who wait for a partition: acknowledgements and long polls.

Waits are slots, not tasks (ARCHITECTURE 5, rule 2): whoever moves the high watermark
completes them by a plain call. This is the one place where a lower floor calls what an
upper floor handed down.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from trioq.errors import KafkaError

if TYPE_CHECKING:
    from trioq.replication.partition import Partition


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


class AckQueue:
    """Produce requests in offset order, waiting for an offset to be passed."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, AckWaiter, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, end_offset: int, waiter: AckWaiter, index: int) -> None:
        """Wait until everything below `end_offset` counts.

        End offsets mostly come in rising order; a duplicate may wait for an earlier one,
        which is then acknowledged with the entry in front of it at the latest.
        """
        self._waiting.append((end_offset, waiter, index))

    def pass_offset(self, end_offset: int) -> None:
        """Acknowledge everything that waited for offsets up to `end_offset`."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= end_offset:
            _, waiter, index = waiting.popleft()
            waiter.acknowledged(index)

    def refuse_all(self, error: type[KafkaError]) -> None:
        """Answer everyone with `error`: leadership or the log is gone."""
        waiting, self._waiting = self._waiting, deque()
        for _, waiter, index in waiting:
            waiter.refused(index, error)
