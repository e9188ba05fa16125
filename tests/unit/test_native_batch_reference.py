"""Native batch code against the plain-Python reference: same result or same error type."""

from __future__ import annotations

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import batch as reference
from tests.reference import records as reference_records
from tests.reference import varint
from tests.reference.strategies import (
    ATTRIBUTES,
    BATCHES,
    INT16,
    INT32,
    INT64,
    NEW_RECORDS,
    RAW_RECORDS,
    TIMESTAMPS,
    broken_batches,
    mutated,
    outcome,
)
from trioq._native import batch
from trioq.record.batch import Record

thorough = settings(deadline=None, max_examples=200)


def fields(header):
    """What a native header and a reference header have in common, by value."""
    if isinstance(header, type):
        return header
    shared = [name for name in reference.Header._fields if name != "batch_length"]
    return [getattr(header, name) for name in (*shared, "size_bytes")]


@thorough
@given(NEW_RECORDS, INT64, st.none() | TIMESTAMPS, INT32, ATTRIBUTES, INT64, INT16, INT32)
def test_build(made, base_offset, base_timestamp, epoch, attributes, pid, pid_epoch, sequence):
    options = {
        "base_offset": base_offset,
        "base_timestamp": base_timestamp,
        "leader_epoch": epoch,
        "attributes": attributes,
        "producer_id": pid,
        "producer_epoch": pid_epoch,
        "base_sequence": sequence,
    }
    built = batch.build(made, **options)
    assert built == reference.build(made, **options)
    header = batch.validate(built)
    decoded = batch.decode_records(memoryview(built)[61:], header, Record)
    assert [record[2:] for record in decoded] == [
        (key, value, tuple(headers)) for _, key, value, headers in made
    ]


@thorough
@given(broken_batches(), st.binary(max_size=4), st.binary(max_size=4))
def test_headers_and_checks(data, before, after):
    buffer = before + data + after
    position = len(before)
    assert fields(outcome(batch.peek, buffer, position)) == fields(
        outcome(reference.peek, buffer, position)
    )
    for walk in (True, False):
        assert fields(outcome(batch.validate, buffer, position, walk=walk)) == fields(
            outcome(reference.validate, buffer, position, walk=walk)
        )


@thorough
@given(broken_batches(), INT64)
def test_records_of_broken_batches(data, target_ms):
    header = outcome(reference.peek, data)
    if isinstance(header, type):
        return
    native = batch.peek(data)
    body = data[61 : header.size_bytes]
    assert outcome(batch.decode_records, body, native) == outcome(
        reference.decode_records, body, header
    )
    arguments = (body, header.record_count, header.base_offset, header.base_timestamp)
    assert outcome(batch.max_timestamp_offset, *arguments) == outcome(
        reference_records.max_timestamp_offset, *arguments
    )
    for target in (target_ms, header.base_timestamp, header.max_timestamp):
        for start in (0, 1, header.record_count - 1):
            found = outcome(batch.find_timestamp, *arguments, target, start_delta=start)
            assert found == outcome(
                reference_records.find_timestamp, *arguments, target, start_delta=start
            )


@st.composite
def record_bytes(draw):
    """Records, mostly with their index as offset delta, now and then malformed."""
    made = draw(st.lists(RAW_RECORDS, max_size=6))
    if draw(st.booleans()):
        made = [record._replace(offset_delta=index) for index, record in enumerate(made)]
    encoded = st.just(
        b"".join(
            reference_records.encode_record(record, attributes=index)
            for index, record in enumerate(made)
        )
    )
    count = draw(st.sampled_from([len(made), len(made), len(made) + 1, max(0, len(made) - 1), -1]))
    return draw(mutated(encoded)), count


@thorough
@given(record_bytes())
def test_walk(made):
    data, count = made
    assert outcome(batch.walk_records, data, count) == outcome(
        reference_records.walk_records, data, count
    )


@thorough
@given(st.binary(max_size=60), st.integers(0, 4))
def test_walk_of_random_bytes(data, count):
    assert outcome(batch.walk_records, data, count) == outcome(
        reference_records.walk_records, data, count
    )


def overlong(value, extra):
    """The varint of `value` with `extra` needless bytes."""
    encoded = bytearray(varint.encode(value))
    for _ in range(extra):
        encoded[-1] |= 0x80
        encoded.append(0)
    return bytes(encoded)


@thorough
@given(INT64, INT32, st.integers(0, 10), st.integers(0, 5), st.binary(max_size=3))
def test_varints_of_every_length(timestamp_delta, offset_delta, long_extra, extra, tail):
    body = (
        b"\0"
        + overlong(timestamp_delta, long_extra)
        + overlong(offset_delta, extra)
        + b"\1\1"
        + tail
    )
    data = varint.encode(len(body)) + body
    arguments = (data, 1, 0, 0)
    assert outcome(batch.max_timestamp_offset, *arguments) == outcome(
        reference_records.max_timestamp_offset, *arguments
    )


LOGS = st.lists(
    st.tuples(st.integers(0, 5), mutated(BATCHES), BATCHES), min_size=1, max_size=4
).map(lambda parts: b"".join(broken if which == 0 else good for which, broken, good in parts))


@thorough
@given(LOGS, st.integers(0, 80), st.integers(0, 80), st.booleans(), st.integers(-2, 1100) | INT64)
def test_scan_and_locate(log, cut_start, cut_end, check_crc, target):
    position = 0 if cut_start > 5 else min(cut_start, len(log))
    end = max(position, len(log) - (0 if cut_end > 70 else cut_end))
    headers, valid_end, reason = batch.scan(log, position, end, check_crc=check_crc)
    expected, expected_end, corrupt = reference.scan(log, position, end, check_crc=check_crc)
    assert [(h.position, fields(h)) for h in headers] == [(p, fields(h)) for p, h in expected]
    assert (valid_end, reason is not None) == (expected_end, corrupt)
    located = outcome(reference.locate, log, position, end, target)
    assert outcome(batch.locate, log, position, end, target) == located
    with tempfile.TemporaryFile() as file:
        file.write(log)
        file.flush()
        assert outcome(batch.locate_in_file, file.fileno(), position, end, target) == located


@thorough
@given(BATCHES, INT64, INT32, INT64)
def test_stamps(data, base_offset, leader_epoch, timestamp_ms):
    changed = bytearray(data)
    batch.stamp(changed, 0, base_offset, leader_epoch)
    assert changed == reference.stamp(data, base_offset, leader_epoch)
    batch.stamp_append_time(changed, 0, timestamp_ms)
    assert changed == reference.stamp_append_time(
        reference.stamp(data, base_offset, leader_epoch), timestamp_ms
    )
