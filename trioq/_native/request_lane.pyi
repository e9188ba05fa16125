"""The way of ordinary requests: from bytes to an answer in the ring, without an object for each.

What is ordinary: the requests of a ProduceLane and a FetchLane; heartbeats that
are welcome; ListOffsets of one partition's end;
Metadata and ApiVersions that somebody has asked before. Everything else, malformed bytes included,
is left untouched to the dispatcher, which is the reference: where a lane answers, it answers the
same.
"""

from typing import Any, final

from trioq._native.fetch_lane import FetchLane
from trioq._native.kept_answers import KeptAnswers
from trioq._native.partition_head import PartitionTable
from trioq._native.produce_lane import ProduceLane
from trioq._native.response_ring import ResponseRing

@final
class RequestLane:
    """Each of the optional parts opens the lane for its API.

    `clock` has `now_ms()`; `image_source.image` is the source of the answers in `metadata`;
    `groups_of.groups` has the coordinator's `heartbeat`.
    """

    requests: int
    """Taken, since somebody set it to 0."""

    def __init__(
        self,
        clock: Any,
        *,
        max_frame_bytes: int,
        max_parked_requests: int,
        max_parked_bytes: int,
        produce: ProduceLane | None = None,
        fetch: FetchLane | None = None,
        offsets: PartitionTable | None = None,
        metadata: KeptAnswers | None = None,
        image_source: Any = None,
        versions: KeptAnswers | None = None,
        groups_of: Any = None,
    ) -> None: ...
    def take(
        self, connection: ResponseRing, view: memoryview, start: int, end: int, max_frames: int
    ) -> int:
        """Take the whole frames from view[start:end] that are ordinary, at most `max_frames`.

        Stops at the first that is not, or that the connection may not dispatch now. Returns where
        the rest starts. Records of batches stay borrowed until they are written. ValueError if
        [start, end) is not within `view`.
        """
