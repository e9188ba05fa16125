"""Reading for a fetch: from followed partitions to one FetchResponse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioq.errors import KafkaError
from trioq.server.handlers.partition_lookup import require_partition, require_partition_by_id
from trioq.server.leader_hints import LEADER_CHANGES, endpoints_of, leader_of
from trioq.types import ZERO_TOPIC_ID, FileRegion, TopicId
from trioq.wire.messages.fetch import (
    FetchResponse,
    FetchResponseCurrentLeader,
    FetchResponseDivergingEpoch,
    FetchResponseNodeEndpoint,
    FetchResponsePartition,
    FetchResponseTopic,
)

if TYPE_CHECKING:
    from trioq._native.fetch_lane import FetchEntry
    from trioq.replication.partition import Partition
    from trioq.replication.replica import ReadResult
    from trioq.server.context import Context, Request
    from trioq.server.fetch_sessions import FollowedPartition

FIRST_VERSION_WITH_CURRENT_LEADER = 12
FIRST_VERSION_WITH_NODE_ENDPOINTS = 16


class FetchAnswer:
    """An answer in the making: bytes so far, what is left of max_bytes, topics in order.

    Owns the file regions it has read until `response` hands them to the response, whose
    sender releases them, or `release` gives them back.
    """

    __slots__ = (
        "_ctx",
        "_is_incremental",
        "_left_bytes",
        "_now_leaders",
        "_read_committed",
        "_regions",
        "_request",
        "_session_id",
        "_told",
        "_topics",
        "is_final",
        "partition",
        "total_bytes",
    )

    def __init__(
        self,
        ctx: Context,
        request: Request | FetchEntry,
        *,
        session_id: int,
        max_bytes: int,
        read_committed: bool,
        is_incremental: bool,
    ) -> None:
        self._ctx = ctx
        self._request = request
        self._session_id = session_id
        self._left_bytes = max_bytes
        self._read_committed = read_committed
        self._is_incremental = is_incremental
        self._topics: dict[TopicId | str, FetchResponseTopic] = {}
        self._regions: list[FileRegion] = []
        self._now_leaders: set[int] = set()
        self._told: list[tuple[FollowedPartition, int, int]] = []
        self.total_bytes = 0
        self.is_final = False
        """True if the answer must not wait: an error or a diverging epoch is in it."""

        self.partition: Partition | None = None
        """Where the last `read` read from; None if it is not hosted here."""

    def read(self, followed: FollowedPartition) -> bool:
        """Read one partition into the answer.

        Returns:
            True if the partition is to be looked at again with the session's next fetch
            (it had data, or an error), False if it is read to its end.
        """
        self.partition = None
        answer = FetchResponsePartition(partition_index=followed.number)
        try:
            partition = self._resolve(followed)
            self.partition = partition
            found = self._find(partition, followed)
        except KafkaError as error:
            self.is_final = True
            self._add(followed, self._failed(answer, followed, error.code))
            return True
        answer.high_watermark = found.high_watermark
        answer.last_stable_offset = found.last_stable_offset
        answer.log_start_offset = found.log_start_offset
        if not self._read_committed:
            answer.aborted_transactions = None
        region = found.region
        if region is not None:
            answer.records = region
            self._regions.append(region)
            self.total_bytes += region.length
            self._left_bytes = max(0, self._left_bytes - region.length)
        elif found.diverging is not None:
            self.is_final = True
            epoch, end_offset = found.diverging
            answer.diverging_epoch = FetchResponseDivergingEpoch(epoch=epoch, end_offset=end_offset)
        elif found.preferred >= 0:
            self.is_final = True
            answer.preferred_read_replica = found.preferred
            answer.records = b""
        else:
            answer.records = b""
            if self._is_incremental and not followed.has_news(
                found.high_watermark, found.log_start_offset
            ):
                return followed.fetch_offset < found.end_offset
        self._told.append((followed, found.high_watermark, found.log_start_offset))
        self._add(followed, answer)
        return followed.fetch_offset < found.end_offset or self.is_final

    def _find(self, partition: Partition, followed: FollowedPartition) -> ReadResult:
        return partition.read(
            followed.fetch_offset,
            min(followed.max_bytes, self._left_bytes),
            min_one_batch=self.total_bytes == 0,
            read_committed=self._read_committed,
            current_leader_epoch=followed.current_leader_epoch,
            last_fetched_epoch=followed.last_fetched_epoch,
        )

    def response(self) -> FetchResponse:
        """The response; the regions in it are now its sender's."""
        for followed, high_watermark, log_start_offset in self._told:
            followed.told_high_watermark = high_watermark
            followed.told_log_start_offset = log_start_offset
        return FetchResponse(
            session_id=self._session_id,
            responses=list(self._topics.values()),
            node_endpoints=self._endpoints() if self._now_leaders else [],
        )

    def release(self) -> list[FollowedPartition]:
        """Give up the answer: what was read goes back.

        Returns:
            The partitions of which it would have told something new.
        """
        for region in self._regions:
            region.file.release()
        self._regions.clear()
        return [followed for followed, _, _ in self._told]

    def _resolve(self, followed: FollowedPartition) -> Partition:
        known = followed.partition
        if known is not None and not known.is_closed:
            return known
        if followed.topic_id != ZERO_TOPIC_ID:
            return require_partition_by_id(self._ctx, followed.topic_id, followed.number)
        return require_partition(self._ctx, followed.topic, followed.number)

    def _add(self, followed: FollowedPartition, answer: FetchResponsePartition) -> None:
        key = followed.topic if followed.topic_id == ZERO_TOPIC_ID else followed.topic_id
        topic = self._topics.get(key)
        if topic is None:
            topic = FetchResponseTopic(topic=followed.topic, topic_id=followed.topic_id)
            self._topics[key] = topic
        topic.partitions.append(answer)

    def _failed(
        self, answer: FetchResponsePartition, followed: FollowedPartition, code: int
    ) -> FetchResponsePartition:
        answer.error_code = code
        answer.high_watermark = -1
        answer.records = b""
        version = self._request.api_version
        if code in LEADER_CHANGES and version >= FIRST_VERSION_WITH_CURRENT_LEADER:
            now = leader_of(self._ctx.image, followed.topic, followed.number)
            if now is not None:
                leader_id, leader_epoch = now
                answer.current_leader = FetchResponseCurrentLeader(
                    leader_id=leader_id, leader_epoch=leader_epoch
                )
                self._now_leaders.add(leader_id)
        return answer

    def _endpoints(self) -> list[FetchResponseNodeEndpoint]:
        if self._request.api_version < FIRST_VERSION_WITH_NODE_ENDPOINTS:
            return []
        listener_name = self._request.connection.listener_name
        return [
            FetchResponseNodeEndpoint(
                node_id=one.node_id, host=one.host, port=one.port, rack=one.rack
            )
            for one in endpoints_of(self._ctx.image, self._now_leaders, listener_name)
        ]
