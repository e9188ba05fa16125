"""Clients that take, hold or flood: memory stays under a stated bound, others are served.

Bounds are of the process's resident memory, above what it has when it is ready: the limits that
are set, plus SLACK_BYTES for the allocator, the interpreter's growth and the well-behaved client.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from tests.faults.client import VERSIONS, Client, batch_of, fetch_message, produce_frame
from tests.faults.faulty_broker import FaultyBroker, wait_until
from tests.faults.neighbour import Neighbour
from trioq.wire.api_keys import ApiKey
from trioq.wire.framing import request_frame
from trioq.wire.messages.metadata import MetadataRequest

Make = Callable[..., FaultyBroker]

MIB = 1 << 20
SLACK_BYTES = 24 * MIB
UNWRITTEN_BYTES = 64 * MIB
"""What a log directory takes before producers wait for it."""


class Memory:
    """Resident memory above a level, which grows for pages that are touched."""

    def __init__(self, broker: FaultyBroker) -> None:
        self._broker = broker
        self._base_bytes = broker.resident_bytes()
        self.peak_bytes = 0

    def assert_within(self, bound_bytes: int) -> None:
        grown = self._broker.resident_bytes() - self._base_bytes
        self.peak_bytes = max(self.peak_bytes, grown)
        assert grown <= bound_bytes, f"{grown / MIB:.1f} MiB, {bound_bytes / MIB:.1f} are allowed"


@contextmanager
def under_attack(broker: FaultyBroker) -> Iterator[tuple[Neighbour, Memory]]:
    """A well-behaved client at work, and the level of memory with it alone."""
    with Neighbour(broker) as neighbour:
        memory = Memory(broker)
        yield neighbour, memory
        print(f"memory: {memory.peak_bytes / MIB:.1f} MiB at most")


def connect(broker: FaultyBroker) -> socket.socket:
    return broker.client().socket


def connect_narrow(broker: FaultyBroker) -> socket.socket:
    """A client whose system takes little for it: what it does not read stays with the broker."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect((broker.host, broker.port))
    return sock


def read_frame(stream: BinaryIO) -> bytes:
    (length,) = struct.unpack(">i", stream.read(4))
    data = stream.read(length)
    assert len(data) == length
    return data


def send_what_goes(sock: socket.socket, data: bytes) -> int:
    """Send until the other side takes no more; bytes sent."""
    sock.settimeout(0.1)
    view = memoryview(data)
    sent = 0
    while sent < len(view):
        try:
            sent += sock.send(view[sent:])
        except (TimeoutError, BlockingIOError):
            break
    return sent


def answer_to_rest(sock: socket.socket, rest: bytes) -> bytes:
    """Send the rest of a request and wait for its answer."""
    sock.settimeout(60)
    sock.sendall(rest)
    with sock.makefile("rb") as answers:
        return read_frame(answers)


def test_a_flood_of_large_requests(make_broker: Make) -> None:
    """Half-sent requests of 8 MiB: all of them together have queued.max.request.bytes."""
    budget, largest = 32 * MIB, 16 * MIB
    settings = {
        "queued.max.request.bytes": str(budget),
        "socket.request.max.bytes": str(largest),
        "message.max.bytes": str(largest),
    }
    broker = make_broker(settings=settings).start()
    broker.client().create("t")
    batch = batch_of([os.urandom(8 * MIB)])
    frame = produce_frame("t", batch)
    with under_attack(broker) as (neighbour, memory):
        attackers = [connect(broker) for _ in range(16)]
        sent = [send_what_goes(one, frame[:-1]) for one in attackers]
        neighbour.gets_on()
        memory.assert_within(budget + largest + SLACK_BYTES)
        assert sum(sent) < sum([len(frame) - 1] * len(sent)), "the broker stops reading"
        # Those that go on are all served: each has the reserve in its turn, so they must all go
        # on; one that holds it and stops would keep it until request.receive.timeout.ms.
        for one in attackers[8:]:
            one.close()
        with ThreadPoolExecutor(8) as pool:
            rests = [frame[size:] for size in sent[:8]]
            assert all(pool.map(answer_to_rest, attackers[:8], rests))
        # What is received whole and on its way to the disk is bounded apart from the budget.
        memory.assert_within(budget + largest + UNWRITTEN_BYTES + SLACK_BYTES)
        neighbour.gets_on()
    found = broker.client().offset("t", -1)
    assert found == (0, 8)


def test_many_requests_that_are_read_slowly(make_broker: Make) -> None:
    """Readers that ask for much and take little: records wait in their files, not in memory."""
    limit = MIB
    settings = {"connection.max.queued.response.bytes": str(limit)}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    for _ in range(64):
        assert client.produce("t", [os.urandom(500_000)]).error_code == 0
    parts = request_frame(
        ApiKey.FETCH, VERSIONS[ApiKey.FETCH], 1, "slow", fetch_message("t", 0, max_bytes=30 * MIB)
    )
    asked = b"".join(parts) * 20
    with under_attack(broker) as (neighbour, memory):
        readers = [connect_narrow(broker) for _ in range(50)]
        for one in readers:
            one.sendall(asked)
        for _ in range(5):
            neighbour.gets_on(10)
            for one in readers:
                one.recv(1000)
            memory.assert_within(SLACK_BYTES)
        neighbour.gets_on()
        for one in readers:
            one.close()


def test_answers_that_nobody_reads(make_broker: Make) -> None:
    """Answers from memory: a connection holds its limit and one answer more, then is not read."""
    limit = 256 * 1024
    settings = {"connection.max.queued.response.bytes": str(limit)}
    broker = make_broker(settings=settings).start()
    client = broker.client()
    for number in range(4):
        client.create(f"wide-{number}", 500)
    answer_bytes = len(_metadata_answer(client))
    assert answer_bytes > 30_000
    parts = request_frame(
        ApiKey.METADATA, VERSIONS[ApiKey.METADATA], 1, "deaf", MetadataRequest(topics=None)
    )
    asked = b"".join(parts) * 150
    connections = 20
    with under_attack(broker) as (neighbour, memory):
        deaf = [connect_narrow(broker) for _ in range(connections)]
        for one in deaf:
            one.sendall(asked)
        neighbour.gets_on(100)
        memory.assert_within(connections * (limit + 2 * answer_bytes) + SLACK_BYTES)
        # Whoever reads after all gets every answer, whole.
        with deaf[0].makefile("rb") as answers:
            assert len({len(read_frame(answers)) for _ in range(150)}) == 1
        for one in deaf:
            one.close()
        neighbour.gets_on()


def _metadata_answer(client: Client) -> bytes:
    client.send(ApiKey.METADATA, MetadataRequest(topics=None))
    return client.read_frame()


def test_requests_that_never_end_and_answers_that_are_never_taken(make_broker: Make) -> None:
    """Slowloris, and the opposite: both are closed by their deadlines."""
    settings = {
        "request.receive.timeout.ms": "1000",
        "response.send.timeout.ms": "1000",
        "connection.max.queued.response.bytes": "65536",
    }
    broker = make_broker(settings=settings).start()
    client = broker.client()
    client.create("t")
    for _ in range(20):
        assert client.produce("t", [os.urandom(500_000)]).error_code == 0
    parts = request_frame(
        ApiKey.FETCH, VERSIONS[ApiKey.FETCH], 1, "deaf", fetch_message("t", 0, max_bytes=30 * MIB)
    )
    with under_attack(broker) as (neighbour, memory):
        slow = [connect(broker) for _ in range(100)]
        for one in slow:
            one.sendall(struct.pack(">i", 50_000) + b"\0")
        deaf = [connect_narrow(broker) for _ in range(20)]
        for one in deaf:
            one.sendall(b"".join(parts) * 4)
        open_slow = set(slow)
        while open_slow:  # a byte now and then does not help
            neighbour.gets_on(5)
            for one in tuple(open_slow):
                try:
                    one.sendall(b"\0")
                except OSError:
                    open_slow.discard(one)
        memory.assert_within(SLACK_BYTES)
        wait_until(lambda: broker.open_sockets() < 20, "all of them are closed")
        neighbour.gets_on()
        for one in deaf:
            one.close()

    def closed_for(reason: str) -> int:
        return sum(reason in str(line["reason"]) for line in broker.events("connection closed"))

    wait_until(lambda: closed_for("did not arrive whole") == len(slow), "slow ones are logged")
    wait_until(lambda: closed_for("took nothing of a response") == len(deaf), "deaf ones too")


def test_a_flood_of_connections(make_broker: Make) -> None:
    """Thousands come; max.connections stay, the rest are closed at once."""
    most, flood = 500, 3000
    broker = make_broker(settings={"max.connections": str(most)}).start()
    with under_attack(broker) as (neighbour, memory):
        flooding = []
        for number in range(flood):
            sock = socket.socket()
            sock.settimeout(5)
            sock.connect((broker.host, broker.port))
            flooding.append(sock)
            if number % 500 == 499:
                neighbour.gets_on(5)
        neighbour.gets_on()
        wait_until(lambda: broker.open_sockets() <= most + 20, "the rest are closed")
        memory.assert_within(most * 64 * 1024 + SLACK_BYTES)
        for sock in flooding:
            sock.close()
        wait_until(lambda: broker.open_sockets() <= 20, "all are gone")
        neighbour.gets_on()
    wait_until(lambda: bool(broker.events("connection refused")), "the refusal is logged")
    with broker.client() as client:
        assert client.topics() == {"neighbour"}


def test_one_host_does_not_keep_the_others_out(make_broker: Make) -> None:
    """max.connections.per.ip: another address of this machine is still served."""
    broker = make_broker(settings={"max.connections.per.ip": "20"}).start()
    flooding = [connect(broker) for _ in range(60)]
    other = socket.socket()
    other.bind(("127.0.0.2", 0))
    other.settimeout(10)
    other.connect((broker.host, broker.port))
    parts = request_frame(
        ApiKey.METADATA, VERSIONS[ApiKey.METADATA], 1, "other", MetadataRequest(topics=None)
    )
    other.sendall(b"".join(parts))
    assert other.recv(4)
    other.close()
    assert len(flooding) == 60
