"""What clients do with batches: read fetched ones, fill and split their own; by the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fuzz.target import Choices, Raised, Target, outcome, seeded
from tests.fuzz.targets.batches import sample_batches, with_crcs
from tests.reference import batch as reference
from tests.reference import fetched as reference_fetched
from trioq._native import batch as native
from trioq._native.crc32c import crc32c
from trioq.errors import InvalidRecord, KafkaError
from trioq.record.batch import read_records
from trioq.record.compression import Codec, decompress
from trioq.record.control import build_end_transaction
from trioq.record.fetched import RecordBatchView, read_fetched
from trioq.record.producing import BatchBuilder, restamp, split

# The reference computes CRCs a byte at a time; tests of their own compare the two.
reference_fetched.crc32c = crc32c

_MAX_BYTES = 1 << 16


def _decompress(codec: int, data: bytes) -> bytes:
    return decompress(Codec(codec), data, max_bytes=_MAX_BYTES)


def check_fetched(data: bytes) -> None:
    choices = Choices(data)
    mode = choices.byte()
    start_offset = choices.byte()
    aborted = [(choices.byte() % 3, choices.byte()) for _ in range(mode >> 1 & 3)]
    body = choices.rest()
    if mode & 1:
        body = with_crcs(body)
    expected = outcome(KafkaError, reference_fetched.read, body, start_offset, aborted, _decompress)
    found = outcome(
        KafkaError,
        read_fetched,
        body,
        topic="t",
        partition=0,
        start_offset=start_offset,
        aborted=aborted,
        max_bytes=_MAX_BYTES,
    )
    if isinstance(found, Raised):
        assert found == expected
        return
    assert tuple(found[1:]) == expected[1:]
    assert [(view.start_offset, _opened(view)) for view in found.batches] == [
        (batch.start_offset, batch.records) for batch in expected[0]
    ]


def _opened(view: RecordBatchView[Any, Any]) -> Any:
    """As the reference has a batch."""
    made = outcome(InvalidRecord, lambda: list(view))
    if isinstance(made, Raised):
        return InvalidRecord
    assert (len(view), list(view.offsets)) == (len(made), [record.offset for record in made])
    bulk = zip(
        view.offsets, view.timestamps(), view.keys(), view.values(), view.headers(), strict=True
    )
    singly = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in made]
    assert list(bulk) == singly
    return singly


def check_builder(data: bytes) -> None:
    """Records as the bytes say: filled in, closed, split down to single ones, restamped."""
    choices = Choices(data)
    codec = Codec(choices.byte() % 5)
    builder = BatchBuilder(choices.number(2), 1 << 15)
    records = []
    while not choices.is_used_up:
        record = _record(choices)
        size = builder.size_bytes
        index = builder.append(record[1], record[2], record[3], record[0])
        if index < 0:
            assert builder.size_bytes == size
            break
        assert index == len(records)
        records.append(record)
    if not records:
        return
    size = builder.size_bytes
    batch = builder.close(codec, producer_id=5, producer_epoch=1, base_sequence=2**31 - 2)
    if codec is Codec.NONE:
        options = {"producer_id": 5, "producer_epoch": 1, "base_sequence": 2**31 - 2}
        assert batch == reference.build(records, **options)
        assert len(batch) == size
    expected = read_records(batch)
    assert [tuple(record[1:]) for record in expected] == [
        (timestamp, key, value, tuple(headers)) for timestamp, key, value, headers in records
    ]
    stamped = restamp(batch, producer_id=6, producer_epoch=2, base_sequence=0)
    assert native.validate(stamped).producer_id == 6
    assert read_records(stamped) == expected
    parts = list(_singles(batch))
    assert [record[1:] for part in parts for record in read_records(part)] == [
        record[1:] for record in expected
    ]
    sequences = [native.validate(part).base_sequence for part in parts]
    assert sequences == [(2**31 - 2 + index) % 2**31 for index in range(len(parts))]


def _singles(batch: bytearray) -> Iterator[bytearray]:
    if native.peek(batch).record_count == 1:
        yield batch
        return
    for half in split(batch):
        yield from _singles(half)


def _record(choices: Choices) -> tuple[int, bytes | None, bytes | None, list[Any]]:
    shape = choices.byte()
    timestamp = choices.number(8 if shape & 1 else 1)
    key, value = (
        None if shape & bit else choices.take(choices.byte() * (1 + (shape >> 6 & 1) * 40))
        for bit in (2, 4)
    )
    headers = [
        (choices.take(choices.byte() & 7).decode("latin-1"), choices.take(2) or None)
        for _ in range(shape >> 3 & 3)
    ]
    return timestamp, key, value, headers


def _fetched_seeds() -> Iterator[bytes]:
    batches = [
        *sample_batches(),
        *(
            bytes(
                build_end_transaction(
                    committed=committed,
                    coordinator_epoch=0,
                    producer_id=9 * committed,
                    producer_epoch=0,
                    timestamp_ms=1,
                )
            )
            for committed in (True, False)
        ),
    ]
    for number in range(len(batches) - 2):
        log = bytearray()
        offset = 0
        for batch in (batches[number], batches[-1 - number % 2], batches[number + 1]):
            stamped = bytearray(batch)
            native.stamp(stamped, 0, offset, 1)
            offset = native.peek(stamped).next_offset
            log += stamped
        yield bytes([1 | (number & 1) << 1, number % 7, *([0, number % 5] * (number & 1))]) + log


def _builder_seeds() -> Iterator[bytes]:
    chance = seeded("builder")
    for codec in Codec:
        for shapes in (b"\0", b"\6", b"\x18\x01\x40"):
            yield bytes([codec, 0x40, 0]) + b"".join(
                bytes([shape]) + chance.randbytes(12) for shape in shapes * 3
            )


TARGETS = (
    Target("fetched", check_fetched, _fetched_seeds, 2048),
    Target("builder", check_builder, _builder_seeds, 2048),
)
