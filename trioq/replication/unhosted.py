"""A replica that is assigned to this broker, and that it cannot have: its directory failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trioq.metastore.layout import PartitionState
    from trioq.types import TopicId, TopicPartition


class UnhostedReplica:
    """What is known of a replica for which no log could be opened in this process's life."""

    __slots__ = ("is_closed", "state", "topic_id", "topic_partition")

    def __init__(
        self, topic_partition: TopicPartition, topic_id: TopicId, state: PartitionState
    ) -> None:
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.state = state
        self.is_closed = False
        """It is assigned to this broker no longer, or could be opened after all."""

    @property
    def partition_epoch(self) -> int:
        """The version of the state that is known."""
        return self.state.partition_epoch

    def apply_state(self, state: PartitionState) -> None:
        """Note the metastore's state; an older one than held is ignored."""
        if state.partition_epoch >= self.state.partition_epoch:
            self.state = state
