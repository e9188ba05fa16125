"""Which replicas count: the in-sync replicas of one partition and its high watermark.

Pure: no I/O, no clock; offsets and times are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable

from trioq.errors import BrokerBug


class IsrState:
    """In-sync replicas of a partition led here, with the position each has reached.

    The high watermark is the minimum position over the committed ISR and, while a change
    of it is undecided, over the proposed ISR too (SAFETY rule 8). A position is what the
    acknowledgement may rest on: the written end, or the synced end with
    flush.policy=commit. Owned by its Partition; not shared between tasks.
    """

    __slots__ = ("_ends", "committed", "local_id", "proposed")

    def __init__(self, local_id: int, committed: Iterable[int]) -> None:
        self.local_id = local_id
        self.committed = frozenset(committed)
        self.proposed: frozenset[int] | None = None
        self._ends: dict[int, int] = {}
        if local_id not in self.committed:
            raise BrokerBug(f"leader {local_id} is not in the ISR {sorted(self.committed)}")

    @property
    def is_alone(self) -> bool:
        """True when the leader is the only replica that counts."""
        return len(self.committed) == 1 and (self.proposed is None or len(self.proposed) == 1)

    def record_position(self, replica_id: int, end_offset: int) -> None:
        """A follower stated, by fetching from `end_offset`, that it holds all below it."""
        self._ends[replica_id] = end_offset

    def propose(self, members: Iterable[int]) -> None:
        """A change of the ISR was sent to the metastore; its outcome is not known yet."""
        self.proposed = frozenset(members)

    def decide(self, committed: Iterable[int]) -> None:
        """The metastore's ISR was read back."""
        self.committed = frozenset(committed)
        self.proposed = None

    def high_watermark(self, local_end_offset: int) -> int:
        """The greatest offset below which every replica that counts holds everything."""
        if self.is_alone:
            return local_end_offset
        counted = self.committed if self.proposed is None else self.committed | self.proposed
        ends = self._ends
        return min(
            local_end_offset if replica == self.local_id else ends.get(replica, 0)
            for replica in counted
        )
