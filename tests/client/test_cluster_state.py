"""Cluster metadata: old knowledge never replaces newer."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from trioq.client.address import HostPort
from trioq.client.cluster_state import NO_NODE, ClusterState, Node
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

ID = uuid.UUID(int=1)
OTHER_ID = uuid.UUID(int=2)


def response(leaders, *, brokers=(1, 2, 3), topic_id=ID, name="t", error_code=0):
    return MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=b, host="h", port=b) for b in brokers],
        cluster_id="c",
        controller_id=1,
        topics=[
            MetadataResponseTopic(
                name=name,
                topic_id=topic_id,
                error_code=error_code,
                partitions=[
                    MetadataResponsePartition(partition_index=i, leader_id=n, leader_epoch=e)
                    for i, (n, e) in leaders.items()
                ],
            )
        ],
    )


def test_a_response_is_taken_up():
    state = ClusterState()
    state.apply(response({1: (2, 5), 0: (1, 4)}), ["t", "gone"])
    assert state.nodes[2] == Node(2, HostPort("h", 2), None)
    assert [p.leader_id for p in state.topics["t"].partitions] == [1, 2]
    assert state.topics["gone"].error_code == 3
    assert state.topic_names == {ID: "t"}
    assert state.leader("t", 1).leader_epoch == 5
    assert state.leader("t", 2) is None
    assert state.leader("u", 0) is None


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1))
def test_the_highest_epoch_wins_whatever_the_order(leaders):
    state = ClusterState()
    for pair in leaders:
        state.apply(response({0: pair}), ["t"])
    assert state.leader("t", 0).leader_epoch == max(epoch for _, epoch in leaders)


def test_another_topic_of_the_same_name_starts_anew():
    state = ClusterState()
    state.apply(response({0: (1, 9)}), ["t"])
    state.apply(response({0: (2, 0)}, topic_id=OTHER_ID), ["t"])
    assert state.leader("t", 0)[1:3] == (2, 0)
    assert state.topic_names == {OTHER_ID: "t"}


def test_a_leader_that_is_no_known_broker_is_none():
    state = ClusterState()
    state.apply(response({0: (9, 1)}), ["t"])
    assert state.leader("t", 0) is None
    assert state.topics["t"].partitions[0].leader_id == NO_NODE


def test_a_topic_without_partitions_is_unknown():
    state = ClusterState()
    state.apply(response({}), ["t"])
    assert state.topics["t"].error_code == 3


def test_topics_that_are_no_longer_there_are_unknown_after_asking_for_all():
    state = ClusterState()
    state.apply(response({0: (1, 1)}), ["t"])
    state.apply(response({0: (1, 1)}, name="u", topic_id=OTHER_ID), None)
    assert state.topics["t"].error_code == 3
    assert state.topic_names == {OTHER_ID: "u"}


def test_leaders_move_by_other_answers():
    state = ClusterState()
    state.apply(response({0: (1, 4)}), ["t"])
    assert not state.move_leader("t", 0, 2, 4, None)
    assert not state.move_leader("t", 0, 9, 5, None)
    assert state.move_leader("t", 0, 9, 5, Node(9, HostPort("n", 9), None))
    assert state.leader("t", 0)[1:3] == (9, 5)
    state.lose_leader("t", 0, 1)
    assert state.leader("t", 0) is not None
    state.lose_leader("t", 0, 9)
    assert state.leader("t", 0) is None
    state.apply(response({0: (1, 4)}), ["t"])
    assert state.leader("t", 0) is None


def test_a_topic_is_forgotten():
    state = ClusterState()
    state.apply(response({0: (1, 4)}), ["t"])
    state.forget("t")
    state.forget("t")
    assert not state.topics
    assert not state.topic_names
