"""Produce 0 to 2, which kio does not have: bytes put down by hand from Kafka's definition."""

from __future__ import annotations

import pytest

from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
    ProduceResponsePartition,
    ProduceResponseTopic,
)

REQUEST = bytes.fromhex(
    "ffff"  # acks
    "00000064"  # timeout_ms
    "00000001" "0001" "74"  # one topic, "t"
    "00000001" "00000002"  # one partition, 2
    "00000003" "616263"  # records
)  # fmt: skip
TOPIC = "00000001000174"
PARTITION = "00000001000000020023ffffffffffffffff"
RESPONSES = {
    0: TOPIC + PARTITION,
    1: TOPIC + PARTITION + "00000000",
    2: TOPIC + PARTITION + "ffffffffffffffff" + "00000000",
}


@pytest.mark.parametrize("version", RESPONSES)
def test_old_versions(version: int) -> None:
    view = memoryview(REQUEST)
    request = ProduceRequest.decode(view, 0, len(view), version)
    (topic,) = request.topic_data
    (data,) = topic.partition_data
    assert (request.acks, request.timeout_ms, topic.name, data.index) == (-1, 100, "t", 2)
    assert bytes(data.records) == b"abc"
    again = ProduceRequest(
        acks=-1,
        timeout_ms=100,
        topic_data=[
            ProduceRequestTopic(
                name="t", partition_data=[ProduceRequestPartition(index=2, records=b"abc")]
            )
        ],
    )
    assert again.encode(version) == REQUEST
    answer = ProduceResponsePartition(index=2, error_code=35, base_offset=-1)
    response = ProduceResponse(
        responses=[ProduceResponseTopic(name="t", partition_responses=[answer])]
    )
    assert response.encode(version).hex() == RESPONSES[version]
