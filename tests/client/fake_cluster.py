"""Brokers that fail as told: real sockets and frames, logs in memory, sequences checked."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from trioq._native import batch as native
from trioq.client.apis import api_of
from trioq.record.batch import record_bytes
from trioq.wire.api_keys import APIS, ApiKey
from trioq.wire.framing import response_frame
from trioq.wire.messages.api_versions import ApiVersionsResponse, ApiVersionsResponseKey
from trioq.wire.messages.init_producer_id import InitProducerIdResponse
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from trioq.wire.messages.produce import (
    ProduceResponse,
    ProduceResponseCurrentLeader,
    ProduceResponseNodeEndpoint,
    ProduceResponsePartition,
    ProduceResponseTopic,
)
from trioq.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from trioq.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse
from trioq.wire.schema import Message

DROP = "drop the connection without a trace"
DROP_WRITTEN = "write, then drop the connection"
SILENCE = "write, never answer"

Fault = int | str | Callable[["FakeCluster", int, str, int], int | str | None] | None
"""An error code, one of the above, a function giving one of these, or None for none."""

_REQUESTS = {
    17: (SaslHandshakeRequest, SaslHandshakeResponse),
    36: (SaslAuthenticateRequest, SaslAuthenticateResponse),
}


@dataclass
class FakeLog:
    """One partition: its batches, and what it knows of producers."""

    leader: int = 1
    epoch: int = 0
    batches: list[tuple[Any, list[tuple[Any, ...]]]] = field(default_factory=list)
    producers: dict[int, tuple[int, list[tuple[int, int, int]]]] = field(default_factory=dict)
    appended: set[tuple[int, int, int, int]] = field(default_factory=set)

    @property
    def end(self) -> int:
        return sum(len(records) for _, records in self.batches)

    @property
    def values(self) -> list[bytes | None]:
        return [record[3] for _, records in self.batches for record in records]

    def append(self, data: memoryview) -> tuple[int, int]:
        """(error code, base offset)."""
        header = native.validate(data)
        if header.producer_id >= 0:
            known = self.producers.get(header.producer_id)
            last = (header.base_sequence + header.record_count - 1) & 0x7FFFFFFF
            if known is None or header.producer_epoch > known[0]:
                if known is not None and header.base_sequence != 0:
                    return 45, -1
                window: list[tuple[int, int, int]] = []
                self.producers[header.producer_id] = (header.producer_epoch, window)
            elif header.producer_epoch < known[0]:
                return 47, -1
            else:
                window = known[1]
                for first_seen, last_seen, offset in window:
                    if (first_seen, last_seen) == (header.base_sequence, last):
                        return 0, offset
                if window and header.base_sequence != (window[-1][1] + 1) & 0x7FFFFFFF:
                    mine = (header.producer_id, header.producer_epoch, header.base_sequence, last)
                    return (46 if mine in self.appended else 45), -1
            self.appended.add(
                (header.producer_id, header.producer_epoch, header.base_sequence, last)
            )
            window.append((header.base_sequence, last, self.end))
            del window[:-5]
        base = self.end
        records = native.decode_records(record_bytes(data, header), header)
        self.batches.append((header, records))
        return 0, base


class FakeCluster:
    """Nodes 1 to `nodes`, and topic "t" with `partitions` led by node 1 unless changed."""

    def __init__(self, *, nodes: int = 1, partitions: int = 1) -> None:
        self.lock = threading.RLock()
        self.logs: dict[tuple[str, int], FakeLog] = {
            ("t", number): FakeLog() for number in range(partitions)
        }
        self.faults: list[Fault] = []
        """Used up one for each batch that comes; none are left: no more faults."""
        self.names_new_leader = False
        self.max_batch_bytes = 1 << 30
        self.metadata_errors: list[int] = []
        self.producer_ids = itertools.count(1000)
        self.init_producer_id_errors: list[int] = []
        self.requests: list[tuple[int, Message]] = []
        self.refuses_in_version_0 = True
        self.api_versions: Callable[[int], Message | None] | None = None
        self.sasl: Callable[[Message], Message] | None = None
        self.throttle = threading.Event()
        self.nodes = {number: FakeNode(self, number) for number in range(1, nodes + 1)}

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes.values())

    def log(self, partition: int = 0, topic: str = "t") -> FakeLog:
        return self.logs[topic, partition]

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- answers ----------------------------------------------------------------------

    def answer(self, node: int, key: int, request: Any, version: int) -> Message | str | None:
        with self.lock:
            self.requests.append((node, request))
            if key == ApiKey.API_VERSIONS:
                return self._api_versions(version)
            if key == ApiKey.METADATA:
                return self._metadata(request)
            if key == ApiKey.PRODUCE:
                return self._produce(node, request)
            if key == ApiKey.INIT_PRODUCER_ID:
                return self._init_producer_id()
            if key in _REQUESTS and self.sasl is not None:
                return self.sasl(request)
        raise AssertionError(f"nobody expected {request}")

    def _api_versions(self, version: int) -> Message | None:
        if self.api_versions is not None:
            answer = self.api_versions(version)
            if answer is not None:
                return answer
        keys = [
            ApiVersionsResponseKey(
                api_key=api.key, min_version=api.min_version, max_version=api.max_version
            )
            for api in APIS.values()
        ]
        keys += [
            ApiVersionsResponseKey(api_key=17, min_version=0, max_version=1),
            ApiVersionsResponseKey(api_key=36, min_version=0, max_version=2),
        ]
        return ApiVersionsResponse(api_keys=keys)

    def _metadata(self, request: Any) -> Message:
        names = {name for name, _ in self.logs}
        if request.topics is not None:
            names = {topic.name for topic in request.topics}
        topics = []
        for name in sorted(names):
            logs = {p: log for (topic, p), log in self.logs.items() if topic == name}
            error = self.metadata_errors.pop(0) if self.metadata_errors else 0 if logs else 3
            topics.append(
                MetadataResponseTopic(
                    name=name,
                    error_code=error,
                    topic_id=uuid.uuid5(uuid.NAMESPACE_DNS, name),
                    partitions=[
                        MetadataResponsePartition(
                            partition_index=number,
                            leader_id=log.leader,
                            leader_epoch=log.epoch,
                            replica_nodes=list(self.nodes),
                            isr_nodes=list(self.nodes),
                        )
                        for number, log in logs.items()
                        if not error
                    ],
                )
            )
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(node_id=node.number, host="127.0.0.1", port=node.port)
                for node in self.nodes.values()
                if not node.is_closed
            ],
            cluster_id="fake",
            controller_id=1,
            topics=topics,
        )

    def _init_producer_id(self) -> Message:
        if self.init_producer_id_errors:
            return InitProducerIdResponse(error_code=self.init_producer_id_errors.pop(0))
        return InitProducerIdResponse(producer_id=next(self.producer_ids), producer_epoch=0)

    def _produce(self, node: int, request: Any) -> Message | str | None:
        topics: dict[str, list[ProduceResponsePartition]] = {}
        endpoints = []
        transport: str | None = None
        for topic in request.topic_data:
            for partition in topic.partition_data:
                fault = self.faults.pop(0) if self.faults else None
                if callable(fault):
                    fault = fault(self, node, topic.name, partition.index)
                if fault == DROP:
                    return DROP
                log = self.logs[topic.name, partition.index]
                answer = ProduceResponsePartition(index=partition.index, base_offset=-1)
                if isinstance(fault, int):
                    answer.error_code = fault
                elif log.leader != node:
                    answer.error_code = 6
                    if self.names_new_leader:
                        answer.current_leader = ProduceResponseCurrentLeader(
                            leader_id=log.leader, leader_epoch=log.epoch
                        )
                        leader = self.nodes[log.leader]
                        endpoints.append(
                            ProduceResponseNodeEndpoint(
                                node_id=log.leader, host="127.0.0.1", port=leader.port
                            )
                        )
                elif len(partition.records) > self.max_batch_bytes:
                    answer.error_code = 10
                else:
                    answer.error_code, answer.base_offset = log.append(partition.records)
                transport = fault if isinstance(fault, str) else transport
                topics.setdefault(topic.name, []).append(answer)
        if transport is not None:
            return transport
        if request.acks == 0:
            return SILENCE
        return ProduceResponse(
            responses=[
                ProduceResponseTopic(name=name, partition_responses=partitions)
                for name, partitions in topics.items()
            ],
            node_endpoints=endpoints,
        )


class FakeNode:
    """One listening socket and its connections, each served by a thread."""

    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.is_closed = False
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def drop_connections(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(prefix := stream.read(4)) == 4:
                length = struct.unpack(">i", prefix)[0]
                frame = memoryview(stream.read(length))
                if len(frame) < length or not self._answer(connection, frame):
                    return

    def _answer(self, connection: socket.socket, frame: memoryview) -> bool:
        key, version, correlation_id, length = struct.unpack_from(">hhih", frame)
        position = 10 + max(length, 0)
        request_class, _ = _REQUESTS.get(key) or (APIS[key].request_class, None)
        if version >= api_of(request_class).flexible_from:
            position += 1
        request = request_class.decode(frame, position, len(frame), version)
        answer = self.cluster.answer(self.number, key, request, version)
        if answer == SILENCE:
            return True
        if answer is None or isinstance(answer, str):
            return False
        refused = isinstance(answer, ApiVersionsResponse) and answer.error_code == 35
        if refused and self.cluster.refuses_in_version_0:
            version = 0
        if key in _REQUESTS:
            tagged = key == 36 and version >= 2
            body = struct.pack(">i", correlation_id) + (b"\0" if tagged else b"")
            body += answer.encode(version)
            connection.sendall(struct.pack(">i", len(body)) + body)
        else:
            connection.sendall(b"".join(response_frame(key, version, correlation_id, answer)))
        return True
