"""Brokers as members of a cluster: whom they answer for, and when they have to go."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.harness import SESSION_TIMEOUT_S, Cluster
from trioq.storage.log_dir_files import CLEAN_SHUTDOWN_FILE
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsRequestTopic,
)
from trioq.wire.messages.create_topics import CreateTopicsRequest, CreateTopicsRequestTopic
from trioq.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsRequestTopic
from trioq.wire.messages.incremental_alter_configs import (
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsRequestConfig,
    IncrementalAlterConfigsRequestResource,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

TOPIC_RESOURCE = 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_broker_takes_changes_and_shows_them_at_once(cluster: Cluster, topic: str, number: int):
    cluster.controller()
    with cluster.client(number, timeout_s=30) as client:
        new = CreateTopicsRequestTopic(name=topic, num_partitions=2, replication_factor=3)
        (made,) = client.call(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=[new])).topics
        assert (made.error_code, made.num_partitions) == (0, 2)
        assert len(cluster.view(topic, asked=number).partitions) == 2
        grown = CreatePartitionsRequest(
            topics=[CreatePartitionsRequestTopic(name=topic, count=3, assignments=None)],
            timeout_ms=10_000,
        )
        assert client.call(ApiKey.CREATE_PARTITIONS, grown).results[0].error_code == 0
        assert len(cluster.view(topic, asked=number).partitions) == 3
        changed = IncrementalAlterConfigsRequest(
            resources=[
                IncrementalAlterConfigsRequestResource(
                    resource_type=TOPIC_RESOURCE,
                    resource_name=topic,
                    configs=[IncrementalAlterConfigsRequestConfig(name="retention.ms", value="7")],
                )
            ]
        )
        answer = client.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, changed)
        assert answer.responses[0].error_code == 0
        gone = DeleteTopicsRequest(topics=[DeleteTopicsRequestTopic(name=topic)], timeout_ms=10_000)
        assert client.call(ApiKey.DELETE_TOPICS, gone).responses[0].error_code == 0
        assert not cluster.view(topic, asked=number).partitions


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_broker_creates_topics_on_first_use(cluster: Cluster, topic: str, number: int):
    cluster.controller()
    with cluster.client(number, timeout_s=30) as client:
        asked = MetadataRequest(
            topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=True
        )
        (found,) = client.call(ApiKey.METADATA, asked).topics
    assert found.error_code == 0
    assert sorted(found.partitions[0].replica_nodes) == [1, 2, 3]


def test_brokers_that_are_all_stopped_at_once_wait_for_nobody(cluster: Cluster, topic: str):
    cluster.create(topic, 6)
    cluster.until_whole(topic, 6)
    brokers = list(cluster.brokers.values())
    lines = [len(broker.log_lines()) for broker in brokers]
    for broker in brokers:
        broker.signal(signal.SIGTERM)
    assert [broker.wait() for broker in brokers] == [0] * len(brokers)
    for broker, before in zip(brokers, lines, strict=True):
        told = [str(line.get("event")) for line in broker.log_lines()[before:]]
        assert "stopping" in told
        assert not [one for one in told if "not handed over" in one]
    cluster.mend()
    cluster.until_whole(topic, 6)


def test_a_broker_whose_id_was_taken_while_it_slept_stops_in_order(cluster: Cluster):
    sleeper = cluster.brokers[2]
    sleeper.pause()
    cluster.until(
        lambda: cluster.view(asked=1).brokers == {1, 3},
        "the session of broker 2 has ended",
        patience_s=10 * SESSION_TIMEOUT_S,
    )
    twin = cluster.twin(2)
    twin.start()
    try:
        sleeper.resume()
        assert sleeper.wait() == 1
        assert "broker id 2 was registered by another process" in sleeper.log_text()
        assert (sleeper.data_dir / CLEAN_SHUTDOWN_FILE).exists()
    finally:
        twin.terminate()
