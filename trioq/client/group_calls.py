"""The requests of one group to its coordinator: committing and fetching offsets among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, TypeVar

from trioq.client.cluster import Cluster
from trioq.client.coordinators import CoordinatorType
from trioq.client.membership_steps import coordinator_is_lost
from trioq.errors import KafkaError, TrioqError, error_class
from trioq.types import TopicPartition
from trioq.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from trioq.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchResponse,
    OffsetFetchResponseTopic,
)
from trioq.wire.schema import Message

Response = TypeVar("Response", bound=Message)

GROUP_LANE: Final = "group"
"""Heartbeats and commits, of all consumers of a client."""

_MANY_GROUPS_FROM: Final = 8
_REQUIRE_STABLE_FROM: Final = 7


class OffsetAndMetadata(NamedTuple):
    """A committed offset: the next record to read."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class MemberIdentity(NamedTuple):
    """As whom a group's offsets are committed; the default is somebody outside of the group."""

    generation: int = -1
    member_id: str = ""
    instance_id: str | None = None


class GroupCalls:
    """Talks to the coordinator of one group; each call is made once, retries are the caller's."""

    def __init__(self, cluster: Cluster, group_id: str, join_lane: str = GROUP_LANE) -> None:
        self.group_id = group_id
        self.join_lane = join_lane
        """For joins and syncs, which are answered when the whole group has come: nothing else
        must wait behind them."""

        self._cluster = cluster

    async def call(
        self,
        request: Message,
        response_class: type[Response],
        *,
        lane: str = GROUP_LANE,
        timeout_s: float | None = None,
        at_least: int = 0,
    ) -> Response:
        """Ask the coordinator; raises KafkaError where there is none, ConnectionFailed.

        An `error_code` of the answer is the caller's to look at, and to report to `failed`.
        """
        node_id = await self.coordinator()
        try:
            return await self._cluster.call(
                node_id,
                request,
                response_class,
                timeout_s=timeout_s,
                lane=lane,
                at_least=at_least,
            )
        except TrioqError as error:
            self._failed_at(node_id, error)
            raise

    def failed(self, error: TrioqError) -> None:
        """The coordinator answered with `error`: look for another one if it says it is none."""
        node_id = self._cluster.known_coordinator(CoordinatorType.GROUP, self.group_id)
        if node_id is not None:
            self._failed_at(node_id, error)

    async def commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], identity: MemberIdentity
    ) -> dict[TopicPartition, KafkaError]:
        """Commit once; the errors of partitions that were refused."""
        by_topic: dict[str, list[OffsetCommitRequestPartition]] = defaultdict(list)
        for (topic, number), one in offsets.items():
            by_topic[topic].append(
                OffsetCommitRequestPartition(
                    partition_index=number,
                    committed_offset=one.offset,
                    committed_leader_epoch=one.leader_epoch,
                    committed_metadata=one.metadata,
                )
            )
        response = await self.call(
            OffsetCommitRequest(
                group_id=self.group_id,
                generation_id_or_member_epoch=identity.generation,
                member_id=identity.member_id,
                group_instance_id=identity.instance_id,
                topics=[
                    OffsetCommitRequestTopic(name=topic, partitions=partitions)
                    for topic, partitions in by_topic.items()
                ],
            ),
            OffsetCommitResponse,
        )
        refused = {
            TopicPartition(topic.name, one.partition_index): error_class(one.error_code)()
            for topic in response.topics
            for one in topic.partitions
            if one.error_code
        }
        for error in refused.values():
            self.failed(error)
        return refused

    async def committed(
        self,
        partitions: Collection[TopicPartition] | None,
        *,
        require_stable: bool = False,
        member_id: str | None = None,
        member_epoch: int = -1,
    ) -> dict[TopicPartition, OffsetAndMetadata | KafkaError]:
        """The group's offsets for `partitions` (None: all it has), without those it has none for.

        Raises the error of the group as a whole. UnstableOffsetCommit comes for a partition with
        an open transaction if `require_stable`.
        """
        topics: list[OffsetFetchRequestTopic] | None = None
        if partitions is not None:
            by_topic: dict[str, list[int]] = defaultdict(list)
            for topic, number in partitions:
                by_topic[topic].append(number)
            topics = [
                OffsetFetchRequestTopic(name=topic, partition_indexes=numbers)
                for topic, numbers in by_topic.items()
            ]
        node_id = await self.coordinator()
        try:
            connection = await self._cluster.connection(node_id, GROUP_LANE)
        except TrioqError as error:
            self._failed_at(node_id, error)
            raise
        version = connection.version_of(OffsetFetchRequest)
        if version >= _MANY_GROUPS_FROM:
            request = OffsetFetchRequest(
                groups=[
                    OffsetFetchRequestGroup(
                        group_id=self.group_id,
                        topics=topics,
                        member_id=member_id,
                        member_epoch=member_epoch,
                    )
                ]
            )
        else:
            request = OffsetFetchRequest(group_id=self.group_id, topics=topics)
        request.require_stable = require_stable and version >= _REQUIRE_STABLE_FROM
        response = await self.call(request, OffsetFetchResponse)
        code, found = response.error_code, response.topics
        if version >= _MANY_GROUPS_FROM:
            code, found = response.groups[0].error_code, _topics_of(response)
        if code:
            refusal = error_class(code)()
            self.failed(refusal)
            raise type(refusal)(f"offsets of group {self.group_id!r}: {refusal}")
        return {
            TopicPartition(topic.name, one.partition_index): (
                error_class(one.error_code)()
                if one.error_code
                else OffsetAndMetadata(
                    one.committed_offset, one.committed_leader_epoch, one.metadata or ""
                )
            )
            for topic in found
            for one in topic.partitions
            if one.error_code or one.committed_offset >= 0
        }

    async def coordinator(self) -> int:
        """The coordinator's node id; raises KafkaError, ConnectionFailed."""
        return await self._cluster.coordinator(CoordinatorType.GROUP, self.group_id)

    def _failed_at(self, node_id: int, error: TrioqError) -> None:
        if coordinator_is_lost(error):
            self._cluster.coordinator_is_not(CoordinatorType.GROUP, self.group_id, node_id)


def _topics_of(response: OffsetFetchResponse) -> list[OffsetFetchResponseTopic]:
    return response.groups[0].topics
