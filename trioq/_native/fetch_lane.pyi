"""Fetches of one partition without a session: what they read, and their wait for more.

The same as `handle_fetch` does it, in fewer steps. What fails, and whatever is out of the ordinary,
is left to it untouched.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

from trioq._native.partition_head import PartitionHead, PartitionTable
from trioq._native.response_ring import RingEntry

@final
class FetchEntry(RingEntry):
    """Such a fetch, its answer, and its wait. A ProgressListener."""

    partition: PartitionHead
    number: int
    api_version: int
    correlation_id: int
    current_leader_epoch: int
    read_committed: bool
    fetch_offset: int
    max_bytes: int
    """Of the partition and the answer, whichever is less."""

    @property
    def topic(self) -> str: ...
    def progressed(self, _partition: Any, new_bytes: int) -> None: ...
    def answer(self) -> None:
        """Answer with what there is now; nothing happens if that was done."""

    def cancel(self) -> None: ...

@final
class FetchLane:
    """The fetches of a RequestLane; `ctx` is the broker's Context.

    `general(entry)` gives the parts of the response frame, and their length, for one that has
    waited and cannot be answered plainly. Waits end on the same grid as in `handle_fetch`; those
    that end together share one deadline.
    """

    def __init__(
        self,
        table: PartitionTable,
        ctx: Any,
        general: Callable[[FetchEntry], tuple[Sequence[Any], int]],
    ) -> None: ...
    def end_due(self) -> None:
        """Called when waits are over."""
