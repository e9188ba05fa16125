"""Topics and their partitions, for `client.admin`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trioq.client.admin_call import AdminCalls, Partition, check
from trioq.client.cluster_state import PartitionInfo
from trioq.client.list_offsets import OffsetAndTimestamp, offsets_at
from trioq.client.partition_state import EARLIEST, LATEST
from trioq.errors import TopicAlreadyExists, UnknownTopicOrPartition
from trioq.types import TopicId, TopicPartition
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsRequestAssignment,
    CreatePartitionsRequestTopic,
    CreatePartitionsResponse,
)
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestAssignment,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsRequestPartition,
    DeleteRecordsRequestTopic,
    DeleteRecordsResponse,
)
from trioq.wire.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsRequestTopic,
    DeleteTopicsResponse,
)

BROKER_DEFAULT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    """A topic and where its partitions are."""

    name: str
    topic_id: TopicId
    is_internal: bool
    partitions: tuple[PartitionInfo, ...]


class TopicAdmin(AdminCalls):
    """The part of Admin for topics."""

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = BROKER_DEFAULT,
        replication_factor: int = BROKER_DEFAULT,
        configs: Mapping[str, str] | None = None,
        assignments: Mapping[int, Sequence[int]] | None = None,
        validate_only: bool = False,
        timeout_ms: int | None = None,
    ) -> None:
        """Create a topic; -1 partitions or replicas are the broker's default.

        `assignments` says which brokers have each partition, instead of the two numbers.
        Raises TopicAlreadyExists, InvalidTopicException, InvalidPartitions, PolicyViolation, ...
        """
        topic = CreateTopicsRequestTopic(
            name=name,
            num_partitions=BROKER_DEFAULT if assignments else partitions,
            replication_factor=BROKER_DEFAULT if assignments else replication_factor,
            assignments=[
                CreateTopicsRequestAssignment(partition_index=number, broker_ids=list(brokers))
                for number, brokers in (assignments or {}).items()
            ],
            configs=[
                CreateTopicsRequestConfig(name=key, value=value)
                for key, value in (configs or {}).items()
            ],
        )
        request = CreateTopicsRequest(
            topics=[topic], timeout_ms=self._server_ms(timeout_ms), validate_only=validate_only
        )

        def read(response: CreateTopicsResponse, maybe_done: bool) -> None:
            one = response.topics[0]
            if maybe_done and one.error_code == TopicAlreadyExists.code:
                return
            check(one.error_code, f"creating topic {name!r}", one.error_message)

        await self._on_controller(
            request, CreateTopicsResponse, read, f"creating topic {name!r}", timeout_ms
        )
        self._cluster.metadata.request_refresh()

    async def delete_topic(self, name: str, *, timeout_ms: int | None = None) -> None:
        """Delete a topic with all of its records; raises UnknownTopicOrPartition."""
        request = DeleteTopicsRequest(
            topics=[DeleteTopicsRequestTopic(name=name)],
            topic_names=[name],
            timeout_ms=self._server_ms(timeout_ms),
        )

        def read(response: DeleteTopicsResponse, maybe_done: bool) -> None:
            one = response.responses[0]
            if maybe_done and one.error_code == UnknownTopicOrPartition.code:
                return
            check(one.error_code, f"deleting topic {name!r}", one.error_message)

        await self._on_controller(
            request, DeleteTopicsResponse, read, f"deleting topic {name!r}", timeout_ms
        )
        self._cluster.metadata.request_refresh()

    async def list_topics(self, *, include_internal: bool = False) -> list[str]:
        """The names of all topics, in order."""
        metadata = self._cluster.metadata
        names = await metadata.all_topics()
        topics = metadata.state.topics
        return sorted(name for name in names if include_internal or not topics[name].is_internal)

    async def describe_topic(self, name: str, *, timeout_ms: int | None = None) -> TopicDescription:
        """A topic as of now; raises UnknownTopicOrPartition once it is sure that there is none."""
        metadata = self._cluster.metadata
        timeout_s = None if timeout_ms is None else timeout_ms / 1000
        await metadata.topic(name, timeout_s=timeout_s)
        await metadata.refreshed()
        info = await metadata.topic(name, timeout_s=timeout_s)
        return TopicDescription(
            name=info.name,
            topic_id=info.topic_id,
            is_internal=info.is_internal,
            partitions=info.partitions,
        )

    async def create_partitions(
        self,
        topic: str,
        total_count: int,
        *,
        assignments: Sequence[Sequence[int]] | None = None,
        validate_only: bool = False,
        timeout_ms: int | None = None,
    ) -> None:
        """Give a topic more partitions, `total_count` in all; raises InvalidPartitions, ...

        `assignments` says which brokers have each new one.
        """
        new = None
        if assignments is not None:
            new = [CreatePartitionsRequestAssignment(broker_ids=list(one)) for one in assignments]
        request = CreatePartitionsRequest(
            topics=[CreatePartitionsRequestTopic(name=topic, count=total_count, assignments=new)],
            timeout_ms=self._server_ms(timeout_ms),
            validate_only=validate_only,
        )
        what = f"adding partitions to topic {topic!r}"

        def read(response: CreatePartitionsResponse, _maybe_done: bool) -> None:
            one = response.results[0]
            check(one.error_code, what, one.error_message)

        await self._on_controller(request, CreatePartitionsResponse, read, what, timeout_ms)
        self._cluster.metadata.request_refresh()

    async def delete_records(
        self, before: Mapping[Partition, int], *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Delete the records before an offset (-1: all there are); each log's new start offset."""
        offsets = {TopicPartition(*partition): offset for partition, offset in before.items()}

        async def ask(node_id: int, asked: list[TopicPartition]) -> dict[TopicPartition, int]:
            by_topic: dict[str, list[DeleteRecordsRequestPartition]] = defaultdict(list)
            for partition in asked:
                by_topic[partition.topic].append(
                    DeleteRecordsRequestPartition(
                        partition_index=partition.partition, offset=offsets[partition]
                    )
                )
            response = await self._cluster.call(
                node_id,
                DeleteRecordsRequest(
                    topics=[
                        DeleteRecordsRequestTopic(name=topic, partitions=partitions)
                        for topic, partitions in by_topic.items()
                    ],
                    timeout_ms=self._server_ms(timeout_ms),
                ),
                DeleteRecordsResponse,
            )
            found = {}
            for topic in response.topics:
                for one in topic.partitions:
                    partition = TopicPartition(topic.name, one.partition_index)
                    check(one.error_code, f"deleting records of {partition}")
                    found[partition] = one.low_watermark
            return found

        return await self._on_leaders(list(offsets), ask, "deleting records", timeout_ms)

    async def offsets_at(
        self, timestamps: Mapping[Partition, int], *, read_committed: bool = False
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        """The first record at or after each timestamp (ms); offset -1: none is that late."""
        queries = {TopicPartition(*partition): one for partition, one in timestamps.items()}
        return await offsets_at(self._cluster, queries, read_committed=read_committed)

    async def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[TopicPartition, int]:
        """The offset of the first record of each partition."""
        found = await self.offsets_at(dict.fromkeys(partitions, EARLIEST))
        return {partition: one.offset for partition, one in found.items()}

    async def end_offsets(
        self, partitions: Iterable[Partition], *, read_committed: bool = False
    ) -> dict[TopicPartition, int]:
        """The offset behind the last record of each; read_committed: the last stable one."""
        found = await self.offsets_at(
            dict.fromkeys(partitions, LATEST), read_committed=read_committed
        )
        return {partition: one.offset for partition, one in found.items()}
