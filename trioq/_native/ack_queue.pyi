"""Produce requests in offset order, waiting for an offset to be passed."""

from typing import Protocol, final

from trioq.errors import KafkaError

class _Waiter(Protocol):
    def acknowledged(self, index: int) -> None: ...
    def refused(self, index: int, error: type[KafkaError]) -> None: ...

@final
class AckQueue:
    """Those who wait; see trioq.replication.waiters.AckWaiter."""

    def __len__(self) -> int: ...
    def add(self, end_offset: int, waiter: _Waiter, index: int) -> None:
        """Wait until everything below `end_offset` counts.

        End offsets mostly come in rising order; a duplicate may wait for an earlier one,
        which is then acknowledged with the entry in front of it at the latest.
        """

    def pass_offset(self, end_offset: int) -> None:
        """Acknowledge everything that waited for offsets up to `end_offset`."""

    def expire(self, now_s: float, error: type[KafkaError]) -> bool:
        """Answer those from the produce lane with `error` who have waited for too long.

        Returns whether anybody waits. Others than the lane's have deadlines of their own.
        """

    def refuse_all(self, error: type[KafkaError]) -> None:
        """Answer everyone with `error`: leadership or the log is gone."""
