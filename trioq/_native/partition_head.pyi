"""What every request asks of a partition, ready to be read by native code."""

from collections.abc import Callable
from typing import Any, final

from trioq._native.ack_queue import AckQueue

class PartitionHead:
    """A base for Partition, which keeps all this as its role, configuration and log demand."""

    log: Any
    is_leader: bool
    leader_epoch: int
    is_closed: bool
    """It is hosted here no longer: nobody may remember it."""

    _takes_acks_one: bool
    """A plain batch is appended without preparation, and acknowledged by its write."""
    _takes_acks_all: bool
    """The same for acks=all: enough replicas are in sync."""
    _acks_all_wait: bool
    """Acknowledging acks=all takes more than this pass's write, so it has a deadline."""
    _takes_compressed: bool
    """Compressed batches too are stored as they are, unopened."""
    _lane_max_bytes: int
    """Largest batch: by the topic's bound, and one segment."""
    _before_max_ms: int
    _after_max_ms: int
    _bytes_since_progress: int
    _is_end_known: bool
    """The high watermark has reached this leader's epoch (KIP-207)."""
    _writer: Any
    """Of the log's directory: while it `is_threaded` appends go the general way."""
    _listeners: dict[Any, None]
    """Those who want to know of progress."""
    _acks_one: AckQueue
    _acks_all: AckQueue

@final
class PartitionTable:
    """Hosted partitions by the bytes of their topic's name; a memory of `find`."""

    def __init__(self, find: Callable[[str, int], PartitionHead | None]) -> None: ...
