"""The controller is killed in the middle of what it does; the next one finishes it."""

from __future__ import annotations

import confluent_kafka
import pytest

from tests.cluster.harness import Cluster
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsRequestPartition,
    AlterPartitionReassignmentsRequestTopic,
)

PARTITIONS = 12
RECORDS = 3_000


def produce(cluster: Cluster, topic: str) -> None:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": cluster.bootstrap, "acks": "all", "enable.idempotence": True}
    )
    for number in range(RECORDS):
        producer.produce(topic, f"{number:05}" * 100, partition=number % PARTITIONS)
        producer.poll(0)
    assert producer.flush(60) == 0


def count(cluster: Cluster, topic: str) -> int:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, one, 0) for one in range(PARTITIONS)])
    found: set[bytes] = set()
    ends = 0
    while ends < PARTITIONS:
        message = consumer.poll(30)
        assert message is not None, "nothing came"
        if message.error() is None:
            found.add(message.value())
        elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
            ends += 1
    consumer.close()
    return len(found)


@pytest.mark.parametrize("kills", [True, False], ids=["killed", "stopped"])
def test_moves_are_finished_by_the_next_controller(cluster: Cluster, topic: str, kills: bool):
    cluster.create(topic, PARTITIONS, replicas=2)
    produce(cluster, topic)
    dies = cluster.controller()
    stay = sorted(set(cluster.brokers) - {dies})
    message = AlterPartitionReassignmentsRequest(
        topics=[
            AlterPartitionReassignmentsRequestTopic(
                name=topic,
                partitions=[
                    AlterPartitionReassignmentsRequestPartition(
                        partition_index=number, replicas=stay
                    )
                    for number in range(PARTITIONS)
                ],
            )
        ]
    )
    with cluster.client(stay[0]) as client:  # which passes it on
        answer = client.call(ApiKey.ALTER_PARTITION_REASSIGNMENTS, message)
    assert {one.error_code for one in answer.responses[0].partitions} == {0}
    if kills:
        cluster.kill(dies)
    else:
        cluster.brokers[dies].terminate()

    def is_moved() -> bool:
        return all(
            view.replicas == tuple(stay) and view.isr == set(stay) and view.leader in stay
            for number in stay
            for view in cluster.view(topic, asked=number).partitions.values()
        )

    cluster.until(is_moved, "every partition is where it should be")
    assert cluster.controller() in stay
    assert count(cluster, topic) == RECORDS
