"""Every codec, written by each client, is stored as it came and read by all."""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

import pytest

from tests.e2e.broker_process import BrokerProcess
from tests.e2e.clients import CLIENTS, CODECS, Client, Kcat, client_id
from tests.e2e.message import Message, Received, received, sample
from tests.e2e.segments import CODEC_NUMBERS, read_with_aiokafka, read_with_kafka_python

COUNT = 40
RUN = uuid.uuid4().hex[:8]


class Written(NamedTuple):
    """A topic with what one client wrote into it with one codec."""

    topic: str
    messages: list[Message]
    started_ms: int
    ended_ms: int


_written: dict[tuple[str, str], Written] = {}


def kcat_messages(codec: str) -> list[Message]:
    """What kcat can write: one line each, the same headers for all, empty meaning null."""
    return [
        Message(
            None if number % 11 == 5 else f"kcat value {number} {codec} ".encode() * 3,
            f"kcat-{number % 5}".encode(),
            (("origin", b"kcat"),),
        )
        for number in range(COUNT)
    ]


@pytest.fixture
def written(broker: BrokerProcess, writer: Client, codec: str) -> Written:
    """The writer's topic for the codec, written by the first test that asks for it."""
    key = (writer.name, codec)
    if key not in _written:
        is_kcat = isinstance(writer, Kcat)
        messages = kcat_messages(codec) if is_kcat else sample(f"{writer.name}-{codec}", COUNT)
        topic = f"codecs-{RUN}-{writer.name}-{codec}"
        started_ms = time.time_ns() // 1_000_000
        writer.write(broker.address, topic, messages, codec=codec)
        _written[key] = Written(topic, messages, started_ms, time.time_ns() // 1_000_000)
    return _written[key]


def check(found: list[Received], written: Written, writer: Client) -> None:
    """Every message is there as it was written, in order."""
    if writer.chooses_timestamps:
        assert found == received(written.messages)
        return
    for message in found:
        assert written.started_ms <= message.timestamp_ms <= written.ended_ms
    without_times = [message._replace(timestamp_ms=0) for message in found]
    assert without_times == received(written.messages)


by_writer_and_codec = pytest.mark.parametrize(
    ("writer", "codec"),
    [
        pytest.param(writer, codec, id=f"{writer.name}-{codec}")
        for writer in CLIENTS
        for codec in CODECS
    ],
)


@by_writer_and_codec
@pytest.mark.parametrize("reader", CLIENTS, ids=client_id)
def test_what_one_client_writes_every_client_reads(
    broker: BrokerProcess, writer: Client, codec: str, reader: Client, written: Written
) -> None:
    found = reader.read(broker.address, written.topic, 0, COUNT)
    check(found, written, writer)


@by_writer_and_codec
def test_a_batch_is_stored_as_it_came_and_foreign_decoders_read_the_segment(
    broker: BrokerProcess, writer: Client, codec: str, written: Written
) -> None:
    paths = broker.segment_paths(written.topic)
    batches, found = read_with_kafka_python(paths)
    check(found, written, writer)
    # librdkafka leaves a batch as it is that compression would make longer: of one small record.
    codecs = {batch.codec for batch in batches if batch.records > 1}
    assert codecs <= {CODEC_NUMBERS[codec]}
    assert {batch.codec for batch in batches} <= {CODEC_NUMBERS[codec], CODEC_NUMBERS["none"]}
    assert len(batches) < COUNT, "the test is about batches of several records"
    check(read_with_aiokafka(paths), written, writer)


@pytest.mark.parametrize("reader", CLIENTS, ids=client_id)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("writer", CLIENTS[:1], ids=client_id)
def test_reading_starts_in_the_middle_of_a_batch(
    broker: BrokerProcess, writer: Client, codec: str, reader: Client, written: Written
) -> None:
    start = COUNT // 2 + 1
    found = reader.read(broker.address, written.topic, start, COUNT - start)
    assert found == received(written.messages)[start:]
