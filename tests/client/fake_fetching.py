"""The fake cluster, read from: fetches, positions, and a group with room for one member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.client.fake_cluster import FakeCluster
from trioq._native import batch as native
from trioq.client.group_protocol import member_assignment
from trioq.types import TopicPartition
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchResponse,
    FetchResponseAbortedTransaction,
    FetchResponsePartition,
    FetchResponseTopic,
)
from trioq.wire.messages.find_coordinator import (
    FindCoordinatorResponse,
    FindCoordinatorResponseCoordinator,
)
from trioq.wire.messages.heartbeat import HeartbeatResponse
from trioq.wire.messages.join_group import JoinGroupResponse
from trioq.wire.messages.leave_group import LeaveGroupResponse
from trioq.wire.messages.list_offsets import (
    ListOffsetsResponse,
    ListOffsetsResponsePartition,
    ListOffsetsResponseTopic,
)
from trioq.wire.messages.offset_commit import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from trioq.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochResponse,
    OffsetForLeaderEpochResponsePartition,
    OffsetForLeaderEpochResponseTopic,
)
from trioq.wire.messages.sync_group import SyncGroupResponse
from trioq.wire.schema import Message

FetchFault = Callable[[FetchResponsePartition, Any], None]
"""Changes the answer for one partition, given what was asked."""


class FetchableCluster(FakeCluster):
    """Logs as bytes in `stored`; errors by API in `errors`, used up one by one."""

    def __init__(self, *, nodes: int = 1, versions: dict[int, tuple[int, int]] | None = None):
        super().__init__(nodes=nodes)
        self.stored: list[bytes] = []
        self.aborted: list[tuple[int, int]] = []
        self.fetch_faults: list[FetchFault] = []
        self.errors: dict[ApiKey, list[int]] = {}
        self.coordinator = 1
        self.generation = 0
        self.committed: int | None = None
        self.epoch_end = 1 << 40
        self.asked: list[tuple[int, ApiKey, int]] = []
        """(node, API, version) of every request."""
        if versions is not None:
            self.api_versions = lambda _: ApiVersionsResponse(
                api_keys=[
                    ApiVersionsResponseKey(api_key=key, min_version=first, max_version=last)
                    for key, (first, last) in versions.items()
                ]
            )

    def store(self, *values: bytes, epoch: int = 0, **arguments: Any) -> None:
        records = [(0, None, value, ()) for value in values]
        self.stored.append(
            bytes(
                native.build(records, base_offset=self.next_offset, leader_epoch=epoch, **arguments)
            )
        )

    @property
    def next_offset(self) -> int:
        return native.peek(self.stored[-1]).next_offset if self.stored else 0

    def _error(self, key: ApiKey) -> int:
        errors = self.errors.get(key)
        return errors.pop(0) if errors else 0

    def answer(self, node: int, key: int, request: Any, version: int) -> Message | str | None:
        api = ApiKey(key)
        with self.lock:
            self.asked.append((node, api, version))
            answers: dict[ApiKey, Callable[[int, Any, int], Message]] = {
                ApiKey.FETCH: self._fetch,
                ApiKey.LIST_OFFSETS: self._list_offsets,
                ApiKey.OFFSET_FOR_LEADER_EPOCH: self._epoch_ends,
                ApiKey.FIND_COORDINATOR: self._find_coordinator,
                ApiKey.JOIN_GROUP: self._join,
                ApiKey.SYNC_GROUP: self._sync,
                ApiKey.HEARTBEAT: self._heartbeat,
                ApiKey.LEAVE_GROUP: lambda *_: LeaveGroupResponse(),
                ApiKey.OFFSET_COMMIT: self._commit,
                ApiKey.OFFSET_FETCH: self._offset_fetch,
            }
            if api in answers:
                self.requests.append((node, request))
                return answers[api](node, request, version)
        return super().answer(node, key, request, version)

    def _fetch(self, node: int, request: Any, version: int) -> Message:
        """One partition, without sessions."""
        responses = []
        for topic in request.topics:
            for asked in topic.partitions:
                data = b"".join(
                    one for one in self.stored if native.peek(one).next_offset > asked.fetch_offset
                )
                answer = FetchResponsePartition(
                    partition_index=asked.partition,
                    high_watermark=self.next_offset,
                    last_stable_offset=self.next_offset,
                    log_start_offset=0,
                    records=memoryview(data),
                    aborted_transactions=[
                        FetchResponseAbortedTransaction(producer_id=one, first_offset=first)
                        for one, first in self.aborted
                    ]
                    if request.isolation_level
                    else None,
                )
                if self.fetch_faults:
                    self.fetch_faults.pop(0)(answer, asked)
                elif self.log().leader != node and not self._is_replica(node):
                    answer.error_code, answer.records = 6, None
                responses.append(
                    FetchResponseTopic(
                        topic=topic.topic, topic_id=topic.topic_id, partitions=[answer]
                    )
                )
        self.throttle.wait(0.005)
        return FetchResponse(responses=responses)

    def fetches(self) -> list[tuple[int, Any]]:
        """(node, request) of every fetch."""
        return [one for one in self.requests if type(one[1]) is FetchRequest]

    def _is_replica(self, node: int) -> bool:
        return node in getattr(self, "replicas", ())

    def _list_offsets(self, _node: int, request: Any, _version: int) -> Message:
        (topic,) = request.topics
        code = self._error(ApiKey.LIST_OFFSETS)
        return ListOffsetsResponse(
            topics=[
                ListOffsetsResponseTopic(
                    name=topic.name,
                    partitions=[
                        ListOffsetsResponsePartition(
                            partition_index=one.partition_index,
                            error_code=code,
                            offset=self.next_offset if one.timestamp == -1 else 0,
                        )
                        for one in topic.partitions
                    ],
                )
            ]
        )

    def _epoch_ends(self, _node: int, request: Any, _version: int) -> Message:
        (topic,) = request.topics
        (asked,) = topic.partitions
        end = OffsetForLeaderEpochResponsePartition(
            error_code=self._error(ApiKey.OFFSET_FOR_LEADER_EPOCH),
            partition=asked.partition,
            leader_epoch=asked.leader_epoch,
            end_offset=self.epoch_end,
        )
        return OffsetForLeaderEpochResponse(
            topics=[OffsetForLeaderEpochResponseTopic(topic=topic.topic, partitions=[end])]
        )

    # ---- the group --------------------------------------------------------------------

    def _find_coordinator(self, _node: int, request: Any, version: int) -> Message:
        node = self.nodes[self.coordinator]
        place: dict[str, Any] = {"node_id": node.number, "host": "127.0.0.1", "port": node.port}
        code = self._error(ApiKey.FIND_COORDINATOR)
        if code:
            place = {"node_id": -1, "host": "", "port": -1, "error_code": code}
        if version < 4:
            return FindCoordinatorResponse(**place)
        return FindCoordinatorResponse(
            coordinators=[
                FindCoordinatorResponseCoordinator(key=key, **place)
                for key in request.coordinator_keys
            ]
        )

    def _group_error(self, node: int, key: ApiKey) -> int:
        return self._error(key) or (16 if node != self.coordinator else 0)

    def _join(self, node: int, request: Any, version: int) -> Message:
        code = self._group_error(node, ApiKey.JOIN_GROUP)
        if code:
            return JoinGroupResponse(error_code=code)
        if version >= 4 and not request.member_id:
            return JoinGroupResponse(error_code=79, member_id="only")
        self.generation += 1
        return JoinGroupResponse(
            generation_id=self.generation,
            protocol_name=request.protocols[0].name,
            leader="another",
            member_id=request.member_id or "only",
        )

    def _sync(self, node: int, _request: Any, _version: int) -> Message:
        code = self._group_error(node, ApiKey.SYNC_GROUP)
        if code:
            return SyncGroupResponse(error_code=code)
        return SyncGroupResponse(assignment=member_assignment([TopicPartition("t", 0)]))

    def _heartbeat(self, node: int, _request: Any, _version: int) -> Message:
        return HeartbeatResponse(error_code=self._group_error(node, ApiKey.HEARTBEAT))

    def _commit(self, node: int, request: Any, _version: int) -> Message:
        code = self._group_error(node, ApiKey.OFFSET_COMMIT)
        (topic,) = request.topics
        (partition,) = topic.partitions
        if not code:
            self.committed = partition.committed_offset
        answer = OffsetCommitResponsePartition(partition_index=0, error_code=code)
        return OffsetCommitResponse(
            topics=[OffsetCommitResponseTopic(name="t", partitions=[answer])]
        )

    def _offset_fetch(self, node: int, _request: Any, version: int) -> Message:
        code = 16 if node != self.coordinator else 0
        answer = OffsetFetchResponsePartition(
            partition_index=0,
            committed_offset=-1 if self.committed is None else self.committed,
            error_code=self._error(ApiKey.OFFSET_FETCH),
        )
        topics = [OffsetFetchResponseTopic(name="t", partitions=[answer])]
        if version < 8:
            return OffsetFetchResponse(topics=topics, error_code=code)
        return OffsetFetchResponse(
            groups=[OffsetFetchResponseGroup(group_id="g", topics=topics, error_code=code)]
        )


OLD_VERSIONS = {
    int(key): (APIS[key].implemented_min, last)
    for key, last in {
        ApiKey.PRODUCE: 3,
        ApiKey.FETCH: 4,
        ApiKey.LIST_OFFSETS: 1,
        ApiKey.METADATA: 4,
        ApiKey.OFFSET_COMMIT: 2,
        ApiKey.OFFSET_FETCH: 1,
        ApiKey.FIND_COORDINATOR: 0,
        ApiKey.JOIN_GROUP: 0,
        ApiKey.HEARTBEAT: 0,
        ApiKey.LEAVE_GROUP: 0,
        ApiKey.SYNC_GROUP: 0,
        ApiKey.API_VERSIONS: 0,
    }.items()
}
"""What a broker of 2017 served."""
