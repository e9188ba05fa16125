"""Groups and their offsets, for `client.admin`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from trioq.client.admin_call import AdminCalls, Partition, check
from trioq.client.group_calls import GroupCalls, MemberIdentity, OffsetAndMetadata
from trioq.client.group_protocol import read_member_assignment, read_member_metadata
from trioq.client.list_offsets import offsets_at
from trioq.client.partition_state import LATEST
from trioq.errors import (
    GroupIdNotFound,
    KafkaError,
    ProtocolViolation,
    UnsupportedByBroker,
    UnsupportedVersion,
)
from trioq.types import TopicPartition
from trioq.wire.messages.consumer_group_describe import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupDescribeResponseGroup,
)
from trioq.wire.messages.consumer_protocol import PROTOCOL_TYPE
from trioq.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from trioq.wire.messages.describe_groups import (
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    DescribeGroupsResponseGroup,
    DescribeGroupsResponseMember,
)
from trioq.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from trioq.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)

_DEAD: Final = "Dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupListing:
    """A group in a list."""

    group_id: str
    protocol_type: str
    state: str
    """Empty where the broker is too old to say."""

    group_type: str
    """classic or consumer; empty where the broker is too old to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberDescription:
    """A member of a group."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    topics: frozenset[str]
    assignment: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescription:
    """A group and its members."""

    group_id: str
    group_type: str
    """classic or consumer."""

    state: str
    protocol_type: str
    assignor: str
    members: tuple[MemberDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffset:
    """How far a group is in one partition."""

    committed: OffsetAndMetadata
    end_offset: int | None
    """None where the partition does not exist any more."""

    @property
    def lag(self) -> int | None:
        """Records that it has not committed yet."""
        return None if self.end_offset is None else max(self.end_offset - self.committed.offset, 0)


class GroupAdmin(AdminCalls):
    """The part of Admin for groups."""

    async def list_groups(
        self,
        *,
        states: Collection[str] = (),
        types: Collection[str] = (),
        timeout_ms: int | None = None,
    ) -> list[GroupListing]:
        """The groups of all brokers, by name; filters need brokers that know them."""
        cluster = self._cluster
        await self._repeat(cluster.metadata.refreshed, "finding the brokers", timeout_ms)
        request = ListGroupsRequest(states_filter=list(states), types_filter=list(types))

        async def ask(node_id: int) -> list[GroupListing]:
            response = await self._on_any(
                request, ListGroupsResponse, "listing groups", timeout_ms, node_id=node_id
            )
            check(response.error_code, f"listing the groups of broker {node_id}")
            return [
                GroupListing(
                    group_id=one.group_id,
                    protocol_type=one.protocol_type,
                    state=one.group_state,
                    group_type=one.group_type.lower(),
                )
                for one in response.groups
            ]

        answers = await self._everywhere(ask, list(cluster.metadata.state.nodes))
        groups = {one.group_id: one for listed in answers.values() for one in listed}
        return [groups[group_id] for group_id in sorted(groups)]

    async def describe_group(
        self, group_id: str, *, timeout_ms: int | None = None
    ) -> GroupDescription:
        """A group of either protocol; raises GroupIdNotFound."""
        what = f"describing group {group_id!r}"
        try:
            described = await self._on_coordinator(
                group_id,
                ConsumerGroupDescribeRequest(group_ids=[group_id]),
                ConsumerGroupDescribeResponse,
                lambda response: response.groups[0].error_code,
                what,
                timeout_ms,
            )
        except (GroupIdNotFound, UnsupportedByBroker, UnsupportedVersion):
            pass
        else:
            return _of_consumer_protocol(described.groups[0])
        response = await self._on_coordinator(
            group_id,
            DescribeGroupsRequest(groups=[group_id]),
            DescribeGroupsResponse,
            lambda response: response.groups[0].error_code,
            what,
            timeout_ms,
        )
        group = response.groups[0]
        if group.group_state == _DEAD:
            raise GroupIdNotFound(f"{what}: there is no such group")
        return _of_classic_protocol(group)

    async def delete_group(self, group_id: str, *, timeout_ms: int | None = None) -> None:
        """Delete a group that has no members; raises NonEmptyGroup, GroupIdNotFound."""
        await self._on_coordinator(
            group_id,
            DeleteGroupsRequest(groups_names=[group_id]),
            DeleteGroupsResponse,
            lambda response: response.results[0].error_code,
            f"deleting group {group_id!r}",
            timeout_ms,
        )

    async def group_offsets(
        self,
        group_id: str,
        partitions: Iterable[Partition] | None = None,
        *,
        require_stable: bool = False,
        timeout_ms: int | None = None,
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The committed offsets of a group: all of them, or those of `partitions`.

        Partitions without one are left out. `require_stable` waits for open transactions.
        """
        calls = GroupCalls(self._cluster, group_id)
        named = None if partitions is None else [TopicPartition(*one) for one in partitions]

        async def attempt() -> dict[TopicPartition, OffsetAndMetadata]:
            found = await calls.committed(named, require_stable=require_stable)
            offsets = {}
            for partition, one in found.items():
                if isinstance(one, KafkaError):
                    raise type(one)(f"the offset of group {group_id!r} in {partition}: {one}")
                offsets[partition] = one
            return offsets

        return await self._repeat(attempt, f"offsets of group {group_id!r}", timeout_ms)

    async def group_lag(
        self, group_id: str, *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, GroupOffset]:
        """How far a group is behind the end, for every partition that it has committed to."""
        committed = await self.group_offsets(group_id, timeout_ms=timeout_ms)
        known = await self._cluster.metadata.all_topics()
        topics = self._cluster.metadata.state.topics
        there = [
            partition
            for partition in committed
            if partition.topic in known
            and partition.partition < len(topics[partition.topic].partitions)
        ]
        ends = await offsets_at(self._cluster, dict.fromkeys(there, LATEST))
        return {
            partition: GroupOffset(
                committed=one,
                end_offset=ends[partition].offset if partition in ends else None,
            )
            for partition, one in sorted(committed.items())
        }

    async def alter_group_offsets(
        self,
        group_id: str,
        offsets: Mapping[Partition, int | OffsetAndMetadata],
        *,
        timeout_ms: int | None = None,
    ) -> None:
        """Set the offsets of a group that has no members; raises UnknownMemberId where it has."""
        calls = GroupCalls(self._cluster, group_id)
        named = {
            TopicPartition(*partition): (
                one if isinstance(one, OffsetAndMetadata) else OffsetAndMetadata(one)
            )
            for partition, one in offsets.items()
        }

        async def attempt() -> None:
            refused = await calls.commit(named, MemberIdentity())
            for partition, error in refused.items():
                raise type(error)(
                    f"setting the offset of group {group_id!r} in {partition}: "
                    f"{error.kafka_name}: {error}"
                )

        await self._repeat(attempt, f"setting offsets of group {group_id!r}", timeout_ms)

    async def delete_group_offsets(
        self, group_id: str, partitions: Iterable[Partition], *, timeout_ms: int | None = None
    ) -> None:
        """Forget the offsets of topics that no member of the group subscribes to."""
        by_topic: dict[str, list[OffsetDeleteRequestPartition]] = defaultdict(list)
        for topic, number in partitions:
            by_topic[topic].append(OffsetDeleteRequestPartition(partition_index=number))
        response = await self._on_coordinator(
            group_id,
            OffsetDeleteRequest(
                group_id=group_id,
                topics=[
                    OffsetDeleteRequestTopic(name=topic, partitions=numbers)
                    for topic, numbers in by_topic.items()
                ],
            ),
            OffsetDeleteResponse,
            lambda response: response.error_code,
            f"deleting offsets of group {group_id!r}",
            timeout_ms,
        )
        for topic_answer in response.topics:
            for one in topic_answer.partitions:
                partition = TopicPartition(topic_answer.name, one.partition_index)
                check(one.error_code, f"deleting the offset of group {group_id!r} in {partition}")


def _of_consumer_protocol(group: ConsumerGroupDescribeResponseGroup) -> GroupDescription:
    return GroupDescription(
        group_id=group.group_id,
        group_type="consumer",
        state=group.group_state,
        protocol_type=PROTOCOL_TYPE,
        assignor=group.assignor_name,
        members=tuple(
            MemberDescription(
                member_id=one.member_id,
                instance_id=one.instance_id,
                client_id=one.client_id,
                client_host=one.client_host,
                topics=frozenset(one.subscribed_topic_names),
                assignment=frozenset(
                    TopicPartition(topic.topic_name, number)
                    for topic in one.assignment.topic_partitions
                    for number in topic.partitions
                ),
            )
            for one in group.members
        ),
    )


def _of_classic_protocol(group: DescribeGroupsResponseGroup) -> GroupDescription:
    is_consumers = group.protocol_type == PROTOCOL_TYPE
    return GroupDescription(
        group_id=group.group_id,
        group_type="classic",
        state=group.group_state,
        protocol_type=group.protocol_type,
        assignor=group.protocol_data,
        members=tuple(_classic_member(one, is_consumers=is_consumers) for one in group.members),
    )


def _classic_member(one: DescribeGroupsResponseMember, *, is_consumers: bool) -> MemberDescription:
    """A member; what it subscribes to is empty where it speaks another language than consumers."""
    topics: frozenset[str] = frozenset()
    assignment: frozenset[TopicPartition] = frozenset()
    if is_consumers:
        try:
            topics = read_member_metadata(one.member_metadata).topics
            assignment = read_member_assignment(one.member_assignment)
        except ProtocolViolation:
            pass
    return MemberDescription(
        member_id=one.member_id,
        instance_id=one.group_instance_id,
        client_id=one.client_id,
        client_host=one.client_host,
        topics=topics,
        assignment=assignment,
    )
