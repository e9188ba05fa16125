"""A reactor over memory that is fed by hand, with the lane of ordinary requests or without."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from tests.unit.server_harness import context
from tests.unit.storage_support import NOW_MS, TOPIC_ID, batch, open_dirs
from trioq._native.request_lane import RequestLane
from trioq._native.response_ring import ANSWERED
from trioq.config import BrokerConfig, TopicConfig
from trioq.errors import IllegalGeneration, KafkaError
from trioq.metastore.layout import PartitionState
from trioq.replication.partition import Partition
from trioq.server.connection import Connection
from trioq.server.fetch_sessions import FetchSessions
from trioq.server.handlers.registry import Api, served_apis
from trioq.server.limits import Limits
from trioq.server.reactor import Reactor
from trioq.storage.memory_disk import MemoryDisk
from trioq.types import FileRegion, TopicPartition
from trioq.wire.api_keys import APIS
from trioq.wire.messages.api_versions import ApiVersionsRequest
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestPartition,
    FetchRequestTopic,
)
from trioq.wire.messages.list_offsets import (
    ListOffsetsRequest,
    ListOffsetsRequestPartition,
    ListOffsetsRequestTopic,
)
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
)

BROKER = BrokerConfig.from_mapping({"node.id": "1"})
PRODUCE, FETCH, LIST_OFFSETS, API_VERSIONS = 0, 1, 2, 18
TOPIC = "topic"


def frame(key: int, version: int, body: bytes, correlation_id: int, client: bytes = b"me") -> bytes:
    head = struct.pack(">hhih", key, version, correlation_id, len(client)) + client
    if version >= APIS[key].flexible_from:
        head += b"\0"
    return struct.pack(">i", len(head) + len(body)) + head + body


class Clock:
    def __init__(self) -> None:
        self.s = 5.0

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return self.s


def content(part: Any) -> bytes:
    if isinstance(part, FileRegion):
        shared: Any = part.file
        data: bytes = shared.file.pread(part.length, part.position)
        return data
    return bytes(part)


@functools.cache
def topic_config_of(config: tuple[tuple[str, str], ...]) -> TopicConfig:
    """Of the keys as Python writes them: with underscores."""
    return TopicConfig.of(BROKER, {name.replace("_", "."): value for name, value in config})


@functools.cache
def all_apis() -> Mapping[int, Api]:
    """What a broker serves."""
    return served_apis()


class Rig:
    """A reactor over memory, with its lane or without, and one connection that is fed by hand."""

    def __init__(self, *, has_lane: bool, limits: Limits | None = None, **config: str) -> None:
        self.dirs = open_dirs(MemoryDisk())
        self.partitions: dict[tuple[str, int], Partition] = {}
        topic_config = topic_config_of(tuple(config.items()))
        for number in range(2):
            where = TopicPartition(TOPIC, number)
            log = self.dirs.log(where, TOPIC_ID, topic_config)
            partition = Partition(where, TOPIC_ID, log, topic_config, BROKER)
            partition.use_broker_epoch(0)
            partition.apply_state(PartitionState(1, 0, (1,), (0,), (1,), partition_epoch=0))
            self.partitions[TOPIC, number] = partition
        self.clock = Clock()
        self.ctx = ctx = context(clock=self.clock)  # type: ignore[arg-type]
        ctx.partitions = SimpleNamespace(  # type: ignore[assignment]
            find=lambda topic, number: self.partitions.get((topic, number))
        )
        ctx.config = BROKER
        ctx.image_source = SimpleNamespace(  # type: ignore[assignment]
            image=SimpleNamespace(topics={TOPIC: SimpleNamespace(name=TOPIC, partitions=())})
        )
        limits = limits or Limits()
        ctx.fetch_sessions = FetchSessions(slots=0, eviction_s=60.0)
        self.reactor = Reactor(ctx, all_apis(), limits)
        self.receiver = self.reactor._receiver
        self.lane = self.receiver._lane
        if not has_lane:
            self.receiver._lane = RequestLane(
                ctx.clock,
                max_frame_bytes=limits.max_frame_bytes,
                max_parked_requests=limits.max_parked_requests,
                max_parked_bytes=limits.max_parked_bytes,
            )
        self.socket, self._other = socket.socketpair()
        self.connection = Connection(self.reactor, self.socket, ("host", 1), "INSIDE", 0.0)
        self.taken = 0

    def feed(self, data: bytes) -> None:
        """Stage 1 of what is in `data`, as if it had been received at once."""
        self.reactor._in_pass = True
        buffer = bytearray(data)
        self.receiver._dispatch_frames(self.connection, memoryview(buffer), 0, len(buffer))
        self.taken += self.receiver._lane.requests
        self.receiver._lane.requests = 0

    def answers(self) -> list[bytes | None]:
        """Of every request so far, None for those that wait."""
        found: list[bytes | None] = []
        for entry in self.connection.ring:
            parts = entry.parts
            whole = parts if isinstance(parts, bytes) else b"".join(map(content, parts or ()))
            assert entry.state != ANSWERED or entry.length == len(whole)
            found.append(whole if entry.state == ANSWERED else None)
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, for those who wait."""
        self.clock.s += seconds
        self.ctx.deadlines.call_due(self.clock.s)

    def shown(self) -> Any:
        """Everything that must not depend on the way."""
        logs = [one.log for one in self.partitions.values()]
        return (
            self.answers(),
            [one.log_end_offset for one in logs],
            [one.high_watermark for one in logs],
            [one.producers.active_producers() for one in logs],
            [
                one.segments.file(one.segments.items[-1]).pread(1 << 20, 0)
                for one in logs
                if one.segments.exists
            ],
            [one._bytes_since_progress for one in self.partitions.values()],
            self.connection.is_closing,
            self.connection.parked_count,
            self.connection.parked_bytes,
            self.connection.muted,
        )

    def close(self) -> None:
        self.connection.cancel_waiting()
        self.reactor.close()
        self.socket.close()
        self._other.close()


class Asked(NamedTuple):
    """A request of a script; `producer` is None or one of three with sequences of their own."""

    key: int
    version: int
    number: int = 0
    acks: int = 1
    producer: int | None = None
    step: int = 0
    """0: the next sequence; others before or after it."""
    records: int = 1
    record_bytes: int = 1
    age_ms: int = 0
    flipped: int = 0
    """Position of a byte that is damaged, 0 for none."""
    isolation: int = 0
    epoch: int = -1
    timestamp: int = -1
    offset: int = 0
    max_bytes: int = 1 << 20
    min_bytes: int = 1
    wait_ms: int = 0


class Script:
    """Makes the bytes of a script's requests; keeps the producers' sequences."""

    def __init__(self) -> None:
        self._next = {0: 0, 1: 0, 2: 2**31 - 2}
        self._count = 0

    def bytes_of(self, asked: Asked) -> bytes:
        self._count += 1
        made = bytearray(frame(asked.key, asked.version, self._body(asked), self._count))
        if asked.flipped and asked.flipped < len(made):
            made[asked.flipped] ^= 0x41
        return bytes(made)

    def _body(self, asked: Asked) -> bytes:
        if asked.key == API_VERSIONS:
            request = ApiVersionsRequest(client_software_name="a", client_software_version="1")
            return request.encode(min(asked.version, 4))
        if asked.key == LIST_OFFSETS:
            partition = ListOffsetsRequestPartition(
                partition_index=asked.number,
                current_leader_epoch=asked.epoch if asked.version >= 4 else -1,
                timestamp=asked.timestamp,
            )
            topic = ListOffsetsRequestTopic(name=TOPIC, partitions=[partition])
            return ListOffsetsRequest(
                replica_id=-1,
                isolation_level=asked.isolation if asked.version >= 2 else 0,
                topics=[topic],
            ).encode(asked.version)
        if asked.key == FETCH:
            return self._fetch(asked)
        producer = (-1, -1, -1)
        if asked.producer is not None:
            first = (self._next[asked.producer] + asked.step * asked.records) % 2**31
            producer = (asked.producer, 0, first)
            if asked.step == 0:
                self._next[asked.producer] = (first + asked.records) % 2**31
        values = [b"x" * asked.record_bytes] * asked.records
        records = batch(*values, producer=producer, timestamp=NOW_MS - asked.age_ms)
        data = ProduceRequestPartition(index=asked.number, records=bytes(records))
        topic_data = ProduceRequestTopic(name=TOPIC, partition_data=[data])
        request = ProduceRequest(acks=asked.acks, timeout_ms=1000, topic_data=[topic_data])
        return request.encode(min(max(asked.version, 3), 11))

    def _fetch(self, asked: Asked) -> bytes:
        partition = FetchRequestPartition(
            partition=asked.number,
            current_leader_epoch=asked.epoch if asked.version >= 9 else -1,
            fetch_offset=asked.offset,
            partition_max_bytes=asked.max_bytes,
        )
        return FetchRequest(
            max_wait_ms=asked.wait_ms,
            min_bytes=asked.min_bytes,
            isolation_level=asked.isolation,
            topics=[FetchRequestTopic(topic=TOPIC, partitions=[partition])],
            rack_id="rack" if asked.version >= 11 else "",
        ).encode(asked.version)


class Groups:
    """Welcomes heartbeats of generation 7."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def heartbeat(self, *asked: Any) -> KafkaError | None:
        self.seen.append(asked)
        if asked[1] == 666:
            raise ZeroDivisionError("a bug")
        return None if asked[1] == 7 else IllegalGeneration()
