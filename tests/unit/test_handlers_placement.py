"""Handlers about who leads and who holds partitions: what they ask, and what they answer."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.unit.test_handlers_admin_writes import Recorder, answered
from trioq.controller.partition_admin import PartitionResult, Reassignment
from trioq.errors import (
    ElectionNotNeeded,
    KafkaError,
    NoReassignmentInProgress,
    NotController,
    StaleBrokerEpoch,
)
from trioq.metastore.image import ClusterImage, TopicImage
from trioq.metastore.layout import PartitionState
from trioq.server.handlers.alter_partition_reassignments import (
    handle_alter_partition_reassignments,
)
from trioq.server.handlers.controlled_shutdown import handle_controlled_shutdown
from trioq.server.handlers.elect_leaders import handle_elect_leaders
from trioq.server.handlers.list_partition_reassignments import (
    handle_list_partition_reassignments,
)
from trioq.types import TopicPartition
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsRequestPartition,
    AlterPartitionReassignmentsRequestTopic,
)
from trioq.wire.messages.controlled_shutdown import ControlledShutdownRequest
from trioq.wire.messages.elect_leaders import ElectLeadersRequest, ElectLeadersRequestTopic
from trioq.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsRequestTopic,
)

HERE, THERE = TopicPartition("a", 0), TopicPartition("b", 3)


class NoController:
    """Stands for the administration of a broker that finds no controller."""

    async def elect_leaders(self, *_: Any, **__: Any) -> None:
        raise NotController

    alter_reassignments = elect_leaders


class Candidate:
    """Stands for the controller: hands over all but one partition, or refuses."""

    def __init__(self, refusal: KafkaError | None = None) -> None:
        self.refusal = refusal
        self.asked: tuple[int, int] | None = None

    async def hand_over(self, broker_id: int, broker_epoch: int) -> list[TopicPartition]:
        self.asked = broker_id, broker_epoch
        if self.refusal is not None:
            raise self.refusal
        return [THERE]


def elect(version: int, kind: int, *partitions: TopicPartition) -> ElectLeadersRequest:
    return ElectLeadersRequest(
        election_type=kind if version >= 1 else 0,
        topic_partitions=[
            ElectLeadersRequestTopic(topic=topic, partitions=[number])
            for topic, number in partitions
        ],
        timeout_ms=2_000,
    )


@pytest.mark.parametrize("version", range(3))
def test_elections(version: int) -> None:
    admin = Recorder([PartitionResult(HERE), PartitionResult(THERE, ElectionNotNeeded("so"))])
    answer = answered(
        handle_elect_leaders, elect(version, 1, HERE, THERE), version, topic_admin=admin
    )
    assert admin.asked == [HERE, THERE]
    assert admin.options == {"unclean": version >= 1, "timeout_s": 2.0}
    assert answer.error_code == 0
    told = {
        (topic.topic, one.partition_id): (one.error_code, one.error_message)
        for topic in answer.replica_election_results
        for one in topic.partition_result
    }
    assert told == {HERE: (0, None), THERE: (84, "so")}


def test_of_all_partitions_only_those_elected_are_told() -> None:
    class All(Recorder):
        async def elect_leaders(self, asked: Any, **options: Any) -> Any:
            assert asked is None
            return self.answers

    admin = All([PartitionResult(HERE), PartitionResult(THERE, ElectionNotNeeded("so"))])
    message = ElectLeadersRequest(topic_partitions=None)
    answer = answered(handle_elect_leaders, message, 2, topic_admin=admin)
    assert [topic.topic for topic in answer.replica_election_results] == ["a"]


@pytest.mark.parametrize("version", range(3))
def test_an_election_without_a_controller(version: int) -> None:
    answer = answered(
        handle_elect_leaders, elect(version, 0, HERE), version, topic_admin=NoController()
    )
    assert answer.error_code == (41 if version >= 1 else 0)
    assert answer.replica_election_results[0].partition_result[0].error_code == 41


def test_an_unknown_kind_of_election() -> None:
    answer = answered(handle_elect_leaders, elect(2, 7, HERE), 2, topic_admin=Recorder())
    assert answer.error_code == 42


def test_moves() -> None:
    admin = Recorder([PartitionResult(HERE), PartitionResult(THERE, NoReassignmentInProgress("n"))])
    message = AlterPartitionReassignmentsRequest(
        topics=[
            AlterPartitionReassignmentsRequestTopic(
                name=topic,
                partitions=[
                    AlterPartitionReassignmentsRequestPartition(
                        partition_index=number, replicas=replicas
                    )
                ],
            )
            for (topic, number), replicas in ((HERE, [3, 1]), (THERE, None))
        ]
    )
    answer = answered(handle_alter_partition_reassignments, message, 0, topic_admin=admin)
    assert admin.asked == [Reassignment(HERE, (3, 1)), Reassignment(THERE, None)]
    assert admin.options == {"timeout_s": 60.0}
    assert (answer.error_code, answer.error_message) == (0, None)
    told = {
        (topic.name, one.partition_index): (one.error_code, one.error_message)
        for topic in answer.responses
        for one in topic.partitions
    }
    assert told == {HERE: (0, None), THERE: (85, "n")}
    refused = answered(handle_alter_partition_reassignments, message, 0, topic_admin=NoController())
    assert refused.error_code == 41


def test_moves_under_way_are_listed() -> None:
    still = PartitionState(1, 0, (1,), (0,), (1,))
    moving = still._replace(replicas=(2, 1), adding=(2,), removing=(1,))
    topic = TopicImage("a", uuid.UUID(int=500), (moving, still, moving), {}, 0)
    image = ClusterImage(topics={"a": topic}, topics_by_id={topic.topic_id: topic})

    def listed(*asked: tuple[str, list[int]] | None) -> dict[tuple[str, int], tuple[Any, ...]]:
        topics = [
            ListPartitionReassignmentsRequestTopic(name=name, partition_indexes=numbers)
            for name, numbers in filter(None, asked)
        ]
        message = ListPartitionReassignmentsRequest(topics=None if asked == (None,) else topics)
        answer = answered(handle_list_partition_reassignments, message, 0, image=image)
        return {
            (topic.name, one.partition_index): (
                one.replicas,
                one.adding_replicas,
                one.removing_replicas,
            )
            for topic in answer.topics
            for one in topic.partitions
        }

    assert listed(None) == {("a", 0): ([2, 1], [2], [1]), ("a", 2): ([2, 1], [2], [1])}
    assert listed(("a", [1, 2, 9]), ("none", [0])) == {("a", 2): ([2, 1], [2], [1])}
    assert listed() == {}


@pytest.mark.parametrize("version", range(4))
def test_a_broker_that_stops_is_told_what_it_still_leads(version: int) -> None:
    message = ControlledShutdownRequest(broker_id=3, broker_epoch=7)
    candidate = Candidate()
    answer = answered(handle_controlled_shutdown, message, version, controller=candidate)
    assert candidate.asked == (3, 7 if version >= 2 else -1)
    assert answer.error_code == 0
    assert [(one.topic_name, one.partition_index) for one in answer.remaining_partitions] == [THERE]
    stale = Candidate(StaleBrokerEpoch())
    answer = answered(handle_controlled_shutdown, message, version, controller=stale)
    assert (answer.error_code, answer.remaining_partitions) == (77, [])
    answer = answered(handle_controlled_shutdown, message, version, controller=None)
    assert answer.error_code == 41
