"""A bare connection that sends what it is told, with kafka-python's independent codec."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, Self

from kafka.protocol.producer import ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.message import Message

TIMEOUT_S = 30.0
CRC_POSITION, ATTRIBUTES_POSITION = 17, 21


class RawConnection:
    """A blocking socket that speaks frames; every wait has a limit.

    With `group` it is to the broker that coordinates that group.
    """

    def __init__(self, broker: BrokerProcess, *, group: str | None = None) -> None:
        address = broker.endpoint if group is None else broker.coordinator_of(group)
        self.socket = socket.create_connection(address, TIMEOUT_S)
        self._correlation_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_frame(self, body: bytes) -> None:
        self.send(struct.pack(">i", len(body)) + body)

    def send_request(self, request: Any, version: int) -> int:
        """Send a request of kafka-python's protocol classes; its correlation id."""
        self._correlation_id += 1
        request.API_VERSION = version
        request.with_header(self._correlation_id, "raw")
        self.send(bytes(request.encode(header=True, framed=True)))
        return self._correlation_id

    def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            assert chunk, f"the connection ended after {len(data)} of {count} bytes"
            data += chunk
        return bytes(data)

    def read_frame(self) -> bytes:
        (length,) = struct.unpack(">i", self.read_exactly(4))
        return self.read_exactly(length)

    def read_response(self, response_class: Any, version: int) -> Any:
        """Read the next response; it has to answer the last request sent."""
        frame = self.read_frame()
        response = response_class.decode(frame, version=version, header=True)
        assert response.header.correlation_id == self._correlation_id
        return response

    def call(self, request: Any, response_class: Any, version: int) -> Any:
        self.send_request(request, version)
        return self.read_response(response_class, version)

    def is_closed_by_peer(self) -> bool:
        """Wait for what the broker does next: True if it closes the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def batch(
    messages: Sequence[Message],
    *,
    codec: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> bytearray:
    """A v2 batch of `messages`, built by kafka-python."""
    builder = DefaultRecordBatchBuilder(
        2,
        codec,
        is_transactional=False,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        batch_size=1 << 30,
    )
    for number, message in enumerate(messages):
        timestamp_ms = message.timestamp_ms or 0
        metadata = builder.append(
            number, timestamp_ms, message.key, message.value, list(message.headers)
        )
        assert metadata is not None
    return bytearray(builder.build())


def with_crc(data: bytearray) -> bytearray:
    """The batch with its CRC computed anew, after a test has changed it."""
    from kafka.record.util import calc_crc32c

    struct.pack_into(">I", data, CRC_POSITION, calc_crc32c(data[ATTRIBUTES_POSITION:]))
    return data


def produce_request(
    topic: str, records: bytes | None, *, acks: int = -1, partition: int = 0
) -> ProduceRequest:
    """A request to produce `records`, whatever they are."""
    topic_data = ProduceRequest.TopicProduceData
    return ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=10_000,
        topic_data=[
            topic_data(
                name=topic,
                partition_data=[
                    topic_data.PartitionProduceData(
                        index=partition, records=None if records is None else bytes(records)
                    )
                ],
            )
        ],
    )
