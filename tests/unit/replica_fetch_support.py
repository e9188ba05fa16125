"""Fetches of followers as bytes, to a reactor over memory that leads a few partitions."""

from __future__ import annotations

import socket
import struct
from types import SimpleNamespace
from typing import Any

from tests.unit.server_harness import context
from tests.unit.storage_support import NOW_MS, TOPIC_ID, batch, open_dirs
from trioq._native.request_lane import RequestLane
from trioq.config import BrokerConfig, TopicConfig
from trioq.metastore.layout import BrokerRegistration, PartitionState
from trioq.replication.partition import Partition
from trioq.server.connection import Connection
from trioq.server.fetch_sessions import FetchSessions
from trioq.server.handlers.registry import served_apis
from trioq.server.limits import Limits
from trioq.server.reactor import Reactor
from trioq.storage.memory_disk import MemoryDisk
from trioq.types import FileRegion, TopicPartition
from trioq.wire.api_keys import ApiKey
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestForgottenTopic,
    FetchRequestPartition,
    FetchRequestReplicaState,
    FetchRequestTopic,
    FetchResponse,
    FetchResponsePartition,
)
from trioq.wire.schema import Message

TOPIC = "orders"
EPOCHS = {1: 10, 2: 20, 3: 30}
FIRST_VERSION_WITH_REPLICA_STATE = 15


class Clock:
    def __init__(self) -> None:
        self.s = 5.0

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return self.s


class Leader:
    """Broker 1, of rack a, leads; 2 (rack b) and 3 (rack c) are replicas, in sync unless stated."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        isr: tuple[int, ...] = (1, 2, 3),
        topic_config: dict[str, str] | None = None,
        adding: tuple[int, ...] = (),
        **config: str,
    ) -> None:
        self.config = BrokerConfig.from_mapping(
            {"node.id": "1", "broker.rack": "a"}
            | {name.replace("_", "."): value for name, value in config.items()}
        )
        self.clock = Clock()
        self.dirs = open_dirs(MemoryDisk(), clock=self.clock)  # type: ignore[arg-type]
        self.partitions: dict[int, Partition] = {}
        topic = TopicConfig.of(self.config, topic_config or {})
        self.state = PartitionState(
            1, 5, isr, tuple(EPOCHS[one] for one in isr), (1, 2, 3), adding=adding
        )
        for number in range(partitions):
            where = TopicPartition(TOPIC, number)
            log = self.dirs.log(where, TOPIC_ID, topic)
            partition = Partition(where, TOPIC_ID, log, topic, self.config)
            partition.use_broker_epoch(EPOCHS[1])
            partition.apply_state(self.state)
            self.partitions[number] = partition
        brokers = {
            one: BrokerRegistration(one, EPOCHS[one], rack, {}, (), "", "", True)
            for one, rack in ((1, "a"), (2, "b"), (3, "c"))
        }
        known = SimpleNamespace(name=TOPIC, partitions=(self.state,) * partitions)
        self.ctx = ctx = context(clock=self.clock)  # type: ignore[arg-type]
        ctx.config = self.config
        ctx.end_of_pass.append(self.dirs.end_pass)
        ctx.fetch_sessions = FetchSessions(slots=10, eviction_s=120)
        ctx.partitions = SimpleNamespace(  # type: ignore[assignment]
            find=lambda _, number: self.partitions.get(number),
            find_by_id=lambda _, number: self.partitions.get(number),
        )
        ctx.image_source = SimpleNamespace(  # type: ignore[assignment]
            image=SimpleNamespace(
                topics={TOPIC: known}, topics_by_id={TOPIC_ID: known}, brokers=brokers
            )
        )
        self.reactor = Reactor(ctx, served_apis(), Limits())
        self._sockets = socket.socketpair()
        self.connections: dict[object, Connection] = {}
        self.lane_took = 0
        self._taken: dict[object, int] = {}

    def close_lane(self) -> None:
        """From now on every request goes the general way."""
        limits = self.reactor.limits
        self.reactor._receiver._lane = RequestLane(
            self.ctx.clock,
            max_frame_bytes=limits.max_frame_bytes,
            max_parked_requests=limits.max_parked_requests,
            max_parked_bytes=limits.max_parked_bytes,
        )

    def append(
        self, *values: bytes, number: int = 0, waiter: Any = None, is_written: bool = True
    ) -> None:
        """Append a batch with acks=1, or acks=all for `waiter`."""
        partition = self.partitions[number]
        data = memoryview(batch(*(values or (b"a",))))
        header = partition.check_batch(data)
        acks = 1 if waiter is None else -1
        appended = partition.append_as_leader(data, header, acks=acks, now_ms=NOW_MS)
        if waiter is not None:
            partition.await_acks(appended.last_offset + 1, acks, waiter, 0)
        if is_written:
            self.dirs.end_pass()

    def send(self, who: object, key: int, message: Message, version: int) -> Connection:
        """Have `who`'s connection receive a request."""
        connection = self.connections.get(who)
        if connection is None:
            connection = Connection(self.reactor, self._sockets[0], ("host", 1), "INSIDE", 0.0)
            self.connections[who] = connection
        head = struct.pack(">hhih", key, version, 7, 4) + b"test"
        if version >= type(message).FLEXIBLE_FROM:
            head += b"\0"
        body = head + bytes(message.encode(version))
        data = bytearray(struct.pack(">i", len(body)) + body)
        receiver = self.reactor._receiver
        self.reactor._in_pass = True
        receiver._dispatch_frames(connection, memoryview(data), 0, len(data))
        assert receiver._lane is not None
        self.lane_took += receiver._lane.requests
        receiver._lane.requests = 0
        self.reactor._in_pass = False
        return connection

    def answer(self, who: object) -> bytes | None:
        """The oldest answer that `who` has not taken, without frame; None while it waits."""
        taken = self._taken.get(who, 0)
        parts = self.connections[who].ring[taken].parts
        if not parts:
            return None
        self._taken[who] = taken + 1
        if isinstance(parts, bytes | bytearray):
            parts = [parts]
        return b"".join(_content(part) for part in parts)[4:]

    def end_pass(self, *, is_last: bool = True) -> None:
        """The reactor's pass ends; with `is_last` nothing more is there to be received."""
        if is_last and self.ctx.replica_fetches is not None:
            self.ctx.replica_fetches.hold_no_longer()
        self.reactor._in_pass = True
        for hook in self.ctx.end_of_pass:
            hook()
        self.reactor._in_pass = False

    def wait(self, seconds: float) -> None:
        self.clock.s += seconds
        self.ctx.deadlines.call_due(self.clock.s)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.cancel_waiting()
        self.reactor.close()
        for one in self._sockets:
            one.close()


def _content(part: Any) -> bytes:
    if isinstance(part, FileRegion):
        shared: Any = part.file
        data: bytes = shared.file.pread(part.length, part.position)
        return data
    return bytes(part)


def fetch_request(
    replica: int,
    positions: dict[int, int],
    *,
    version: int = 16,
    epoch: int | None = None,
    session: tuple[int, int] = (0, -1),
    forget: tuple[int, ...] = (),
    last_epoch: int = -1,
    leader_epoch: int = -1,
    wait_ms: int = 500,
    max_bytes: int = 1 << 20,
    rack: str = "",
    log_start: int = -1,
) -> FetchRequest:
    """Fetch from `positions`: partition to offset."""
    asked = [
        FetchRequestPartition(
            partition=number,
            fetch_offset=offset,
            partition_max_bytes=max_bytes,
            current_leader_epoch=leader_epoch,
            last_fetched_epoch=last_epoch,
            log_start_offset=log_start,
        )
        for number, offset in positions.items()
    ]
    message = FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        session_id=session[0],
        session_epoch=session[1],
        topics=[FetchRequestTopic(topic=TOPIC, topic_id=TOPIC_ID, partitions=asked)]
        if asked
        else [],
        rack_id=rack,
    )
    if forget:
        message.forgotten_topics_data = [
            FetchRequestForgottenTopic(topic=TOPIC, topic_id=TOPIC_ID, partitions=list(forget))
        ]
    if replica >= 0 and version >= FIRST_VERSION_WITH_REPLICA_STATE:
        message.replica_state = FetchRequestReplicaState(
            replica_id=replica, replica_epoch=EPOCHS[replica] if epoch is None else epoch
        )
    elif replica >= 0:
        message.replica_id = replica
    return message


def fetch(leader: Leader, replica: int, positions: dict[int, int], **options: Any) -> None:
    """Send `fetch_request`, by the replica's own connection."""
    version = options.get("version", 16)
    leader.send(replica, ApiKey.FETCH, fetch_request(replica, positions, **options), version)


def fetched(leader: Leader, replica: int, version: int = 16) -> FetchResponse | None:
    """The answer to the replica's fetch; None while it waits."""
    frame = leader.answer(replica)
    if frame is None:
        return None
    start = 5 if version >= FetchResponse.FLEXIBLE_FROM else 4
    return FetchResponse.decode(memoryview(frame), start, len(frame), version)


def partitions_of(response: FetchResponse | None) -> dict[int, FetchResponsePartition]:
    """The answered partitions, by number."""
    assert response is not None
    assert response.error_code == 0
    return {one.partition_index: one for topic in response.responses for one in topic.partitions}
