"""Batches by example: one per rule of the contract in batch.pyi."""

from __future__ import annotations

import random
import struct
import tempfile

import pytest

from tests.reference import batch as reference
from trioq._native import batch
from trioq.errors import (
    CorruptMessage,
    InvalidRecord,
    UnsupportedCompressionType,
    UnsupportedForMessageFormat,
)


def records(count, size=10):
    return [
        (1000 + i, b"k%d" % i, bytes(size), [("h", b"x")] if i % 2 else []) for i in range(count)
    ]


def one(count=3, **fields):
    return bytearray(reference.build(records(count), **fields))


def patched(form, position, value, **fields):
    """A batch with one header field changed and its CRC right."""
    data = one(**fields)
    struct.pack_into(form, data, position, value)
    if position != 8:
        data[17:21] = struct.pack(">I", reference.crc32c(bytes(data[21:])))
    return data


def test_header_fields():
    data = one(
        3,
        base_offset=100,
        leader_epoch=7,
        attributes=0x30,
        producer_id=9,
        producer_epoch=2,
        base_sequence=2**31 - 2,
    )
    header = batch.peek(b"xx" + data, 2)
    assert header.position == 2
    assert header.size_bytes == len(data)
    assert (header.base_offset, header.last_offset, header.next_offset) == (100, 102, 103)
    assert (header.leader_epoch, header.magic, header.attributes) == (7, 2, 0x30)
    assert (header.base_timestamp, header.max_timestamp) == (1000, 1002)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 2, 2**31 - 2)
    assert header.last_sequence == 0  # wrapped: 2^31 - 2, 2^31 - 1, 0
    assert header.has_producer_id
    assert header.is_transactional
    assert header.is_control
    assert not header.has_delete_horizon
    assert (header.codec, header.timestamp_type, header.record_count) == (0, 0, 3)
    assert "base_offset=100" in repr(header)
    with pytest.raises(AttributeError):
        header.base_offset = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        batch.BatchHeader()
    assert batch.peek(one()).last_sequence == -1


def test_peek_refuses():
    data = one()
    for short in range(61):
        with pytest.raises(CorruptMessage):
            batch.peek(data[:short])
    with pytest.raises(CorruptMessage):
        batch.peek(data[:-1])
    for magic, error in (
        (0, UnsupportedForMessageFormat),
        (1, UnsupportedForMessageFormat),
        (3, CorruptMessage),
        (-1, CorruptMessage),
    ):
        with pytest.raises(error):
            batch.peek(patched(">b", 16, magic))
    for length in (-1, 0, 48, 2**31 - 1, -(2**31)):
        with pytest.raises(CorruptMessage):
            batch.peek(patched(">i", 8, length))
    for position in (-1, len(data) + 1, 2**62):
        with pytest.raises(ValueError):
            batch.peek(data, position)


def test_old_formats_are_named_even_when_shorter_than_a_v2_header():
    with pytest.raises(UnsupportedForMessageFormat):
        batch.peek(bytes(8) + struct.pack(">iib", 14, 0, 1) + bytes(9))


def test_validate_refuses():
    data = one()
    data[-1] ^= 1
    with pytest.raises(CorruptMessage, match="CRC"):
        batch.validate(data)
    for form, position, value, error in (
        (">i", 57, 0, InvalidRecord),
        (">i", 57, -1, InvalidRecord),
        (">i", 57, 2, InvalidRecord),
        (">i", 57, 4, InvalidRecord),
        (">i", 23, -1, InvalidRecord),
        (">i", 23, 2**31 - 1, InvalidRecord),
        (">h", 21, 0x80, InvalidRecord),
        (">h", 21, -(2**15), InvalidRecord),
        (">h", 21, 5, UnsupportedCompressionType),
        (">h", 21, 7, UnsupportedCompressionType),
    ):
        with pytest.raises(error):
            batch.validate(patched(form, position, value))


def test_validate_walks_only_uncompressed_batches_and_only_when_asked():
    broken = bytearray(reference.seal(one()[:-1] + b"\x7f"))
    with pytest.raises(InvalidRecord, match="record 2"):
        batch.validate(broken)
    assert batch.validate(broken, walk=False).record_count == 3
    struct.pack_into(">h", broken, 21, 4)
    assert batch.validate(reference.seal(broken)).codec == 4


def test_control_bit_and_delete_horizon_pass_validation():
    assert batch.validate(one(attributes=0x20)).is_control
    assert batch.validate(one(attributes=0x40)).has_delete_horizon


@pytest.mark.parametrize("size", [10, 70_000])  # with and without the interpreter lock
def test_stamping(size):
    data = bytearray(reference.build(records(3, size)))
    expected = reference.stamp(bytes(data), 2**40, 12)
    batch.stamp(data, 0, 2**40, 12)
    assert data == expected
    assert batch.validate(data).leader_epoch == 12
    batch.stamp_append_time(data, 0, 77)
    assert data == reference.stamp_append_time(expected, 77)
    header = batch.validate(data)
    assert (header.timestamp_type, header.max_timestamp) == (1, 77)


def test_stamping_needs_a_writable_whole_header():
    data = one()
    with pytest.raises(BufferError):
        batch.stamp(bytes(data), 0, 1, 1)
    for position in (-1, len(data) - 60, 2**40):
        with pytest.raises(ValueError):
            batch.stamp(data, position, 1, 1)
    with pytest.raises(CorruptMessage):
        batch.stamp_append_time(data[:-1], 0, 1)


def test_seal():
    data = one()
    longer = bytearray(data[:61]) + b"more"
    batch.seal(longer)
    assert longer == reference.seal(bytes(data[:61]) + b"more")
    with pytest.raises(ValueError):
        batch.seal(bytearray(60))


def test_scan_stops_where_bytes_are_cut_off_or_corrupt():
    parts = [one(2, base_offset=0), one(1, base_offset=2), one(5, base_offset=3)]
    log = b"".join(parts)
    edges = [len(parts[0]), len(parts[0] + parts[1]), len(log)]
    headers, end, reason = batch.scan(log, 0, len(log), check_crc=True)
    assert [header.position for header in headers] == [0, *edges[:2]]
    assert (end, reason) == (len(log), None)
    for cut in (edges[1] + 1, edges[1] + 61, edges[2] - 1):
        headers, end, reason = batch.scan(log, 0, cut, check_crc=True)
        assert (len(headers), end, reason) == (2, edges[1], None)
    broken = bytearray(log)
    broken[edges[1] - 1] ^= 1
    headers, end, reason = batch.scan(broken, 0, len(log), check_crc=True)
    assert (len(headers), end) == (1, edges[0])
    assert reason is not None
    assert "CRC" in reason
    assert batch.scan(broken, 0, len(log), check_crc=False)[1:] == (len(log), None)
    assert batch.scan(bytes(100), 0, 100, check_crc=True)[:2] == ([], 0)
    assert batch.scan(bytes(100), 0, 100, check_crc=True)[2] is not None
    assert batch.scan(log, edges[0], edges[1], check_crc=True)[1] == edges[1]
    assert batch.scan(b"", 0, 0, check_crc=True) == ([], 0, None)


def test_scan_of_more_than_the_lock_is_kept_for():
    log = b"".join(reference.build(records(2, 30_000), base_offset=2 * i) for i in range(5))
    headers, end, reason = batch.scan(log, 0, len(log), check_crc=True)
    assert [header.base_offset for header in headers] == [0, 2, 4, 6, 8]
    assert (end, reason) == (len(log), None)


def test_scan_accepts_what_compaction_leaves():
    emptied = reference.seal(bytes(one()[:61]))
    emptied = reference.seal(emptied[:57] + bytes(4))
    assert batch.scan(emptied, 0, 61, check_crc=True)[1:] == (61, None)


@pytest.mark.parametrize("call", [batch.scan, batch.locate])
@pytest.mark.parametrize(("position", "end"), [(-1, 5), (5, 4), (0, 101), (101, 101), (0, 2**62)])
def test_ranges_outside_the_buffer_are_refused(call, position, end):
    arguments = (bytes(100), position, end)
    with pytest.raises(ValueError):
        call(*arguments, check_crc=True) if call is batch.scan else call(*arguments, 0)


def test_locate():
    parts = [one(3, base_offset=0), one(1, base_offset=3), one(5, base_offset=10)]
    log = b"".join(parts)
    second, third = len(parts[0]), len(parts[0] + parts[1])
    expectations = {-5: 0, 0: 0, 2: 0, 3: second, 4: third, 10: third, 14: third}
    for target, expected in expectations.items():
        position, size_bytes = batch.locate(log, 0, len(log), target)
        assert position == expected
        assert size_bytes == batch.peek(log, position).size_bytes
    assert batch.locate(log, 0, len(log), 15) == (-1, -1)
    assert batch.locate(log, 0, second, 3) == (-1, -1)
    assert batch.locate(log, second, len(log), 0) == (second, len(parts[1]))
    assert batch.locate(log, 0, third + 61, 12) == (third, len(parts[2]))  # cut off, but named
    with pytest.raises(CorruptMessage):
        batch.locate(bytes(100), 0, 100, 0)
    extreme = one(3, base_offset=2**63 - 1)
    assert batch.locate(extreme, 0, len(extreme), 2**63 - 1) == (0, len(extreme))


def test_edges_and_offsets_in_a_file():
    parts = [
        reference.build(
            records(1 + i % 3, random.Random(i).choice((1, 50, 5000))), base_offset=3 * i
        )
        for i in range(60)
    ]
    log = b"".join(parts)
    edges = [0]
    for part in parts:
        edges.append(edges[-1] + len(part))
    with tempfile.TemporaryFile() as file:
        file.write(log)
        file.flush()
        fd = file.fileno()
        limits = {edge + extra for edge in edges for extra in (-1, 0, 1, 60, 61)}
        for limit in sorted(limits & set(range(len(log) + 1))):
            assert batch.last_edge(fd, 0, limit) == max(e for e in edges if e <= limit)
        assert batch.last_edge(fd, edges[30], edges[30] + 5) == edges[30]
        assert batch.last_edge(fd, edges[40], len(log) + 1000) == len(log)
        assert batch.last_edge(fd, len(log), len(log) + 1000) == len(log)
        for target in range(-1, 3 * 60 + 3):
            expected = batch.locate(log, 0, len(log), target)
            assert batch.locate_in_file(fd, 0, len(log), target) == expected
        with pytest.raises(CorruptMessage):
            batch.last_edge(fd, 1, len(log))
    with pytest.raises(OSError, match="cannot read"):
        batch.last_edge(fd, 0, 1000)


def test_build_with_a_codec_hands_the_records_to_it_once():
    seen = []

    def compress(data):
        seen.append(bytes(data))
        return b"squeezed"

    built = batch.build(records(3), attributes=4, compress=compress)
    assert built[61:] == b"squeezed"
    assert seen == [bytes(reference.build(records(3))[61:])]
    assert batch.validate(built).codec == 4
    for wrong in ({"attributes": 4}, {"compress": compress}):
        with pytest.raises(ValueError):
            batch.build(records(1), **wrong)


def test_build_refuses_what_is_no_record():
    for wrong in (
        [],
        [(1, b"", b"")],
        [[1, b"", b"", ()]],
        [None],
        [("1", b"", b"", ())],
        [(1, "text", b"", ())],
        [(1, b"", 5, ())],
        [(1, b"", b"", 5)],
        [(1, b"", b"", [("h",)])],
        [(1, b"", b"", [(b"h", b"")])],
        [(1, b"", b"", [("\ud800", b"")])],
        [(2**63, b"", b"", ())],
    ):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            batch.build(wrong)


def test_build_takes_other_buffers_and_iterables():
    plain = batch.build([(1, b"key", b"value", [("h", b"x")])])
    assert plain == batch.build(
        iter([(1, bytearray(b"key"), memoryview(b"value"), (("h", bytearray(b"x")),))])
    )


def test_decode_makes_the_tuples_asked_for():
    from trioq.record.batch import Record

    data = one(4)
    header = batch.peek(data)
    plain = batch.decode_records(memoryview(data)[61:], header)
    named = batch.decode_records(memoryview(data)[61:], header, Record)
    assert plain == named
    assert type(named[0]) is Record
    assert hash(plain[0]) == hash(named[0])
    assert named[1].headers == (("h", b"x"),)
    with pytest.raises(TypeError):
        batch.decode_records(b"", header, dict)  # type: ignore[type-var]


def test_header_keys_that_are_no_utf8_are_replaced():
    data = bytearray(batch.build([(1, None, None, [("ab", b"")])]))
    data = bytearray(bytes(data).replace(b"ab", b"\xffb"))
    batch.seal(data)
    assert batch.decode_records(data[61:], batch.validate(data))[0][4] == (("\ufffdb", b""),)


def test_claimed_counts_allocate_nothing():
    with pytest.raises(InvalidRecord):
        batch.walk_records(b"", 2**31 - 1)
    data = patched(">i", 57, 2**31 - 1)
    with pytest.raises(InvalidRecord):
        batch.decode_records(data[61:], batch.peek(data))
