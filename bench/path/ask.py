"""One request at a time to any broker, in versions that all of them know; for preparing runs."""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType
from typing import Self, TypeVar

from bench.errors import BenchError
from bench.path.frames import FETCH_VERSION, request_frame
from bench.path.process import BrokerProcess
from trioq.errors import ProtocolViolation
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestTopic,
    CreateTopicsResponse,
)
from trioq.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from trioq.wire.messages.fetch import FetchRequest, FetchResponse
from trioq.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
    ListOffsetsResponse,
)
from trioq.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from trioq.wire.schema import Message

TIMEOUT_S = 60.0
COORDINATOR_LOAD_IN_PROGRESS = 14
TOPIC_ALREADY_EXISTS = 36
LATEST = -1

VERSIONS = {
    ApiKey.FETCH: FETCH_VERSION,
    ApiKey.LIST_OFFSETS: 1,
    ApiKey.METADATA: 4,
    ApiKey.PRODUCE: 7,
    ApiKey.CREATE_TOPICS: 4,
    ApiKey.DELETE_TOPICS: 3,
    ApiKey.INIT_PRODUCER_ID: 1,
    ApiKey.JOIN_GROUP: 2,
    ApiKey.SYNC_GROUP: 1,
}
"""The last versions before flexible ones, whose headers differ, or older where peers need it."""

Response = TypeVar("Response", bound=Message)


class Asker:
    """A blocking connection; what goes wrong on it is a BenchError. Use it in a `with`."""

    def __init__(self, broker: BrokerProcess) -> None:
        try:
            self._socket = socket.create_connection((broker.host, broker.port), TIMEOUT_S)
        except OSError as error:
            raise BenchError(f"no broker at {broker.host}:{broker.port}: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, key: ApiKey, request: Message, response_class: type[Response]) -> Response:
        """Send `request` and wait for its response."""
        self.send(key, request)
        return self.receive(key, response_class)

    def send(self, key: ApiKey, request: Message) -> None:
        """Send `request`; `receive` its response, in the order of what was sent."""
        version = VERSIONS[key]
        try:
            self._socket.sendall(request_frame(key, version, request.encode(version)))
        except OSError as error:
            raise BenchError(f"{key.name} version {version} cannot be sent: {error}") from error

    def receive(self, key: ApiKey, response_class: type[Response]) -> Response:
        """Wait for the next response, which is one to `key`."""
        version = VERSIONS[key]
        try:
            (length,) = struct.unpack(">i", self._received(4))
            body = memoryview(self._received(length))
            return response_class.decode(body, 4, len(body), version)
        except (OSError, ProtocolViolation, struct.error) as error:
            raise BenchError(f"{key.name} version {version} was not answered: {error}") from error

    def _received(self, length: int) -> bytes:
        received = bytearray(length)
        view, at = memoryview(received), 0
        while at < length:
            n = self._socket.recv_into(view[at:])
            if not n:
                raise BenchError("the broker closed the connection")
            at += n
        return bytes(received)

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic where that can be asked for, and wait until every partition is led."""
        topic = CreateTopicsRequestTopic(name=name, num_partitions=partitions, replication_factor=1)
        request = CreateTopicsRequest(topics=[topic], timeout_ms=30_000)
        response = self.ask(ApiKey.CREATE_TOPICS, request, CreateTopicsResponse)
        code = response.topics[0].error_code
        if code not in {0, TOPIC_ALREADY_EXISTS}:
            raise BenchError(f"the topic cannot be created: error {code}")
        self.wait_for_topic(name, partitions)

    def wait_for_topic(self, name: str, partitions: int) -> None:
        """Ask for a topic, which creates it where there is no other way, until it is led."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            asked = MetadataRequest(
                topics=[MetadataRequestTopic(name=name)], allow_auto_topic_creation=True
            )
            response = self.ask(ApiKey.METADATA, asked, MetadataResponse)
            led = [one.leader_id >= 0 for one in response.topics[0].partitions]
            if len(led) >= partitions and all(led):
                return
            time.sleep(0.02)
        raise BenchError(f"{name} has no leaders for {partitions} partitions")

    def wait_until_served(self, name: str, partitions: int) -> None:
        """Wait until the broker does not only know its partitions, but answers for each."""
        asked = [
            ListOffsetsRequestPartition(partition_index=number, timestamp=LATEST)
            for number in range(partitions)
        ]
        request = ListOffsetsRequest(
            replica_id=-1, topics=[ListOffsetsRequestTopic(name=name, partitions=asked)]
        )
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            response = self.ask(ApiKey.LIST_OFFSETS, request, ListOffsetsResponse)
            if not any(one.error_code for one in response.topics[0].partitions):
                return
            time.sleep(0.02)
        raise BenchError(f"{name} is led, but not served")

    def delete_topic(self, name: str) -> None:
        """Delete a topic; that it is not there is fine."""
        request = DeleteTopicsRequest(topic_names=[name], timeout_ms=30_000)
        self.ask(ApiKey.DELETE_TOPICS, request, DeleteTopicsResponse)

    def producer_ids(self, count: int) -> list[int]:
        """New producer ids of epoch 0."""
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        ids = []
        for _ in range(count):
            end = time.monotonic() + TIMEOUT_S
            response = self.ask(ApiKey.INIT_PRODUCER_ID, request, InitProducerIdResponse)
            while response.error_code == COORDINATOR_LOAD_IN_PROGRESS and time.monotonic() < end:
                time.sleep(0.1)
                response = self.ask(ApiKey.INIT_PRODUCER_ID, request, InitProducerIdResponse)
            if response.error_code or response.producer_id < 0:
                raise BenchError(f"no producer id: error {response.error_code}")
            ids.append(response.producer_id)
        return ids

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset behind the last record that can be read."""
        asked = ListOffsetsRequestTopic(
            name=topic,
            partitions=[ListOffsetsRequestPartition(partition_index=partition, timestamp=LATEST)],
        )
        request = ListOffsetsRequest(replica_id=-1, topics=[asked])
        response = self.ask(ApiKey.LIST_OFFSETS, request, ListOffsetsResponse)
        found = response.topics[0].partitions[0]
        if found.error_code:
            raise BenchError(f"no end offset of partition {partition}: error {found.error_code}")
        return found.offset

    def fetch(self, request: FetchRequest) -> FetchResponse:
        """One fetch."""
        return self.ask(ApiKey.FETCH, request, FetchResponse)
