"""ControlledShutdown by hand, from Kafka 3.9's definition: kio knows Kafka 4, which has none."""

from __future__ import annotations

import pytest

from trioq.wire.messages.controlled_shutdown import (
    ControlledShutdownRequest,
    ControlledShutdownResponse,
    ControlledShutdownResponsePartition,
)

REQUESTS = {
    0: bytes.fromhex("00000003"),
    1: bytes.fromhex("00000003"),
    2: bytes.fromhex("00000003 0000000000000007"),
    3: bytes.fromhex("00000003 0000000000000007 00"),
}
RESPONSES = {
    0: bytes.fromhex("004d 00000001 0001 74 00000005"),
    1: bytes.fromhex("004d 00000001 0001 74 00000005"),
    2: bytes.fromhex("004d 00000001 0001 74 00000005"),
    3: bytes.fromhex("004d 02 02 74 00000005 00 00"),
}


@pytest.mark.parametrize("version", range(4))
def test_the_bytes_of_each_version(version):
    request = ControlledShutdownRequest(broker_id=3, broker_epoch=7)
    assert request.encode(version) == REQUESTS[version]
    decoded = ControlledShutdownRequest.decode(
        memoryview(REQUESTS[version]), 0, len(REQUESTS[version]), version
    )
    assert decoded.broker_id == 3
    assert decoded.broker_epoch == (7 if version >= 2 else -1)

    response = ControlledShutdownResponse(
        error_code=77,
        remaining_partitions=[
            ControlledShutdownResponsePartition(topic_name="t", partition_index=5)
        ],
    )
    assert response.encode(version) == RESPONSES[version]
    data = RESPONSES[version]
    assert ControlledShutdownResponse.decode(memoryview(data), 0, len(data), version) == response
