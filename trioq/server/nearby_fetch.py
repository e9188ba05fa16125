"""Consumers that read from a replica in their rack (KIP-392).

Only where `replica.selector.class` is rack-aware, and for consumers that tell their rack. The
leader names such a consumer an in-sync follower of its rack that has what it asks for; that
follower then serves it up to its own high watermark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.config.cluster_keys import RACK_AWARE_SELECTOR
from trioq.server.fetch_answer import FetchAnswer

if TYPE_CHECKING:
    from trioq.config import BrokerConfig
    from trioq.replication.partition import Partition
    from trioq.replication.replica import ReadResult
    from trioq.server.context import Context, Request
    from trioq.server.fetch_sessions import FollowedPartition
    from trioq.wire.messages.fetch import FetchRequest

FIRST_VERSION_WITH_RACK = 11


def followers_serve(config: BrokerConfig) -> bool:
    """Whether consumers may read from followers."""
    return config.replica_selector_class == RACK_AWARE_SELECTOR


class NearbyAnswer(FetchAnswer):
    """The answer to a consumer that has told its rack."""

    __slots__ = ("_rack",)

    def __init__(
        self,
        ctx: Context,
        request: Request,
        message: FetchRequest,
        *,
        session_id: int,
        is_incremental: bool,
    ) -> None:
        super().__init__(
            ctx,
            request,
            session_id=session_id,
            max_bytes=min(message.max_bytes, ctx.config.fetch_max_bytes),
            read_committed=message.isolation_level == 1,
            is_incremental=is_incremental,
        )
        self._rack = message.rack_id

    def _find(self, partition: Partition, followed: FollowedPartition) -> ReadResult:
        if not partition.is_leader:
            return partition.read_as_follower(
                followed.fetch_offset,
                min(followed.max_bytes, self._left_bytes),
                min_one_batch=self.total_bytes == 0,
                read_committed=self._read_committed,
                current_leader_epoch=followed.current_leader_epoch,
                last_fetched_epoch=followed.last_fetched_epoch,
            )
        partition.check_epoch(followed.current_leader_epoch)
        nearest = self._nearest(partition, followed.fetch_offset)
        if nearest >= 0:
            return partition.nothing_read(preferred=nearest)
        return super()._find(partition, followed)

    def _nearest(self, partition: Partition, fetch_offset: int) -> int:
        """The follower that the consumer should read from; -1 for this leader."""
        isr = partition.isr
        if isr is None or isr.is_alone or self._ctx.config.broker_rack == self._rack:
            return -1
        brokers = self._ctx.image.brokers
        best, best_end = -1, fetch_offset - 1
        for replica in isr.committed:
            broker = brokers.get(replica)
            if broker is None or broker.rack != self._rack or not isr.is_in_sync(replica):
                continue
            # Retention there may be ahead of that here: the consumer would be sent to and fro.
            if isr.start_of(replica) > fetch_offset:
                continue
            end_offset = isr.end_of(replica)
            if end_offset > best_end:
                best, best_end = replica, end_offset
        return best
