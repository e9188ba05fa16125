"""What is measured without a broker: CRC, batches, wire messages; ours and others'."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from bench.micro.group_cases import MEMBERS, PARTITIONS, GroupRebalance
from trioq._native import batch as native
from trioq._native.crc32c import crc32c
from trioq.record.builder import build_batch
from trioq.record.fetched import RecordBatchView, read_fetched
from trioq.record.producing import BatchBuilder
from trioq.types import ZERO_TOPIC_ID
from trioq.wire.messages.fetch import (
    FetchRequest,
    FetchRequestPartition,
    FetchRequestTopic,
    FetchResponse,
    FetchResponsePartition,
    FetchResponseTopic,
)
from trioq.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from trioq.wire.messages.produce import (
    ProduceRequest,
    ProduceRequestPartition,
    ProduceRequestTopic,
    ProduceResponse,
    ProduceResponsePartition,
    ProduceResponseTopic,
)

RECORDS: Final = 100
RECORD_BYTES: Final = 100
NOW_MS: Final = 1_700_000_000_000
CRC_SIZES: Final = {"100 B": 100, "16 KB": 16_000, "1 MB": 1_000_000}


class MicroCase(NamedTuple):
    """A call to be timed. `group` is what it is compared within; `subject` whose it is."""

    group: str
    subject: str
    call: Callable[[], object]

    @property
    def name(self) -> str:
        """Of the benchmark."""
        return f"{self.group}: {self.subject}"


def cases() -> list[MicroCase]:
    """Ours, and those of the other packages that are installed."""
    return [*_crc_cases(), *_batch_cases(), *_wire_cases(), *_group_cases()]


def _crc_cases() -> list[MicroCase]:
    subjects: dict[str, Callable[[bytes], int]] = {"trioq": crc32c}
    try:
        import google_crc32c
    except ImportError:
        pass
    else:
        subjects["google-crc32c"] = google_crc32c.value
    return [
        MicroCase(f"crc32c {size_name}", subject, partial(call, os.urandom(size)))
        for size_name, size in CRC_SIZES.items()
        for subject, call in subjects.items()
    ]


def _batch_cases() -> list[MicroCase]:
    values = [os.urandom(RECORD_BYTES) for _ in range(RECORDS)]
    records = [(NOW_MS, None, value, ()) for value in values]
    batch = bytes(build_batch(records))
    header = native.peek(batch)
    data = memoryview(batch)[native.HEADER_BYTES :]
    shape = f"{RECORDS} x {RECORD_BYTES} B"
    ours = [
        MicroCase(f"walk {shape}", "trioq", lambda: native.validate(batch)),
        MicroCase(f"decode {shape}", "trioq", lambda: native.decode_records(data, header)),
        MicroCase(f"build {shape}", "trioq", lambda: build_batch(records)),
    ]
    return [*ours, *_client_cases(shape, values, batch), *_aiokafka_cases(shape, values, batch)]


def _client_cases(shape: str, values: list[bytes], batch: bytes) -> list[MicroCase]:
    """What our client does for a batch; "fetch" touches offset, key and value of every record."""

    def fetched() -> RecordBatchView[Any, Any]:
        return read_fetched(batch, topic="t", partition=0, start_offset=0).batches[0]

    def fill() -> object:
        builder = BatchBuilder(1 << 20)
        append = builder.append
        for value in values:
            append(None, value, (), NOW_MS)
        return builder.close()

    def fill_many() -> object:
        builder = BatchBuilder(1 << 20)
        builder.append_many(values, NOW_MS)
        return builder.close()

    def fetch() -> object:
        return [(record.offset, record.key, record.value) for record in fetched()]

    def fetch_in_bulk() -> object:
        view = fetched()
        return list(zip(view.offsets, view.keys(), view.values(), strict=True))

    calls = {
        "fill": fill,
        "fill at once": fill_many,
        "fetch": fetch,
        "fetch in bulk": fetch_in_bulk,
    }
    return [MicroCase(f"{what} {shape}", "trioq", call) for what, call in calls.items()]


def _aiokafka_cases(shape: str, values: list[bytes], batch: bytes) -> list[MicroCase]:
    try:
        from aiokafka.record.default_records import DefaultRecordBatchBuilder
        from aiokafka.record.memory_records import MemoryRecords
    except ImportError:
        return []

    def walk() -> object:
        found = MemoryRecords(batch).next_batch()
        return found.validate_crc() and sum(1 for _ in found)

    def decode() -> object:
        return list(MemoryRecords(batch).next_batch())

    def fetch() -> object:
        found = MemoryRecords(batch).next_batch()
        assert found.validate_crc()
        return [(record.offset, record.key, record.value) for record in found]

    def build() -> object:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=False,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=1 << 20,
        )
        for offset, value in enumerate(values):
            builder.append(offset, timestamp=NOW_MS, key=None, value=value, headers=[])
        return builder.build()

    return [
        MicroCase(f"{what} {shape}", "aiokafka", call)
        for what, call in (
            ("walk", walk),
            ("decode", decode),
            ("build", build),
            ("fill", build),
            ("fill at once", build),
            ("fetch", fetch),
            ("fetch in bulk", fetch),
        )
    ]


def _group_cases() -> list[MicroCase]:
    shape = f"{MEMBERS} members x {PARTITIONS:,} partitions"
    stored = GroupRebalance(MEMBERS, PARTITIONS, is_stored=True)
    alone = GroupRebalance(MEMBERS, PARTITIONS, is_stored=False)
    large = GroupRebalance(20 * MEMBERS, 20 * PARTITIONS, is_stored=False)
    return [
        MicroCase(f"rebalance {shape}", "trioq", stored.run),
        MicroCase(f"rebalance {shape}, nothing written", "trioq", alone.run),
        MicroCase("rebalance of 20 times as many, nothing written", "trioq", large.run),
        MicroCase(f"{MEMBERS} heartbeats in the group's state", "trioq", alone.heartbeats),
    ]


def _wire_cases() -> list[MicroCase]:
    return [
        case
        for name, message, version in _messages()
        for case in _message_cases(name, message, version)
    ]


def _message_cases(name: str, message: Any, version: int) -> list[MicroCase]:
    encoded = memoryview(message.encode(version))
    decode = type(message).decode
    return [
        MicroCase(
            f"decode {name} {version}", "trioq", lambda: decode(encoded, 0, len(encoded), version)
        ),
        MicroCase(f"encode {name} {version}", "trioq", lambda: message.encode(version)),
    ]


def _messages() -> list[tuple[str, Any, int]]:
    """Messages of the hot path, with one partition each, and a Metadata response of 100."""
    batch = bytes(build_batch([(NOW_MS, None, bytes(RECORD_BYTES), ())]))
    produced = ProduceRequestTopic(
        name="topic", partition_data=[ProduceRequestPartition(index=0, records=batch)]
    )
    answered = ProduceResponseTopic(
        name="topic", partition_responses=[ProduceResponsePartition(index=0, base_offset=1)]
    )
    asked = FetchRequestTopic(
        topic_id=ZERO_TOPIC_ID,
        partitions=[FetchRequestPartition(partition=0, partition_max_bytes=1 << 20)],
    )
    fetched = FetchResponseTopic(
        topic_id=ZERO_TOPIC_ID,
        partitions=[FetchResponsePartition(partition_index=0, high_watermark=1, records=batch)],
    )
    partitions = [
        MetadataResponsePartition(
            partition_index=number, leader_id=1, replica_nodes=[1], isr_nodes=[1]
        )
        for number in range(100)
    ]
    metadata = MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=1, host="localhost", port=9092)],
        topics=[MetadataResponseTopic(name="topic", partitions=partitions)],
    )
    return [
        ("ProduceRequest", ProduceRequest(acks=1, topic_data=[produced]), 11),
        ("ProduceResponse", ProduceResponse(responses=[answered]), 11),
        ("FetchRequest", FetchRequest(topics=[asked]), 16),
        ("FetchResponse", FetchResponse(responses=[fetched]), 16),
        ("MetadataResponse", metadata, 12),
    ]
