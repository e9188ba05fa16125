"""Bad input over a real broker: the right code or a closed connection, and nobody else notices.

Every test has a well-behaved client beside it, which must get its answers throughout.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator

import pytest
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import Confluent
from tests.e2e.message import Message
from tests.e2e.raw import RawConnection, batch, produce_request, with_crc

MAX_REQUEST_BYTES = 100 * 1024 * 1024
MIB = 1024 * 1024

CORRUPT_MESSAGE = 2
MESSAGE_TOO_LARGE = 10
INVALID_TOPIC = 17
INVALID_REQUIRED_ACKS = 21
UNSUPPORTED_VERSION = 35
UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87


def header(api_key: int, api_version: int, correlation_id: int = 1) -> bytes:
    """Request header version 1."""
    return struct.pack(">hhih", api_key, api_version, correlation_id, 3) + b"bad"


@pytest.fixture
def target(broker: BrokerProcess, topic: str) -> Iterator[str]:
    """A topic with one record, whose neighbour produces before and after the bad input."""
    Confluent().write(broker.address, topic, [Message(b"first")])
    with RawConnection(broker) as neighbour:

        def produce(value: bytes) -> int:
            request = produce_request(topic, batch([Message(value)]))
            answer = neighbour.call(request, ProduceResponse, 9)
            partition = answer.responses[0].partition_responses[0]
            assert partition.error_code == 0
            return partition.base_offset

        assert produce(b"before") == 1
        resident_bytes = broker.resident_bytes()
        yield topic
        assert produce(b"after") == 2, "nothing was appended by what was refused"
        assert broker.resident_bytes() - resident_bytes < 64 * MIB
    found = Confluent().read(broker.address, topic, 0, 3)
    assert [message.value for message in found] == [b"first", b"before", b"after"]


FRAMES = {
    "length negative": struct.pack(">i", -1) + b"x" * 16,
    "length least": struct.pack(">i", -(2**31)),
    "length zero": struct.pack(">i", 0),
    "length over the limit": struct.pack(">i", MAX_REQUEST_BYTES + 1),
    "length greatest": struct.pack(">i", 2**31 - 1) + b"x" * 1024,
    "HTTP": b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "header cut off": struct.pack(">i", 3) + b"\0\0\0",
    "client id cut off": struct.pack(">ihhih", 10, 3, 1, 1, 100),
    "client id negative": struct.pack(">ihhih", 10, 3, 1, 1, -2),
    "client id not UTF-8": struct.pack(">ihhih", 12, 3, 1, 1, 2) + b"\xff\xfe",
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_bad_frame_closes_the_connection(broker: BrokerProcess, target: str, name: str) -> None:
    with RawConnection(broker) as connection:
        host, port = connection.socket.getsockname()
        connection.send(FRAMES[name])
        assert connection.is_closed_by_peer()
        said = lines_about(broker, f"{host}:{port}")
    assert len(said) == 1, f"one line that says why: {said}"
    assert said[0]["reason"]


def lines_about(broker: BrokerProcess, peer: str) -> list[dict[str, object]]:
    """Log lines about a peer; the first may come a moment after the connection is closed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if lines := [line for line in broker.log_lines() if line.get("peer") == peer]:
            return lines
        time.sleep(0.01)
    return []


BODIES = {
    "unknown API": (999, 0, b""),
    "API not served": (8, 2, b"\0" * 32),
    "negative API": (-1, 0, b""),
    "Produce 2": (0, 2, b"\0" * 32),
    "Produce too new": (0, 12, b"\0" * 32),
    "Metadata too new": (3, 99, b""),
    "negative version": (3, -1, b""),
    "Metadata with 2^31-1 topics": (3, 1, struct.pack(">i", 2**31 - 1)),
    "Metadata with more topics than bytes": (3, 1, struct.pack(">i", 100) + b"\0\1x"),
    "CreateTopics with -2 topics": (19, 2, struct.pack(">iib", -2, 1000, 0)),
    "Produce with a null array": (0, 3, struct.pack(">hhii", -1, 1, 1000, -1)),
    "CreateTopics with 2^30 topics": (19, 2, struct.pack(">i", 2**30)),
    "string longer than the rest": (3, 1, struct.pack(">ih", 1, 500) + b"x"),
    "name not UTF-8": (3, 1, struct.pack(">ih", 1, 2) + b"\xff\xfe"),
    "bytes left over": (3, 1, struct.pack(">i", -1) + b"rest"),
    "body missing": (3, 1, b""),
    "records longer than the rest": (
        0,
        3,
        struct.pack(">hhiihsiii", -1, 1, 1000, 1, 1, b"t", 1, 0, 2**31 - 1),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_request_closes_the_connection(broker: BrokerProcess, target: str, name: str) -> None:
    api_key, api_version, body = BODIES[name]
    with RawConnection(broker) as connection:
        connection.send_frame(header(api_key, api_version) + body)
        assert connection.is_closed_by_peer()


FLEXIBLE_BODIES = {
    "varint of six bytes": b"\xff\xff\xff\xff\xff\x01",
    "varint without an end": b"\xff" * 32,
    "array of 2^32-2": b"\xff\xff\xff\xff\x0f",
    "tags without an end": b"\x00\x01\x00\x01\xff\xff\xff\xff\x0f",
    "tag longer than the rest": b"\x00\x01\x00\x01\x01\x63\x7f",
}


@pytest.mark.parametrize("name", FLEXIBLE_BODIES)
def test_a_bad_flexible_request_closes_the_connection(
    broker: BrokerProcess, target: str, name: str
) -> None:
    with RawConnection(broker) as connection:
        connection.send_frame(header(3, 9) + b"\0" + FLEXIBLE_BODIES[name])
        assert connection.is_closed_by_peer()


def test_too_new_api_versions_is_answered_in_version_0(broker: BrokerProcess, target: str) -> None:
    with RawConnection(broker) as connection:
        connection.send_frame(header(18, 99, 7) + b"\0anything")
        answer = ApiVersionsResponse.decode(connection.read_frame(), version=0, header=True)
        assert answer.header.correlation_id == 7
        assert answer.error_code == UNSUPPORTED_VERSION
        ranges = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
        assert 18 in ranges
        # The connection lives on, and the next attempt is answered.
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
        again = connection.call(request, ApiVersionsResponse, ranges[18][1])
        assert again.error_code == 0
        served = {api.api_key for api in again.api_keys}
    assert served == {
        *range(4), *range(8, 17), *range(18, 24), 32, 33, 35, 37, *range(42, 48),
        60, 61, 68, 69, 75,
    }  # fmt: skip


def changed(position: int, value: bytes, *, crc: bool = True) -> bytes:
    """A good batch with bytes replaced, and its CRC made right again or not."""
    data = batch([Message(b"value", b"key", (("h", b"v"),), 1), Message(b"two", None, (), 2)])
    data[position : position + len(value)] = value
    return bytes(with_crc(data) if crc else data)


def sequenced(*, epoch: int, sequence: int, producer_id: int = 10**12) -> bytes:
    return bytes(
        batch(
            [Message(b"v")],
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
        )
    )


GOOD = bytes(batch([Message(b"value", b"key", (), 1)]))
BATCHES = {
    "no batch": (b"", {INVALID_RECORD, CORRUPT_MESSAGE}),
    "a few bytes": (GOOD[:20], {CORRUPT_MESSAGE}),
    "cut off": (GOOD[:-1], {CORRUPT_MESSAGE}),
    "bytes left over": (GOOD + b"x", {CORRUPT_MESSAGE, INVALID_RECORD}),
    "two batches": (GOOD + GOOD, {INVALID_RECORD}),
    "wrong CRC": (changed(17, b"\1\2\3\4", crc=False), {CORRUPT_MESSAGE}),
    "changed value": (changed(70, b"?", crc=False), {CORRUPT_MESSAGE}),
    "length negative": (changed(8, b"\xff\xff\xff\xff", crc=False), {CORRUPT_MESSAGE}),
    "length too great": (changed(8, b"\x7f\xff\xff\xff", crc=False), {CORRUPT_MESSAGE}),
    "length zero": (changed(8, bytes(4), crc=False), {CORRUPT_MESSAGE}),
    "magic 0": (changed(16, b"\0"), {UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD}),
    "magic 1": (changed(16, b"\1"), {UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD}),
    "magic 3": (changed(16, b"\3"), {CORRUPT_MESSAGE, INVALID_RECORD}),
    "count zero": (changed(57, bytes(4)), {INVALID_RECORD}),
    "count negative": (changed(57, b"\xff\xff\xff\xff"), {INVALID_RECORD}),
    "count too great": (changed(57, b"\0\0\0\3"), {INVALID_RECORD}),
    "count greatest": (changed(57, b"\x7f\xff\xff\xff"), {INVALID_RECORD}),
    "last offset delta wrong": (changed(23, b"\0\0\0\7"), {INVALID_RECORD}),
    "codec 5": (changed(21, b"\0\5"), {UNSUPPORTED_COMPRESSION_TYPE}),
    "codec 7": (changed(21, b"\0\7"), {UNSUPPORTED_COMPRESSION_TYPE}),
    "control batch": (changed(21, b"\0\x20"), {INVALID_RECORD}),
    "unused attributes": (changed(21, b"\x40\0"), {INVALID_RECORD}),
    "record length wrong": (changed(61, b"\x7e"), {INVALID_RECORD}),
    "record varint too long": (changed(61, b"\xff" * 11), {INVALID_RECORD}),
    "first sequence not 0": (sequenced(epoch=0, sequence=5), None),
    "epoch negative": (sequenced(epoch=-1, sequence=0), {INVALID_RECORD}),
    "sequence negative": (sequenced(epoch=0, sequence=-1), {INVALID_RECORD}),
}
REFUSED = [name for name, (_, codes) in BATCHES.items() if codes is not None]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("acks", [1, -1])
def test_a_bad_batch_is_refused_with_its_code(
    broker: BrokerProcess, target: str, name: str, acks: int
) -> None:
    data, codes = BATCHES[name]
    with RawConnection(broker) as connection:
        request = produce_request(target, data, acks=acks)
        answer = connection.call(request, ProduceResponse, 9).responses[0].partition_responses[0]
        assert codes is not None
        assert answer.error_code in codes
        assert answer.base_offset == -1
        # The connection is kept.
        assert connection.call(MetadataRequest(topics=[]), metadata_response(), 1) is not None


@pytest.mark.parametrize("name", ["wrong CRC", "count too great", "cut off"])
def test_a_bad_batch_with_acks_0_closes_the_connection(
    broker: BrokerProcess, target: str, name: str
) -> None:
    data, _ = BATCHES[name]
    with RawConnection(broker) as connection:
        connection.send_request(produce_request(target, data, acks=0), 9)
        assert connection.is_closed_by_peer()


def metadata_response():
    from kafka.protocol.metadata import MetadataResponse

    return MetadataResponse


@pytest.mark.parametrize("acks", [-2, 2, 32767])
def test_acks_of_another_kind(broker: BrokerProcess, target: str, acks: int) -> None:
    with RawConnection(broker) as connection:
        request = produce_request(target, GOOD, acks=acks)
        answer = connection.call(request, ProduceResponse, 9).responses[0].partition_responses[0]
    assert answer.error_code == INVALID_REQUIRED_ACKS


def test_sequences_duplicates_gaps_and_old_epochs(broker: BrokerProcess, topic: str) -> None:
    Confluent().write(broker.address, topic, [Message(b"first")])
    producer_id = 10**12 + 1

    def send(epoch: int, sequence: int) -> tuple[int, int]:
        data = sequenced(epoch=epoch, sequence=sequence, producer_id=producer_id)
        response = connection.call(produce_request(topic, data), ProduceResponse, 9)
        answer = response.responses[0].partition_responses[0]
        return answer.error_code, answer.base_offset

    with RawConnection(broker) as connection:
        assert send(3, 0) == (0, 1)
        assert send(3, 1) == (0, 2)
        assert send(3, 1) == (0, 2), "a duplicate gets its original offset"
        assert send(3, 0) == (0, 1)
        assert send(3, 3) == (OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
        assert send(3, 2) == (0, 3)
        assert send(2, 3) == (INVALID_PRODUCER_EPOCH, -1)
        assert send(4, 0) == (0, 4)
        assert send(3, 3) == (INVALID_PRODUCER_EPOCH, -1)
        assert send(5, 7)[0] == OUT_OF_ORDER_SEQUENCE_NUMBER, "a new epoch begins at 0"
    assert len(Confluent().read(broker.address, topic, 0, 5)) == 5


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc/passwd", "a b", "ü", "x" * 250])
def test_illegal_topic_names(broker: BrokerProcess, target: str, name: str) -> None:
    from kafka.protocol.admin import CreateTopicsRequest, CreateTopicsResponse

    creatable = CreateTopicsRequest.CreatableTopic
    with RawConnection(broker) as connection:
        response = connection.call(
            CreateTopicsRequest(
                topics=[
                    creatable(
                        name=name,
                        num_partitions=1,
                        replication_factor=1,
                        assignments=[],
                        configs=[],
                    )
                ],
                timeout_ms=10_000,
                validate_only=False,
            ),
            CreateTopicsResponse,
            5,
        )
        assert response.topics[0].error_code == INVALID_TOPIC
        topics = MetadataRequest.MetadataRequestTopic
        request = MetadataRequest(topics=[topics(name=name)], allow_auto_topic_creation=True)
        answer = connection.call(request, metadata_response(), 5)
        assert answer.topics[0].error_code == INVALID_TOPIC
        produced = connection.call(produce_request(name, GOOD), ProduceResponse, 9)
        assert produced.responses[0].partition_responses[0].error_code in {3, INVALID_TOPIC}
    assert not any("passwd" in str(path) for path in broker.data_dir.parent.rglob("*"))


def test_a_frame_cut_off_by_a_reset(broker: BrokerProcess, target: str) -> None:
    for _ in range(20):
        connection = RawConnection(broker)
        connection.send(struct.pack(">i", 10 * MIB) + header(0, 9) + b"x" * 100_000)
        linger = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.socket.close()


def test_a_large_announcement_alone_takes_no_memory(broker: BrokerProcess, target: str) -> None:
    """Thirty frames of 100 MiB are announced; of each only a little is sent."""
    before = broker.resident_bytes()
    connections = [RawConnection(broker) for _ in range(30)]
    for connection in connections:
        connection.send(struct.pack(">i", MAX_REQUEST_BYTES) + header(0, 9))
    with RawConnection(broker) as sign_of_life:
        sign_of_life.call(MetadataRequest(topics=[]), metadata_response(), 1)
        assert broker.resident_bytes() - before < 16 * MIB
    for connection in connections:
        connection.socket.close()


def test_random_bytes(broker: BrokerProcess, target: str) -> None:
    generator = random.Random(20_240_607)
    for _ in range(200):
        with RawConnection(broker) as connection:
            data = generator.randbytes(generator.randrange(1, 400))
            if generator.random() < 0.7:
                key, version = generator.choice([0, 1, 2, 3, 18, 19, 32]), generator.randrange(12)
                data = header(key, version) + data
                data = struct.pack(">i", len(data)) + data
            connection.send(data)
            connection.socket.shutdown(socket.SHUT_WR)
            while connection_goes_on(connection):
                pass


def connection_goes_on(connection: RawConnection) -> bool:
    try:
        return bool(connection.socket.recv(65536))
    except ConnectionResetError:
        return False


def test_mutated_requests(broker: BrokerProcess, target: str) -> None:
    """Real produce requests with a byte or two changed: answered or closed, never appended."""
    generator = random.Random(7)
    request = ProduceRequest(version=9, **fields_of(produce_request(target, GOOD)))
    request.with_header(1, "raw")
    frame = bytes(request.encode(header=True, framed=True))
    records_start = frame.index(GOOD)
    for _ in range(300):
        data = bytearray(frame)
        for _ in range(generator.randrange(1, 3)):
            # Base offset and leader epoch are the broker's to write, so changing them is legal.
            position = records_start + generator.randrange(16, len(GOOD))
            data[position] ^= 1 << generator.randrange(8)
        if data == frame:
            continue
        with RawConnection(broker) as connection:
            connection.send(bytes(data))
            answer = ProduceResponse.decode(connection.read_frame(), version=9, header=True)
            assert answer.responses[0].partition_responses[0].error_code != 0


def fields_of(request: ProduceRequest) -> dict[str, object]:
    names = ("transactional_id", "acks", "timeout_ms", "topic_data")
    return {name: getattr(request, name) for name in names}


def test_idle_connections_are_cheap_and_let_others_work(broker: BrokerProcess, target: str) -> None:
    connections = [RawConnection(broker) for _ in range(300)]
    try:
        with RawConnection(broker) as working:
            response = working.call(MetadataRequest(topics=[]), metadata_response(), 1)
            assert response.brokers
    finally:
        for connection in connections:
            connection.socket.close()


def test_a_client_that_never_reads_is_held_back(broker: BrokerProcess, target: str) -> None:
    """It may queue responses up to a bound; then it is not read from any more."""
    before = broker.resident_bytes()
    with RawConnection(broker) as connection:
        connection.socket.setblocking(False)
        request = ApiVersionsRequest()
        request.API_VERSION = 0
        request.with_header(1, "raw")
        frame = bytes(request.encode(header=True, framed=True)) * 1000
        sent = 0
        try:
            while sent < 64 * MIB:
                sent += connection.socket.send(frame)
        except BlockingIOError:
            pass
    assert broker.resident_bytes() - before < 64 * MIB


def test_tls_to_a_plain_listener_fails_at_once(broker: BrokerProcess, target: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with RawConnection(broker) as connection, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(connection.socket)
