"""Produce requests as nearly all are: one batch, for one partition, that is next in its sequence.

Everything that `handle_produce` checks is checked here (header, lengths, CRC, every record of an
uncompressed batch, times, the producer's window), in the same order of consequence: what fails a
check, and whatever is out of the ordinary, is left to it untouched. Batches over 64 KiB are checked
without the interpreter lock.
"""

from collections.abc import Callable
from typing import Any, final

from trioq._native.partition_head import PartitionTable
from trioq._native.response_ring import ReadyAnswer
from trioq.errors import KafkaError

@final
class ProduceLane:
    """The produce requests of a RequestLane.

    `refuse(answer, partition, error)` completes an answer whose batch was lost after all.
    `ctx` has `clock` and `deadlines`. Where acks=all has to wait, those whose timeout is over
    are refused with REQUEST_TIMED_OUT, up to a tenth of a second late.
    """

    def __init__(
        self,
        table: PartitionTable,
        refuse: Callable[[ReadyAnswer, Any, type[KafkaError]], None],
        ctx: Any,
    ) -> None: ...
    def look_due(self) -> None:
        """Refuse those who have waited for too long; called by a deadline."""
