"""Who leads and who holds partitions, for `client.admin` (KIP-455, KIP-460)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trioq.client.admin_call import AdminCalls, Partition, check
from trioq.errors import KafkaError, error_class
from trioq.types import TopicPartition
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsRequestPartition,
    AlterPartitionReassignmentsRequestTopic,
    AlterPartitionReassignmentsResponse,
)
from trioq.wire.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsRequestCursor,
    DescribeTopicPartitionsRequestTopic,
    DescribeTopicPartitionsResponse,
)
from trioq.wire.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersRequestTopic,
    ElectLeadersResponse,
)
from trioq.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsRequestTopic,
    ListPartitionReassignmentsResponse,
)

_PREFERRED, _UNCLEAN = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReassignment:
    """A partition whose replicas are being moved."""

    replicas: tuple[int, ...]
    """All of them at the moment; those to be kept or added come first, in order of preference."""

    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def target(self) -> tuple[int, ...]:
        """The replicas that it will have in the end."""
        return tuple(broker for broker in self.replicas if broker not in self.removing)


class PartitionAdmin(AdminCalls):
    """The part of Admin for leaders and replicas."""

    async def alter_partition_reassignments(
        self,
        targets: Mapping[Partition, Sequence[int] | None],
        *,
        timeout_ms: int | None = None,
    ) -> None:
        """Begin to move partitions to other replicas, the preferred leader first; None cancels.

        Returns when the moves have begun; `list_partition_reassignments` tells when they are over.
        Each partition is moved or refused by itself: where some are refused, the error of the
        first is raised (InvalidReplicaAssignment, NoReassignmentInProgress,
        UnknownTopicOrPartition), and the others are moved.
        """
        topics: dict[str, list[AlterPartitionReassignmentsRequestPartition]] = defaultdict(list)
        for partition, replicas in targets.items():
            place = TopicPartition(*partition)
            topics[place.topic].append(
                AlterPartitionReassignmentsRequestPartition(
                    partition_index=place.partition,
                    replicas=None if replicas is None else list(replicas),
                )
            )
        request = AlterPartitionReassignmentsRequest(
            topics=[
                AlterPartitionReassignmentsRequestTopic(name=name, partitions=partitions)
                for name, partitions in topics.items()
            ],
            timeout_ms=self._server_ms(timeout_ms),
        )
        what = f"moving {len(targets)} partitions"

        def read(response: AlterPartitionReassignmentsResponse, _maybe_done: bool) -> None:
            check(response.error_code, what, response.error_message)
            refused = [
                (TopicPartition(topic.name, one.partition_index), one)
                for topic in response.responses
                for one in topic.partitions
                if one.error_code
            ]
            for partition, one in refused:
                more = f" ({len(refused)} of {len(targets)} are refused)" if refused[1:] else ""
                check(one.error_code, f"moving {partition}{more}", one.error_message)

        await self._on_controller(
            request, AlterPartitionReassignmentsResponse, read, what, timeout_ms
        )
        self._cluster.metadata.request_refresh()

    async def list_partition_reassignments(
        self, partitions: Iterable[Partition] | None = None, *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, PartitionReassignment]:
        """Those of `partitions`, or of all, that are being moved."""
        topics: dict[str, list[int]] = defaultdict(list)
        for partition in partitions or ():
            place = TopicPartition(*partition)
            topics[place.topic].append(place.partition)
        asked = [
            ListPartitionReassignmentsRequestTopic(name=name, partition_indexes=numbers)
            for name, numbers in topics.items()
        ]
        request = ListPartitionReassignmentsRequest(
            topics=None if partitions is None else asked, timeout_ms=self._server_ms(timeout_ms)
        )
        what = "listing the partitions that are being moved"

        def read(
            response: ListPartitionReassignmentsResponse, _maybe_done: bool
        ) -> dict[TopicPartition, PartitionReassignment]:
            check(response.error_code, what, response.error_message)
            return {
                TopicPartition(topic.name, one.partition_index): PartitionReassignment(
                    replicas=tuple(one.replicas),
                    adding=tuple(one.adding_replicas),
                    removing=tuple(one.removing_replicas),
                )
                for topic in response.topics
                for one in topic.partitions
            }

        return await self._on_controller(
            request, ListPartitionReassignmentsResponse, read, what, timeout_ms
        )

    async def eligible_leaders(
        self, topics: Iterable[str], *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, tuple[int, ...]]:
        """Replicas outside of the ISR that could lead without loss (KIP-966), where there are any.

        Raises UnknownTopicOrPartition.
        """
        asked = [DescribeTopicPartitionsRequestTopic(name=name) for name in sorted(topics)]
        found: dict[TopicPartition, tuple[int, ...]] = {}
        cursor: DescribeTopicPartitionsRequestCursor | None = None
        while asked:
            what = "asking for eligible leaders"
            request = DescribeTopicPartitionsRequest(topics=asked, cursor=cursor)
            response = await self._on_any(
                request, DescribeTopicPartitionsResponse, what, timeout_ms
            )
            for topic in response.topics:
                check(topic.error_code, f"{what} of topic {topic.name!r}")
                for one in topic.partitions:
                    if one.eligible_leader_replicas:
                        place = TopicPartition(topic.name or "", one.partition_index)
                        found[place] = tuple(one.eligible_leader_replicas)
            after = response.next_cursor
            if after is None:
                break
            cursor = DescribeTopicPartitionsRequestCursor(
                topic_name=after.topic_name, partition_index=after.partition_index
            )
            asked = [one for one in asked if one.name >= after.topic_name]
        return found

    async def elect_leaders(
        self,
        partitions: Iterable[Partition] | None = None,
        *,
        unclean: bool = False,
        timeout_ms: int | None = None,
    ) -> dict[TopicPartition, KafkaError | None]:
        """Have the preferred replicas lead `partitions`, or all; what became of each of them.

        None: it has a new leader. ElectionNotNeeded: it is led so already (those are left out
        when all are asked for). PreferredLeaderNotAvailable: its first replica is not in sync.
        With `unclean`, partitions without a leader are led by any replica that is alive, although
        records may be lost; EligibleLeadersNotAvailable where none is.
        """
        topics: dict[str, list[int]] = defaultdict(list)
        for partition in partitions or ():
            place = TopicPartition(*partition)
            topics[place.topic].append(place.partition)
        asked = [
            ElectLeadersRequestTopic(topic=name, partitions=numbers)
            for name, numbers in topics.items()
        ]
        request = ElectLeadersRequest(
            election_type=_UNCLEAN if unclean else _PREFERRED,
            topic_partitions=None if partitions is None else asked,
            timeout_ms=self._server_ms(timeout_ms),
        )
        what = "electing leaders"

        def read(
            response: ElectLeadersResponse, _maybe_done: bool
        ) -> dict[TopicPartition, KafkaError | None]:
            check(response.error_code, what)
            return {
                TopicPartition(topic.topic, one.partition_id): _error_of(
                    one.error_code, one.error_message
                )
                for topic in response.replica_election_results
                for one in topic.partition_result
            }

        found = await self._on_controller(request, ElectLeadersResponse, read, what, timeout_ms)
        self._cluster.metadata.request_refresh()
        return found


def _error_of(code: int, message: str | None) -> KafkaError | None:
    return error_class(code)(message or "") if code else None
