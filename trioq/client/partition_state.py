"""One partition that a consumer reads: where it is, and what was fetched ahead of that.

UNKNOWN ----committed offset----> VALIDATING --> FETCHING
`-- none --> RESETTING --offset---------------^  |  `-- out of range --> RESETTING
FAILED: `error` is for the user; `seek` leads out
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any, Final

from trioq.errors import TrioqError
from trioq.record.fetched import RecordBatchView
from trioq.types import ZERO_TOPIC_ID, TopicId, TopicPartition

NO_OFFSET: Final = -1
NO_EPOCH: Final = -1
NO_NODE: Final = -1

LATEST: Final = -1
EARLIEST: Final = -2
"""Timestamps that ListOffsets takes for the ends of a partition."""


class PositionPhase(Enum):
    """How far a partition is from being read."""

    UNKNOWN = "Unknown"
    RESETTING = "Resetting"
    VALIDATING = "Validating"
    FETCHING = "Fetching"
    FAILED = "Failed"


class PartitionState:
    """Owned by FetcherState, which alone changes it; readable by the consumer."""

    __slots__ = (
        "batches",
        "buffered_bytes",
        "corrupt_fetches",
        "error",
        "fetch_epoch",
        "fetch_offset",
        "high_watermark",
        "incarnation",
        "last_stable_offset",
        "leader_epoch",
        "leader_id",
        "log_start_offset",
        "max_bytes",
        "partition",
        "paused",
        "phase",
        "position",
        "position_epoch",
        "replica_id",
        "replica_until_s",
        "reset_timestamp",
        "retry_at_s",
        "topic_id",
        "validated_epoch",
    )

    def __init__(self, partition: TopicPartition, max_bytes: int) -> None:
        self.partition = partition
        self.topic_id: TopicId = ZERO_TOPIC_ID
        self.phase = PositionPhase.UNKNOWN
        self.position = NO_OFFSET
        """The offset of the next record for the user."""
        self.position_epoch = NO_EPOCH
        """Leader epoch of the record before it; goes with the position into commits."""
        self.fetch_offset = NO_OFFSET
        """The offset of the next record to fetch; `batches` are before it."""
        self.fetch_epoch = NO_EPOCH
        self.reset_timestamp = LATEST
        self.incarnation = 0
        """Rises with every jump: answers that were asked for before it are for nobody."""
        self.paused = False
        self.leader_id = NO_NODE
        self.leader_epoch = NO_EPOCH
        self.validated_epoch = NO_EPOCH
        """The leader epoch in which the position was last known to lie in the leader's log."""
        self.replica_id = NO_NODE
        """A replica that the leader prefers us to read from (KIP-392), until `replica_until_s`."""
        self.replica_until_s = 0.0
        self.batches: deque[RecordBatchView[Any, Any]] = deque()
        self.buffered_bytes = 0
        self.max_bytes = max_bytes
        self.retry_at_s = 0.0
        self.corrupt_fetches = 0
        self.error: TrioqError | None = None
        self.high_watermark = NO_OFFSET
        self.last_stable_offset = NO_OFFSET
        self.log_start_offset = NO_OFFSET

    def jump(self, phase: PositionPhase) -> None:
        """Forget what was fetched and asked for; the position is about to change."""
        self.phase = phase
        self.position = self.fetch_offset = NO_OFFSET
        self.position_epoch = self.fetch_epoch = NO_EPOCH
        self.incarnation += 1
        self.batches.clear()
        self.buffered_bytes = 0
        self.error = None
        self.retry_at_s = 0.0
        self.corrupt_fetches = 0

    def go_to(self, offset: int, epoch: int) -> None:
        """Read from `offset` on; the record before it has leader epoch `epoch`, if known."""
        needs_validation = NO_EPOCH not in {epoch, self.leader_epoch}
        self.jump(PositionPhase.VALIDATING if needs_validation else PositionPhase.FETCHING)
        self.position = self.fetch_offset = offset
        self.position_epoch = self.fetch_epoch = epoch
        self.validated_epoch = self.leader_epoch

    def read_node(self, now_s: float) -> int:
        """The broker to fetch from."""
        if self.replica_id != NO_NODE:
            if now_s < self.replica_until_s:
                return self.replica_id
            self.replica_id = NO_NODE
        return self.leader_id
