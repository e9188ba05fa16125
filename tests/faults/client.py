"""A blocking client that sees what the broker answers, without retries that would hide it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from trioq._native.batch import validate
from trioq.record.batch import read_records
from trioq.record.builder import NewRecord, build_batch
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import request_frame
from trioq.wire.messages.create_topics import (
    CreateTopicsRequest,
    CreateTopicsRequestConfig,
    CreateTopicsRequestTopic,
)
from trioq.wire.messages.delete_records import (
    DeleteRecordsRequest,
    DeleteRecordsRequestPartition,
    DeleteRecordsRequestTopic,
)
from trioq.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsRequestTopic
from trioq.wire.messages.fetch import FetchRequest, FetchRequestPartition, FetchRequestTopic
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
)
from trioq.wire.messages.metadata import MetadataRequest
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)

TIMEOUT_S = 30.0
VERSIONS = {
    ApiKey.CREATE_PARTITIONS: 3,
    ApiKey.INCREMENTAL_ALTER_CONFIGS: 1,
    ApiKey.PRODUCE: 9,
    ApiKey.FETCH: 11,
    ApiKey.LIST_OFFSETS: 7,
    ApiKey.METADATA: 9,
    ApiKey.CREATE_TOPICS: 5,
    ApiKey.DELETE_TOPICS: 6,
    ApiKey.ELECT_LEADERS: 2,
    ApiKey.DELETE_RECORDS: 2,
    ApiKey.API_VERSIONS: 3,
    ApiKey.FIND_COORDINATOR: 4,
    ApiKey.OFFSET_COMMIT: 8,
    ApiKey.OFFSET_FETCH: 8,
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: 0,
}


class Produced(NamedTuple):
    """The answer to one batch."""

    error_code: int
    base_offset: int


class Fetched(NamedTuple):
    """The answer for one partition; records as (offset, timestamp, value)."""

    error_code: int
    log_start_offset: int
    high_watermark: int
    records: list[tuple[int, int, bytes | None]]

    @property
    def values(self) -> list[bytes | None]:
        return [value for _, _, value in self.records]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def batch_of(
    values: Sequence[bytes],
    *,
    timestamp_ms: int | None = None,
    producer: tuple[int, int, int] | None = None,
) -> bytearray:
    """One batch; `producer` is (id, epoch, base sequence)."""
    stamp = now_ms() if timestamp_ms is None else timestamp_ms
    options = {}
    if producer is not None:
        names = ("producer_id", "producer_epoch", "base_sequence")
        options = dict(zip(names, producer, strict=True))
    return build_batch([NewRecord(stamp, None, value) for value in values], **options)


def produce_frame(
    topic: str,
    batch: bytes | bytearray,
    *,
    partition: int = 0,
    acks: int = -1,
    correlation: int = 1,
) -> bytes:
    """A whole produce request, ready to be sent."""
    message = ProduceRequest(
        acks=acks,
        timeout_ms=30_000,
        topic_data=[
            ProduceRequestTopic(
                name=topic,
                partition_data=[ProduceRequestPartition(index=partition, records=bytes(batch))],
            )
        ],
    )
    version = VERSIONS[ApiKey.PRODUCE]
    return b"".join(request_frame(ApiKey.PRODUCE, version, correlation, "faults", message))


def fetch_message(
    topic: str, offset: int, *, partition: int = 0, max_bytes: int = 1 << 20, max_wait_ms: int = 0
) -> FetchRequest:
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        topics=[
            FetchRequestTopic(
                topic=topic,
                partitions=[
                    FetchRequestPartition(
                        partition=partition, fetch_offset=offset, partition_max_bytes=max_bytes
                    )
                ],
            )
        ],
    )


def decoded(
    data: bytes | bytearray | memoryview, first: int
) -> list[tuple[int, int, bytes | None]]:
    """Every record from offset `first` on of whole batches, whose CRCs have to be right."""
    found = []
    position = 0
    while position < len(data):
        header = validate(data, position)
        end = position + header.size_bytes
        found += [
            (one.offset, one.timestamp, one.value)
            for one in read_records(data[position:end])
            if one.offset >= first
        ]
        position = end
    return found


class Client:
    """One connection. Every wait has a limit."""

    def __init__(self, address: tuple[str, int], *, timeout_s: float = TIMEOUT_S) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def read_frame(self) -> bytes:
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        got = 0
        while got < count:
            size = self.socket.recv_into(view[got:])
            if not size:
                raise ConnectionError(f"the connection ended after {got} of {count} bytes")
            got += size
        return bytes(data)

    def send(self, key: ApiKey, message: Any) -> int:
        """Send a request; returns its correlation id."""
        self._correlation_id += 1
        parts = request_frame(key, VERSIONS[key], self._correlation_id, "faults", message)
        self.socket.sendall(b"".join(parts))
        return self._correlation_id

    def receive(self, key: ApiKey, correlation_id: int) -> Any:
        frame = self.read_frame()
        assert struct.unpack_from(">i", frame)[0] == correlation_id
        version = VERSIONS[key]
        api = APIS[key]
        start = 5 if api.is_flexible(version) and key != ApiKey.API_VERSIONS else 4
        return api.response_class.decode(memoryview(frame), start, len(frame), version)

    def call(self, key: ApiKey, message: Any) -> Any:
        return self.receive(key, self.send(key, message))

    # ---- what tests do

    def create(self, topic: str, partitions: int = 1, **config: str) -> None:
        configs = [
            CreateTopicsRequestConfig(name=name.replace("_", "."), value=value)
            for name, value in config.items()
        ]
        message = CreateTopicsRequest(
            topics=[
                CreateTopicsRequestTopic(
                    name=topic, num_partitions=partitions, replication_factor=1, configs=configs
                )
            ]
        )
        (answer,) = self.call(ApiKey.CREATE_TOPICS, message).topics
        assert answer.error_code == 0, answer

    def delete(self, topic: str) -> int:
        message = DeleteTopicsRequest(
            topics=[DeleteTopicsRequestTopic(name=topic)], timeout_ms=10_000
        )
        (answer,) = self.call(ApiKey.DELETE_TOPICS, message).responses
        return answer.error_code

    def topics(self) -> set[str]:
        answer = self.call(ApiKey.METADATA, MetadataRequest(topics=None))
        return {topic.name for topic in answer.topics}

    def produce(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        partition: int = 0,
        acks: int = -1,
        **options: Any,
    ) -> Produced:
        return self.produce_batch(
            topic, batch_of(values, **options), partition=partition, acks=acks
        )

    def produce_batch(
        self, topic: str, batch: bytes | bytearray, *, partition: int = 0, acks: int = -1
    ) -> Produced:
        self._correlation_id += 1
        frame = produce_frame(
            topic, batch, partition=partition, acks=acks, correlation=self._correlation_id
        )
        self.socket.sendall(frame)
        return self.produced(self._correlation_id)

    def produced(self, correlation_id: int) -> Produced:
        answer = self.receive(ApiKey.PRODUCE, correlation_id)
        (partition,) = answer.responses[0].partition_responses
        return Produced(partition.error_code, partition.base_offset)

    def fetch(self, topic: str, offset: int, *, partition: int = 0, **options: Any) -> Fetched:
        message = fetch_message(topic, offset, partition=partition, **options)
        answer = self.call(ApiKey.FETCH, message)
        (found,) = answer.responses[0].partitions
        records = decoded(found.records or b"", offset)
        return Fetched(found.error_code, found.log_start_offset, found.high_watermark, records)

    def fetch_all(self, topic: str, offset: int = 0, *, partition: int = 0) -> Fetched:
        """All records from `offset` on, in order, contiguous from one answer to the next."""
        records: list[tuple[int, int, bytes | None]] = []
        while True:
            found = self.fetch(topic, offset, partition=partition)
            if found.error_code or not found.records:
                return found._replace(records=records)
            records += found.records
            offset = found.records[-1][0] + 1

    def offset(self, topic: str, timestamp: int, *, partition: int = 0) -> tuple[int, int]:
        """(error code, offset) of ListOffsets: -1 latest, -2 earliest, or a timestamp."""
        message = ListOffsetsRequest(
            replica_id=-1,
            topics=[
                ListOffsetsRequestTopic(
                    name=topic,
                    partitions=[
                        ListOffsetsRequestPartition(partition_index=partition, timestamp=timestamp)
                    ],
                )
            ],
        )
        (found,) = self.call(ApiKey.LIST_OFFSETS, message).topics[0].partitions
        return found.error_code, found.offset

    def delete_records(self, topic: str, offset: int, *, partition: int = 0) -> tuple[int, int]:
        """(error code, log start offset)."""
        message = DeleteRecordsRequest(
            topics=[
                DeleteRecordsRequestTopic(
                    name=topic,
                    partitions=[
                        DeleteRecordsRequestPartition(partition_index=partition, offset=offset)
                    ],
                )
            ],
            timeout_ms=10_000,
        )
        (found,) = self.call(ApiKey.DELETE_RECORDS, message).topics[0].partitions
        return found.error_code, found.low_watermark
