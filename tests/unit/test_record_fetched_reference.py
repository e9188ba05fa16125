"""Reading the records of Fetch responses, against the plain-Python reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import batch as reference
from tests.reference import fetched as reference_fetched
from tests.reference import records as reference_records
from tests.reference.strategies import (
    FIELDS,
    HEADERS,
    NEW_RECORDS,
    broken_batches,
    mutated,
)
from tests.unit.test_record_fetched import MAX_BYTES, marker, read
from trioq.errors import InvalidRecord, KafkaError
from trioq.record import layout
from trioq.record.compression import Codec, compress, decompress

CODECS = st.sampled_from(Codec)


@st.composite
def responses(draw):
    """Batches of every kind one after another, some broken, perhaps cut off."""
    out = b""
    offset = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.integers(0, 5)):
            case 0:
                batch = draw(broken_batches())
            case 1:
                batch = bytes(marker(draw(st.integers(0, 2)), committed=draw(st.booleans())))
            case 2:
                batch = draw(compacted())
            case _:
                codec = draw(CODECS)
                transactional_bit = layout.TRANSACTIONAL_BIT if draw(st.booleans()) else 0
                batch = reference.build(
                    draw(NEW_RECORDS),
                    attributes=int(codec) | transactional_bit,
                    producer_id=draw(st.integers(0, 2)),
                    compress=(lambda data, codec=codec: compress(codec, data)) if codec else None,
                )
        if len(batch) >= 61 and draw(st.integers(0, 9)):
            batch = reference.stamp(batch, offset, 0)
            offset += max(1, int.from_bytes(batch[23:27], "big", signed=True) % 1000 + 1)
        out += batch
    return out[: draw(st.integers(0, len(out)))] if draw(st.booleans()) else out


@st.composite
def compacted(draw):
    """A batch some of whose records are gone."""
    deltas = sorted(draw(st.sets(st.integers(0, 8), max_size=5)))
    payload = b"".join(
        reference_records.encode_record(
            reference_records.RawRecord(
                delta,
                delta,
                draw(FIELDS),
                draw(FIELDS),
                tuple((name.encode(), value) for name, value in draw(HEADERS)),
            )
        )
        for delta in deltas
    )
    header = reference.FIELDS.pack(0, 0, 1, 2, 0, 0, 8, 50, 60, -1, -1, -1, len(deltas))
    return reference.seal(header + payload)


def bounded(codec, data):
    return decompress(Codec(codec), data, max_bytes=MAX_BYTES)


def opened(view):
    """As the reference has a batch, from the records and in bulk."""
    try:
        view.open()
    except InvalidRecord:
        for touch in (view.keys, view.values, view.timestamps, view.headers, view.__iter__):
            with pytest.raises(InvalidRecord):
                touch()
        return InvalidRecord
    bulk = list(
        zip(
            view.offsets,
            view.timestamps(),
            view.keys(),
            view.values(),
            view.headers(),
            strict=True,
        )
    )
    assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in view] == bulk
    assert len(view) == len(bulk)
    return bulk


def compare(data, start_offset, aborted):
    try:
        expected = reference_fetched.read(data, start_offset, aborted, bounded)
    except KafkaError as error:
        with pytest.raises(type(error)):
            read(data, start_offset, aborted=aborted)
        return
    found = read(data, start_offset, aborted=aborted, max_bytes=MAX_BYTES)
    assert tuple(found[1:]) == expected[1:]
    assert [(view.start_offset, opened(view)) for view in found.batches] == [
        (batch.start_offset, batch.records) for batch in expected[0]
    ]


ABORTED = st.none() | st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=4)


@settings(deadline=None, max_examples=150)
@given(responses(), st.integers(0, 30), ABORTED)
def test_responses(data, start_offset, aborted):
    compare(data, start_offset, aborted)


@settings(deadline=None, max_examples=150)
@given(mutated(responses()), st.integers(0, 30), ABORTED)
def test_mutated_responses(data, start_offset, aborted):
    compare(data, start_offset, aborted)
